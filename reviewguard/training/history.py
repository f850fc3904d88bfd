"""What a fine-tuning run did, as plain data for reports."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Rung: TypeAlias = Literal["full state", "weights and schedule", "weights only", "from the start"]


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run went on after an interruption.

    Attributes:
        step: Optimizer step that it went on from.
        rung: How much of the state could be restored.
        lost: What could not be, and why; empty where the run goes on as if it had never stopped.
        learning_rate: Rates before and after, where settings changed it: more epochs stretch the schedule.
    """

    step: int
    rung: Rung
    lost: list[str]
    learning_rate: tuple[float, float] | None = None

    def to_text(self) -> str:
        """One line for people."""
        text = f"resumed at step {self.step}: {self.rung}"
        if self.learning_rate is not None:
            text += f"; learning rate {self.learning_rate[0]:.3g} -> {self.learning_rate[1]:.3g}, as settings now have it"
        return text + "".join(f"; lost: {what}" for what in self.lost)


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the rows.

    Attributes:
        epoch: Its number, from 1.
        step: Optimizer steps at its end.
        loss: Mean training loss.
        learning_rate: At its end.
        f1: Macro F1 on validation; None without validation rows.
        accuracy: The same.
    """

    epoch: int
    step: int
    loss: float | None
    learning_rate: float | None
    f1: float | None = None
    accuracy: float | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuning run.

    Attributes:
        trainable: Parameters trained.
        parameters: Parameters in all.
        epochs: What each pass gave.
        kept: Step whose weights the model has: the best epoch's by validation F1, else the last.
        resumed: Each time that the run went on from a checkpoint.
        memory: The plan made before training, and what it came to on a GPU.
        precision: "bf16" or "fp32".
        device: Type of the device.
        processes: Processes that trained together.
        run_dir: Folder of checkpoints and metrics; empty: none.
        checkpoints_mib: Size of the checkpoints in it.
        averaged: Runs whose weights the model averages, of which this is the last.
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
        """Lines for a terminal."""
        lines = [f"the average of {self.averaged} runs, of which this is the last:"] if self.averaged > 1 else []
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
                f"checkpoints: {self.checkpoints_mib:.1f} MiB in {self.run_dir}, from which train(epochs=more, resume=True) "
                "continues; delete the folder if you need none, or set loop.checkpoints=none"
            )
        return "\n".join(lines)
