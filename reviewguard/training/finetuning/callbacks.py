"""Callbacks of the training loop: progress bar, metrics log, early stopping, and signals."""

from __future__ import annotations

import json
import math
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import distributed
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reviewguard.errors import TrainingError
from reviewguard.training import signals


class Progress(TrainerCallback):
    """Progress bar over all steps, with the loss and the latest validation F1; only on terminals."""

    _TITLES: ClassVar = {"loss": "loss", "eval_f1": "validation F1"}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar at the first step of this run."""
        hidden = None if state.is_world_process_zero else True
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="fine-tuning", unit=" steps", disable=hidden)
        self._shown: dict[str, str] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Update the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the latest metrics."""
        latest = state.log_history[-1]
        self._shown |= {title: f"{latest[name]:.4f}" for name, title in self._TITLES.items() if name in latest}
        self._bar.set_postfix(self._shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class MetricsLogger(TrainerCallback):
    """Writes each log entry as a line of JSON. After a resume, entries of repeated steps are dropped."""

    def __init__(self, path: Path) -> None:
        """Take the file to write to."""
        self._path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the log of the checkpoint."""
        if state.is_world_process_zero:
            self._path.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the latest entry."""
        if state.is_world_process_zero:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")


class Guard(TrainerCallback):
    """Stops on a non-finite loss, or after epochs without a better validation F1; saves checkpoints within epochs."""

    def __init__(self, patience: int, save_steps: int) -> None:
        """Take the patience in epochs, and the number of steps between checkpoints (0: none), as in `LoopConfig`."""
        self._patience = patience
        self._save_steps = save_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request a checkpoint every `save_steps` steps."""
        if self._save_steps and state.global_step % self._save_steps == 0 and _inside_epoch(state):
            control.should_save = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Raise an error if the loss is not finite."""
        loss = state.log_history[-1].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {state.global_step}; lower loop.learning_rate, raise loop.warmup, or set "
                "loop.precision=fp32"
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop if patience is exhausted."""
        if self.is_exhausted(state):
            control.should_training_stop = True

    def is_exhausted(self, state: TrainerState) -> bool:
        """Whether patience is exhausted, according to the log, which is restored on a resume."""
        scores = [entry["eval_f1"] for entry in state.log_history if "eval_f1" in entry]
        since_best = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return 0 < self._patience <= since_best


class Stop(TrainerCallback):
    """Ends training on Ctrl-C or SIGTERM after writing a checkpoint. A second Ctrl-C ends it immediately.

    Attributes:
        signum: Number of the received signal. 0: no signal.
    """

    def __init__(self) -> None:
        """Start without signal handlers; `listening` installs them."""
        self.signum = 0

    def listening(self) -> AbstractContextManager[None]:
        """Context in which the signals are handled."""
        return signals.handled(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signum and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = number

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop all processes after the same step."""
        if distributed.is_initialized():
            flag = torch.tensor([self.signum], device=args.device)
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            self.signum = int(flag.item())
        if self.signum:
            control.should_training_stop = True
            control.should_save = _inside_epoch(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Do not evaluate an epoch that was interrupted."""
        if self.signum and _inside_epoch(state):
            control.should_evaluate = control.should_save = False


def _inside_epoch(state: TrainerState) -> bool:
    """Whether this epoch has further steps.

    At the end of an epoch, the checkpoint is written after the evaluation; otherwise, a resume would lose the score.
    """
    return bool(state.epoch is not None and state.epoch % 1)
