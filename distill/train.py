"""The training loop: cached targets in, a student out, resumable to the bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from emb.artifact.manifest import LayerDimPair
from emb.distill.checkpoint import load_checkpoint, save_checkpoint
from emb.distill.held_out_scores import held_out_scores
from emb.distill.interrupt import deferred_interrupt
from emb.distill.losses import objective_of, pair_losses
from emb.distill.schedule import BatchPlan, learning_rate
from emb.errors import TrainingError
from emb.files import atomic_path
from emb.machine import resolve_dtype
from emb.model.embedding_model import EmbeddingModel
from emb.progress import bar, note
from emb.recipes.recipe import TrainingRecipe
from emb.teachers.cache import TeacherEmbeddings

_TIMED_STEPS = 20
_LOG_EVERY = 20


@dataclass(frozen=True)
class Split:
    """Token ids of texts and the teacher's vectors for them."""

    rows: Sequence[np.ndarray[Any, Any]]
    targets: TeacherEmbeddings


class Training:
    """One run of the loop over a fixed plan.

    `identity` is everything the weights depend on; a checkpoint of another identity is refused.
    """

    def __init__(
        self,
        student: EmbeddingModel,
        train: Split,
        held_out: Split,
        pairs: Sequence[LayerDimPair],
        recipe: TrainingRecipe,
        folder: Path,
        identity: str,
    ) -> None:
        torch.manual_seed(recipe.seed)
        precision = "bf16" if resolve_dtype(recipe.precision) is torch.bfloat16 else "no"
        AcceleratorState._reset_state()  # it holds the precision of the first run in this process
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
        self.student, self.train, self.held_out = student.to(self.accelerator.device), train, held_out
        self.pairs, self.recipe, self.folder, self.identity = pairs, recipe, folder, identity
        self.exits = sorted({pair.layers for pair in pairs})
        self.objective = objective_of(recipe.objective or [{"cosine": 1.0}])
        self.padder = student.tokenizer()
        self.held_targets = held_out.targets.take(range(len(held_out.targets)))
        self.plan = BatchPlan([len(row) for row in train.rows], recipe.tokens_per_batch, recipe.seed)
        freeze(student, bool(recipe.train_token_embeddings))
        optimizer = torch.optim.AdamW(
            parameter_groups(student), lr=recipe.lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(student, optimizer)
        self.raw_optimizer = optimizer
        self.total = self._planned_steps()
        self.step, self.texts, self.seconds = 0, 0, 0.0
        self.losses: list[float] = []

    def run(self) -> None:
        """Train to the end of the plan.

        Interrupting (Ctrl-C, SIGTERM) ends the step and writes a checkpoint.

        Raises:
            KeyboardInterrupt: interrupted; `Terminated`, which is one too, by SIGTERM.
            TrainingError: the loss is NaN or infinity; no checkpoint is written.
        """
        self._resume()
        with deferred_interrupt() as interrupted, bar("training (steps)", self.total) as advance:
            advance(self.step)
            self._loop(advance, interrupted)

    def _loop(self, advance: Callable[..., None], interrupted: Callable[[], KeyboardInterrupt | None]) -> None:
        if self.step == 0 < self.total:
            self.evaluate()
        self.saved_at = self.started = time.monotonic()
        self.saved_step = self.step
        first, processes = self.step, self.accelerator.num_processes
        batches = islice(self.plan.batches(self.step * processes + self.accelerator.process_index), 0, None, processes)
        while self.step < self.total:
            batch, rate = next(batches), self._rate()
            self.losses = [*self.losses[1 - _LOG_EVERY :], self._train_step(batch, rate)]
            self.step += 1
            self.texts += len(batch)
            advance(1, f"loss {np.mean(self.losses):.4f}")
            if self.step % _LOG_EVERY == 0:
                self._log(
                    step=self.step, loss=float(np.mean(self.losses)), texts=self.texts, seconds=self._spent(), lr=rate
                )
            if self.step == _TIMED_STEPS and self.recipe.max_time:
                self._fit_into(self.recipe.max_time, (time.monotonic() - self.started) / (self.step - first))
                advance(0, total=self.total)
            if self.step % self.recipe.evaluate_every == 0 and self.step < self.total:
                self.evaluate()
            stop = interrupted()
            if stop or time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds:
                self._checkpoint()
            if stop:
                raise stop
        if self.saved_step < self.step:
            self._checkpoint()  # whatever happens to the student's folder, the training is done

    def _train_step(self, batch: np.ndarray[Any, Any], rate: float) -> float:
        for group in self.raw_optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        device = self.accelerator.device
        ids, mask = (
            torch.from_numpy(array).to(device) for array in self.padder.pad([self.train.rows[i] for i in batch])
        )
        targets = torch.from_numpy(self.train.targets.take(batch)).to(device)
        outputs = {n: vectors.float() for n, vectors in self.model(ids, mask, self.exits).items()}
        loss = self._loss(outputs, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the training diverges: the loss is {value} at step {self.step}", self._mend())
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return value

    def _mend(self) -> str:
        """What helps where training diverges."""
        return (
            f"lower the learning rate: --set training.lr={self.recipe.lr / 4:g} (it is {self.recipe.lr:g}), or try"
            " training.precision=fp32, and start again with --overwrite"
        )

    def _loss(self, outputs: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        """The mean over the pairs, from vectors by layers `(batch, teacher_dim)` that are not yet normalised."""
        losses = pair_losses(outputs, targets, self.pairs, objective=self.objective, unit=self.student.spec.normalize)
        return torch.stack(list(losses.values())).mean()

    def _planned_steps(self) -> int:
        steps = round(self.recipe.epochs * len(self.plan.epoch(0)) / int(self.accelerator.num_processes))
        steps = max(steps, 1 if self.recipe.epochs else 0)
        return min(steps, self.recipe.max_steps or steps)

    def _rate(self) -> float:
        return learning_rate(self.step, self.total, self.recipe)

    def _scales(self) -> list[float]:
        return [group["scale"] for group in self.raw_optimizer.param_groups]

    def _spent(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _fit_into(self, seconds: float, per_step: float) -> None:
        # Decided once and kept in the checkpoints: a resumed run must follow the same schedule.
        # Processes measure different times and must still stop at the same step.
        fitting = torch.tensor([round(seconds / per_step)], device=self.accelerator.device)
        self.total = max(self.step, min(self.total, int(self.accelerator.gather(fitting).min())))
        note(f"{per_step * 1000:.0f} ms a step: {self.total:,} steps fit into {seconds:.0f} s")

    def evaluate(self) -> list[dict[str, Any]]:
        """Held-out scores of each pair, which are logged and told as well."""
        scores = held_out_scores(
            self.student,
            self.held_out.rows,
            self.held_targets,
            self.pairs,
            tokens_per_batch=self.recipe.tokens_per_batch,
        )
        self._log(
            step=self.step,
            **{key: {f"{s['layers']}x{s['dim']}": s[key] for s in scores} for key in ("cosine", "overlap")},
        )
        best = scores[-1]
        note(
            f"step {self.step:,}: held-out cosine {best['cosine']:.4f}, neighbour overlap@10 {best['overlap']:.3f} at"
            f" {best['layers']}x{best['dim']}"
        )
        return scores

    def _log(self, **record: Any) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")

    def _checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            facts = {
                "identity": self.identity,
                "total": self.total,
                "texts": self.texts,
                "seconds": self._spent(),
                "losses": self.losses,
                "scales": self._scales(),
            }
            save_checkpoint(self.folder / "checkpoints", self.step, self.student, self.raw_optimizer, facts)
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def _resume(self) -> None:
        state = load_checkpoint(self.folder / "checkpoints", self.identity, self.student, self.raw_optimizer)
        if state is not None:
            self.step, self.total, self.texts, self.seconds, self.losses = (
                state[key] for key in ("step", "total", "texts", "seconds", "losses")
            )
            for group, scale in zip(self.raw_optimizer.param_groups, state["scales"], strict=True):
                group["scale"] = scale  # measured on the closed-form start, which a resumed run does not make again
            note(f"resumed at step {self.step:,} of {self.total:,}")
        if self.accelerator.is_main_process:
            self._trim_log()

    def _trim_log(self) -> None:
        """Drop what this process will write again, and a line that a crash has cut short."""
        log = self.folder / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        records = [json.loads(line) for line in lines if line.endswith("}")]
        first_evaluation = self.step if self.step in (0, self.total) else self.step + 1
        kept = [r for r in records if r["step"] <= self.step and not ("cosine" in r and r["step"] >= first_evaluation)]
        with atomic_path(log) as partial:
            partial.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")


def freeze(student: EmbeddingModel, train_token_embeddings: bool) -> None:
    """Switch dropout off (the target is deterministic) and fix the token table unless it is trained."""
    student.eval()
    student.requires_grad_(True)
    student.encoder.get_input_embeddings().weight.requires_grad_(train_token_embeddings)
    if not torch.cuda.is_available():
        # On CPUs the backward pass of torch's fused attention takes half of a step; the plain one a tenth.
        student.encoder.set_attn_implementation("eager")


def parameter_groups(student: EmbeddingModel) -> list[dict[str, Any]]:
    """The trained parameters, each projection with the factor by which its learning rate is scaled.

    Adam moves every weight by about the learning rate whatever its size. A closed-form projection onto unit vectors
    is ten times smaller than an ordinary layer's weights (about 1/√hidden), so its rate is scaled by the ratio. The
    gain measured so far is small (docs/log.md).
    """
    encoder = [parameter for parameter in student.encoder.parameters() if parameter.requires_grad]
    heads = [
        (head, float(head.detach().square().mean().sqrt()) * student.hidden**0.5) for head in student.heads.parameters()
    ]
    return [
        {"params": encoder, "scale": 1.0},
        *({"params": [head], "scale": min(1.0, max(scale, 0.01))} for head, scale in heads),
    ]
