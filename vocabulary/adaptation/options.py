"""What is asked of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass, field

from emb.errors import UsageError
from emb.vocabulary.choose_rows import AUTO
from emb.vocabulary.initialise import METHODS
from emb.vocabulary.wanted import Wanted

MODES = ("trim", "extend", "both")
SELF = "self"
LORA, QLORA = "lora", "qlora"


@dataclass(frozen=True)
class AdaptOptions:
    """How a vocabulary is adapted.

    Attributes:
        mode: trim, extend, or both, in this order.
        wanted: which tokens a trim keeps.
        add: how many tokens an extension adds.
        init: how their rows are made.
        teacher: whose vectors rows are trained towards: "self", or a model's name or folder.
        language: "lora" or "qlora", for an adapter that is trained at the end and merged; None for none.
        min_cosine: mean cosine that an extension must keep to the vectors without it.
        sibling: a model tuned from this one that gets the vocabulary too; None for none.
    """

    mode: str = "trim"
    wanted: Wanted = field(default_factory=Wanted)
    add: int | None = None
    init: str = AUTO
    teacher: str = SELF
    language: str | None = None
    min_cosine: float = 0.85
    sibling: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"--mode {self.mode}: no such mode", f"known: {', '.join(MODES)}")
        if self.init not in (AUTO, *METHODS):
            raise UsageError(f"--init {self.init}: no such way", f"known: {AUTO}, {', '.join(METHODS)}")
        if self.extends and self.add is None:
            raise UsageError(f"--mode {self.mode} needs a number of new tokens", "add --add N, for example --add 2000")
        if not self.extends and self.add is not None:
            raise UsageError("--add goes with an extension", "add --mode extend or --mode both")
        if not self.extends and self.init != AUTO:
            raise UsageError("--init goes with an extension", "add --mode extend or --mode both")
        if not self.extends and self.language is None and self.teacher != SELF:
            raise UsageError("--teacher goes with a training", "add --mode extend, --mode both, --lora or --qlora")
        if self.language is not None and self.sibling is not None:
            raise UsageError(
                "--propagate-to hands on token rows, and an adapter's rows go with its layers",
                "leave out --lora or --qlora, and train the sibling's own adapter afterwards",
            )
        if not self.trims and self.wanted != Wanted():
            raise UsageError(
                "--keep-coverage, --rows, --keep-scripts and --keep go with a trim", "add --mode trim or --mode both"
            )

    @property
    def trims(self) -> bool:
        """Whether tokens are taken out."""
        return self.mode != "extend"

    @property
    def extends(self) -> bool:
        """Whether tokens are added."""
        return self.mode != "trim"
