"""The history of a fine-tuning run, as plain data for reports."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Restored: TypeAlias = Literal["full state", "weights and schedule", "weights only", "from the start"]


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """A resumption after an interruption.

    Attributes:
        step: Optimizer step that the run resumed from.
        restored: How much of the state was restored.
        lost: What was not restored, and why. Empty: the run continues as if it had not been interrupted.
        learning_rate: Learning rates before and after, if the settings changed it: more epochs stretch the schedule. None: the
            learning rate is unchanged.
    """

    step: int
    restored: Restored
    lost: list[str]
    learning_rate: tuple[float, float] | None = None

    def to_text(self) -> str:
        """Format the resumption as one line."""
        text = f"resumed at step {self.step}: {self.restored}"
        if self.learning_rate is not None:
            text += f"; learning rate {self.learning_rate[0]:.3g} -> {self.learning_rate[1]:.3g} (the settings changed)"
        return text + "".join(f"; lost: {what}" for what in self.lost)


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training rows.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Optimizer steps completed at its end.
        loss: Mean training loss.
        learning_rate: Learning rate at its end.
        f1: Macro F1 on validation rows. None: no validation rows.
        accuracy: Accuracy on validation rows. None: no validation rows.
    """

    epoch: int
    step: int
    loss: float | None
    learning_rate: float | None
    f1: float | None = None
    accuracy: float | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """History of a fine-tuning run.

    Attributes:
        trainable: Number of trained parameters.
        parameters: Total number of parameters.
        epochs: The result of each epoch.
        kept: Step whose weights the model has: that of the epoch with the best validation F1, or the last step.
        resumed: Resumptions from a checkpoint.
        memory: The estimate before training, and on a GPU the measured peak.
        precision: "bf16" or "fp32".
        device: Device type, such as "cuda".
        processes: Number of training processes.
        run_dir: Folder of checkpoints and metrics. Empty: no folder.
        checkpoints_mib: Size of the checkpoints in this folder, in MiB.
        averaged: Number of runs whose weights the model averages; this history is that of the last one.
    """

    trainable: int
    parameters: int
    epochs: list[Epoch]
    kept: int
    resumed: list[Resumption]
    memory: str
    precision: str
    device: str
    processes: int
    run_dir: str
    checkpoints_mib: float = 0.0
    averaged: int = 1

    def to_text(self) -> str:
        """Format the history for a terminal."""
        lines = [f"average of {self.averaged} runs; this is the last one:"] if self.averaged > 1 else []
        lines += [
            f"fine-tuned {self.trainable:,} of {self.parameters:,} parameters in {self.precision} on {self.device}"
            + (f" x {self.processes}" if self.processes > 1 else ""),
            f"memory: {self.memory}",
        ]
        for epoch in self.epochs:
            scores = "" if epoch.f1 is None else f"; validation macro F1 {epoch.f1:.4f}, accuracy {epoch.accuracy:.4f}"
            loss = "" if epoch.loss is None else f"; loss {epoch.loss:.4f}"
            kept = " (kept)" if epoch.step == self.kept else ""
            lines.append(f"epoch {epoch.epoch}, step {epoch.step}{loss}{scores}{kept}")
        lines += [resumption.to_text() for resumption in self.resumed]
        if self.checkpoints_mib and self.run_dir:
            lines.append(
                f"checkpoints: {self.checkpoints_mib:.1f} MiB in {self.run_dir}; to train longer, call "
                "train(epochs=more, resume=True). If you do not need them, delete the folder, or set loop.checkpoints=none"
            )
        return "\n".join(lines)
