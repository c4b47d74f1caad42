"""Whose vectors lie in an engine: the index's own description and rotation, kept beside them as text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import ArtifactError, EngineError, UsageError
from emb.search.engines.protocol import Form
from emb.search.index.description import Description
from emb.search.index.space import Space
from emb.similarity import Vectors

SCHEMA = 1
IDENTITY, STATE = "identity", "state"  # names of settings
_ANEW = "name another table behind #, or add --overwrite to write this one anew"


@dataclass(frozen=True)
class Identity:
    """What a search has to know of vectors in an engine.

    Attributes:
        description: of the index that they came from.
        find: how the nearest are found.
        rotation: `(encoder's dim, encoder's dim)` that queries are turned by first, or None.
    """

    description: Description
    find: str
    rotation: Vectors | None

    @property
    def space(self) -> Space:
        """That queries are put into."""
        return self.description.space.turned(self.rotation)

    @property
    def form(self) -> Form:
        """How the vectors lie there."""
        space = self.space
        return Form(space.dim, space.measure, space.length_one, self.description.layout.finest, self.find)

    @property
    def fingerprint(self) -> str:
        """Of the space: vectors of one with the same can stand beside these."""
        space, layout = self.space, self.description.layout
        facts = [self.description.encoder.fingerprint, space.dim, space.measure, space.length_one, layout.finest]
        facts += ["learned cut"] * layout.learn_cut
        rotation = b"" if self.rotation is None else self.rotation.astype("<f4").tobytes()
        return hashlib.sha256(json.dumps(facts).encode() + rotation).hexdigest()[:32]

    def state(self, *, whole: bool) -> str:
        """A short text that every search reads: the space, and whether a copy has come to its end."""
        return f"{self.fingerprint} {'whole' if whole else 'unfinished'}"

    def text(self) -> str:
        """All of it as JSON, with a hash of itself."""
        rotation = None if self.rotation is None else base64.b64encode(self.rotation.astype("<f4").tobytes()).decode()
        value = {
            "schema": SCHEMA,
            "encoder": dataclasses.asdict(self.description.encoder),
            "layout": dataclasses.asdict(self.description.layout),
            "find": self.find,
            "rotation": rotation,
        }
        return json.dumps(value | {"digest": _digest(value)}, sort_keys=True)

    def require_same(self, other: Identity, place: object) -> None:
        """Hold an index's identity against that of an engine, `other`.

        Raises:
            ArtifactError: another space.
            UsageError: another way of finding.
        """
        ours, theirs = self.description, other.description
        if ours.encoder.fingerprint != theirs.encoder.fingerprint:
            raise ArtifactError(
                f"{place}: its vectors are of {theirs.encoder.name}, those of the index of {ours.encoder.name}"
                " or another model of that name",
                _ANEW,
            )
        if self.form != dataclasses.replace(other.form, find=self.find):
            raise ArtifactError(f"{place}: holds {_said(other)}, the index {_said(self)}", _ANEW)
        if self.fingerprint != other.fingerprint:
            raise ArtifactError(f"{place}: its vectors were turned or cut in another way than the index's", _ANEW)
        if self.find != other.find:
            raise UsageError(f"--find {self.find}: {place} was begun with {other.find}", f"leave it out; {_ANEW}")


def read_identity(text: str, place: object) -> Identity:
    """The identity that stands in an engine.

    Raises:
        EngineError: of another version, or changed since it was written.
    """
    value = _json(text)
    if value.get("schema") != SCHEMA and value:
        raise EngineError(
            f"{place}: written by version {value.get('schema')!r} of this program, this one reads {SCHEMA}", _ANEW
        )
    if value.pop("digest", None) != _digest(value):
        raise EngineError(f"{place}: what it says of its vectors has changed since it was written", _ANEW)
    description = Description.of(value, place)
    return Identity(description, value["find"], _rotation(value["rotation"], description))


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _rotation(text: str | None, description: Description) -> Vectors | None:
    if text is None:
        return None
    dim = description.encoder.dim
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(dim, dim).astype(np.float32)


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _said(identity: Identity) -> str:
    form = identity.form
    lengths = "length 1" if form.length_one else "any length"
    return f"{form.dim} dims of {lengths} as {form.codec}, compared by {form.measure}"
