"""What happens around the steps of the training loop: progress, a journal, early stopping, and signals."""

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
    """A bar over all steps, with the loss and the last validation F1; on terminals only."""

    _TITLES: ClassVar = {"loss": "loss", "eval_f1": "validation F1"}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar where the run begins."""
        hidden = None if state.is_world_process_zero else True
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="fine-tuning", unit=" steps", disable=hidden)
        self._shown: dict[str, str] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move it."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the newest figures."""
        newest = state.log_history[-1]
        self._shown |= {title: f"{newest[name]:.4f}" for name, title in self._TITLES.items() if name in newest}
        self._bar.set_postfix(self._shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close it."""
        self._bar.close()


class Journal(TrainerCallback):
    """Every logged figure as a line of JSON; after a resume, those of the steps that count."""

    def __init__(self, path: Path) -> None:
        """Write to this file."""
        self._path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start from the log that the checkpoint brought."""
        if state.is_world_process_zero:
            self._path.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the newest entry."""
        if state.is_world_process_zero:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")


class Guard(TrainerCallback):
    """Stop on a loss that is no number, and after epochs without a better validation F1; save between epochs."""

    def __init__(self, patience: int, save_steps: int) -> None:
        """See `reviewguard.config.LoopConfig`."""
        self._patience = patience
        self._save_steps = save_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint every so often."""
        if self._save_steps and state.global_step % self._save_steps == 0 and _inside_epoch(state):
            control.should_save = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the loss."""
        loss = state.log_history[-1].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {state.global_step}; lower loop.learning_rate, raise loop.warmup, or set "
                "loop.precision=fp32"
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop when the epochs since the best one are too many."""
        if self.is_exhausted(state):
            control.should_training_stop = True

    def is_exhausted(self, state: TrainerState) -> bool:
        """Whether patience is at its end, counted from the log, which survives a resume."""
        scores = [entry["eval_f1"] for entry in state.log_history if "eval_f1" in entry]
        since_best = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return 0 < self._patience <= since_best


class Stop(TrainerCallback):
    """Turn Ctrl-C and SIGTERM into a checkpoint and an orderly end; a second Ctrl-C ends at once.

    Attributes:
        signum: The signal that came; 0: none.
    """

    def __init__(self) -> None:
        """Listen for nothing yet; see `listening`."""
        self.signum = 0

    def listening(self) -> AbstractContextManager[None]:
        """Take the signals over for a while."""
        return signals.handled(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signum and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = number

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End after this step, in every process after the same one."""
        if distributed.is_initialized():
            flag = torch.tensor([self.signum], device=args.device)
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            self.signum = int(flag.item())
        if self.signum:
            control.should_training_stop = True
            control.should_save = _inside_epoch(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch that was cut short is not judged."""
        if self.signum and _inside_epoch(state):
            control.should_evaluate = control.should_save = False


def _inside_epoch(state: TrainerState) -> bool:
    """Whether steps of this epoch are still to come.

    The checkpoint at its end is written once it is judged: one written before would lose that on a resume.
    """
    return bool(state.epoch is not None and state.epoch % 1)
