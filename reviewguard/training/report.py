"""The report of a training run, as text, Markdown and JSON."""

from __future__ import annotations

import msgspec

from reviewguard.data.clean import CleaningReport
from reviewguard.evaluation.report import Report
from reviewguard.training.history import History


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a training run.

    Attributes:
        cleaning: Rows dropped before training.
        rows: Number of rows in each split.
        results: Reports on the held-out splits, by name.
        seconds: Wall time of encoding and fitting, without reading, cleaning, the baseline and the reports.
        peak_memory_mib: Peak resident memory of the process, in MiB. None: the system does not report it.
        model_mib: Size of the weights, encoder and head together, in MiB.
        history: History of the fine-tuning run. None: a head was fitted on frozen embeddings.
    """

    cleaning: CleaningReport
    rows: dict[str, int]
    results: dict[str, Report]
    seconds: float
    peak_memory_mib: float | None
    model_mib: float
    history: History | None = None

    def to_json(self) -> str:
        """Format the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def to_text(self) -> str:
        """Format the report for a terminal."""
        return "\n\n".join([self.cleaning.to_text(), *self._training(), *(report.to_text() for report in self.results.values())])

    def to_markdown(self) -> str:
        """Format the report as Markdown."""
        cleaning = f"```text\n{self.cleaning.to_text()}\n```"
        training = [f"```text\n{part}\n```" for part in self._training()]
        return "\n\n".join([cleaning, *training, *(report.to_markdown() for report in self.results.values())])

    def __str__(self) -> str:
        return self.to_text()

    def _training(self) -> list[str]:
        return [self._cost(), *([self.history.to_text()] if self.history else [])]

    def _cost(self) -> str:
        parts = ", ".join(f"{count} {name}" for name, count in self.rows.items())
        memory = "unknown" if self.peak_memory_mib is None else f"{self.peak_memory_mib:.0f} MiB"
        return f"rows: {parts}; trained in {self.seconds:.1f} s; peak memory {memory}; weights {self.model_mib:.1f} MiB"
