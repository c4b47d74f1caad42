"""One resumable loop: batches, steps, checkpoints, a schedule, processes. It knows nothing of embeddings.

What is trained, and by which loss, a subclass says: `Training` distils, healing trains a slice under its rounding.
Whatever ends or changes a run (a loss that is no number, Ctrl-C, the time) is agreed between processes: all of them
stop at the same step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from emb.distill.checkpoint import load_checkpoint, save_checkpoint
from emb.distill.interrupt import deferred_interrupt
from emb.distill.schedule import BatchPlan, learning_rate
from emb.errors import TrainingError
from emb.files import atomic_path
from emb.machine import resolve_dtype
from emb.progress import bar, note
from emb.recipes.recipe import TrainingRecipe
from emb.tokens import Indices

_TIMED_STEPS = 20
_LOG_EVERY = 20


class Loop:
    """A fixed plan of steps over `lengths`, one of each item in tokens; `module` is trained by what `batch_loss` gives.

    `identity` is everything the weights depend on; a checkpoint of another identity is refused. Below `folder` lie
    the log and the checkpoints.
    """

    def __init__(
        self, module: nn.Module, lengths: Sequence[int], recipe: TrainingRecipe, folder: Path, identity: str
    ) -> None:
        torch.manual_seed(recipe.seed)
        precision = "bf16" if resolve_dtype(recipe.precision) is torch.bfloat16 else "no"
        AcceleratorState._reset_state()  # it holds the precision of the first run in this process
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
        self.module, self.recipe, self.folder, self.identity = (
            module.to(self.accelerator.device),
            recipe,
            folder,
            identity,
        )
        self.plan = BatchPlan(lengths, recipe.tokens_per_batch, recipe.seed)
        optimizer = self.optimizer_of(self.parameter_groups())
        self.model, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.raw_optimizer = optimizer
        self.total = self._planned_steps()
        self.step, self.texts, self.seconds = 0, 0, 0.0
        self.losses: list[float] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, each group with the factor by which its learning rate is scaled."""
        return [{"params": [each for each in self.module.parameters() if each.requires_grad], "scale": 1.0}]

    def optimizer_of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """What moves the parameters of `groups`."""
        recipe = self.recipe
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay, fused=True)

    def batch_loss(self, batch: Indices) -> Tensor:
        """The loss of the items of a batch, a scalar to go backward from."""
        raise TypeError(f"{type(self).__name__} says no loss")

    def evaluate(self) -> Sequence[Any]:
        """Scores before the first step, every so many steps and at the end; none unless a subclass has some."""
        return []

    def mend(self) -> str:
        """What helps where training diverges."""
        return "lower the learning rate"

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
        ends, processes = [self.started], self.accelerator.num_processes
        batches = islice(self.plan.batches(self.step * processes + self.accelerator.process_index), 0, None, processes)
        while self.step < self.total:
            batch, rate = next(batches), self._rate()
            self.losses = [*self.losses[1 - _LOG_EVERY :], self._train_step(batch, rate)]
            self.step += 1
            self.texts += len(batch)
            advance(1, f"loss {np.mean(self.losses):.4f}")
            if self.step % _LOG_EVERY == 0:
                self._log(
                    step=self.step, loss=float(np.mean(self.losses)), texts=self.texts, seconds=self.spent, lr=rate
                )
            if self.step <= _TIMED_STEPS and self.recipe.max_time:
                ends.append(time.monotonic())
                if self.step == _TIMED_STEPS:
                    self._fit_into(self.recipe.max_time, float(np.median(np.diff(ends))))
                    advance(0, total=self.total)
            if self.step % self.recipe.evaluate_every == 0 and self.step < self.total:
                self.evaluate()
            stop = interrupted()
            if self._any(stop is not None):
                stop = stop or KeyboardInterrupt()
            if stop or time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds:
                self._checkpoint()
            if stop:
                raise stop
        if self.saved_step < self.step:
            self._checkpoint()  # whatever happens to the student's folder, the training is done

    def _train_step(self, batch: Indices, rate: float) -> float:
        for group in self.raw_optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss = self.batch_loss(batch)
        value = float(loss.detach())
        if self._any(not math.isfinite(value)):
            raise TrainingError(f"the training diverges: the loss is {value} at step {self.step}", self.mend())
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return value

    def _any(self, here: bool) -> bool:
        """Whether it is so in any of the processes: one that stopped alone would leave the others waiting."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.accelerator.gather(torch.tensor([int(here)], device=self.accelerator.device)).max())

    def _planned_steps(self) -> int:
        steps = round(self.recipe.epochs * len(self.plan.epoch(0)) / int(self.accelerator.num_processes))
        steps = max(steps, 1 if self.recipe.epochs else 0)
        return min(steps, self.recipe.max_steps or steps)

    def _rate(self) -> float:
        return learning_rate(self.step, self.total, self.recipe)

    def _scales(self) -> list[float]:
        return [group["scale"] for group in self.raw_optimizer.param_groups]

    @property
    def spent(self) -> float:
        """Seconds of training so far, those before an interruption too."""
        return self.seconds + time.monotonic() - self.started

    def _fit_into(self, seconds: float, per_step: float) -> None:
        # Decided once and kept in the checkpoints: a resumed run must follow the same schedule.
        # Processes measure different times and must still stop at the same step.
        # The median of the steps measured: the first ones of a GPU load its kernels and take hundreds of times as long.
        fitting = torch.tensor([self.step + round((seconds - self.spent) / per_step)], device=self.accelerator.device)
        self.total = max(self.step, min(self.total, int(self.accelerator.gather(fitting).min())))
        note(f"{per_step * 1000:.0f} ms a step: {self.total:,} steps fit into {seconds:.0f} s")

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
                "seconds": self.spent,
                "losses": self.losses,
                "scales": self._scales(),
            }
            save_checkpoint(self.folder / "checkpoints", self.step, self.module, self.raw_optimizer, facts)
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def _resume(self) -> None:
        state = load_checkpoint(self.folder / "checkpoints", self.identity, self.module, self.raw_optimizer)
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
