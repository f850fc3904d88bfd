"""Limits of an export, and how the export compares with torch."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum differences between an export and torch. All are shares or probabilities, except `logits` and `texts`.

    Attributes:
        logits: Largest difference of a logit from torch; float32 graph only.
        flips: Share of the validation texts whose label changes.
        f1: Absolute change of F1 on the validation texts (macro F1 with three or more classes).
        neighbours: Change of a probability when the other texts of a batch change.
        texts: Minimum number of validation texts for int8.
    """

    logits: float = 1e-4
    flips: float = 0.001
    f1: float = 0.001
    neighbours: float = 1e-3
    texts: int = 1000


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """A validation text whose label changed.

    Attributes:
        row: Row number, from 0.
        text: Beginning of the text.
        torch: Label and probability with torch.
        graph: Label and probability with the graph.
    """

    row: int
    text: str
    torch: tuple[str, float]
    graph: tuple[str, float]

    def to_text(self) -> str:
        """Format as one line."""
        return f"row {self.row}: {self.torch[0]} {self.torch[1]:.3f} -> {self.graph[0]} {self.graph[1]:.3f}: {self.text!r}"


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How a graph compares with torch.

    Attributes:
        mib: Size of its files in MiB.
        logits: Largest difference of a logit, over batches of several shapes and the validation texts.
        neighbours: Largest change of a probability between a text alone and in batches with others.
        texts: Number of validation texts compared.
        flips: Number of validation texts whose label changed.
        f1: Change of F1. None: no validation texts.
        calibration: Change of the expected calibration error. None: no validation texts.
        flipped: The first few changed texts.
    """

    mib: float
    logits: float
    neighbours: float
    texts: int
    flips: int
    f1: float | None
    calibration: float | None
    flipped: list[Flip]


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """Graphs of an export, and how they compare with torch.

    Attributes:
        limits: Maximum differences.
        graphs: Comparison of each graph, by precision: "fp32", and "int8" if requested.
    """

    limits: Limits
    graphs: dict[str, Fidelity]

    def to_text(self) -> str:
        """Format for a terminal."""
        lines = []
        for precision, of in self.graphs.items():
            line = f"{precision}: {of.mib:.1f} MiB; largest logit difference from torch {of.logits:.2g}; "
            line += f"a probability changes by at most {of.neighbours:.1g} with the rest of its batch"
            if of.f1 is not None and of.calibration is not None:
                line += (
                    f"; {of.flips} of {of.texts} validation texts change their label, F1 changes by {100 * of.f1:+.2f} points "
                )
                line += f"and the calibration error by {100 * of.calibration:+.2f}"
            lines.append(line)
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Format as a section of the model card."""
        head = "| graph | MiB | largest logit difference | largest change by batch | labels changed | F1 | calibration error |"
        rows = [head, "| --- " * 7 + "|"]
        for precision, of in self.graphs.items():
            changed = f"{of.flips} of {of.texts}" if of.texts else "not measured"
            f1, calibration = (f"{100 * value:+.2f}" if value is not None else "" for value in (of.f1, of.calibration))
            rows.append(
                f"| {precision} | {of.mib:.1f} | {of.logits:.2g} | {of.neighbours:.1g} | {changed} | {f1} | {calibration} |"
            )
        about = "Compared with the model in torch. F1 and expected calibration error: changes in points on the validation texts."
        return "\n".join(["## Export", "", about, "", *rows]) + "\n"
