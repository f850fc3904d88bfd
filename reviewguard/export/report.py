"""What an export may change, and what it did."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an export may change at most. Each is a share or a probability, but for `logits` and `texts`.

    Attributes:
        logits: Largest difference of a logit from torch; of the float32 graph only.
        flips: Share of the validation texts that get another label.
        f1: Change of F1 on them, in either direction (macro F1 with three classes or more).
        neighbours: Change of a probability when the other texts of a batch are others.
        texts: Validation texts that int8 is judged on, at least.
    """

    logits: float = 1e-4
    flips: float = 0.001
    f1: float = 0.001
    neighbours: float = 1e-3
    texts: int = 1000


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """A validation text that got another label.

    Attributes:
        row: Counted from 0.
        text: Its beginning.
        torch: Label and probability by torch.
        graph: Label and probability by the graph.
    """

    row: int
    text: str
    torch: tuple[str, float]
    graph: tuple[str, float]

    def to_text(self) -> str:
        """A line for people."""
        return f"row {self.row}: {self.torch[0]} {self.torch[1]:.3f} -> {self.graph[0]} {self.graph[1]:.3f}: {self.text!r}"


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How a graph compares with torch.

    Attributes:
        mib: Size of its files.
        logits: Largest difference of a logit, over batches of several shapes and the validation texts.
        neighbours: Largest change of a probability, of texts alone and in batches with others.
        texts: Validation texts compared.
        flips: Of them, texts that got another label.
        f1: Change of F1; None without validation.
        calibration: Change of the expected calibration error; None without validation.
        flipped: The first few of the flips.
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
    """What an export holds, and how it compares with torch.

    Attributes:
        limits: What was allowed.
        graphs: How each graph compares, by its precision: "fp32", and "int8" if it was asked for.
    """

    limits: Limits
    graphs: dict[str, Fidelity]

    def to_text(self) -> str:
        """Lines for a terminal."""
        lines = []
        for precision, of in self.graphs.items():
            line = f"{precision}: {of.mib:.1f} MiB; largest logit difference from torch {of.logits:.2g}; "
            line += f"a probability moves by {of.neighbours:.1g} at most with the rest of its batch"
            if of.f1 is not None and of.calibration is not None:
                line += f"; of {of.texts} validation texts {of.flips} get another label, F1 changes by {100 * of.f1:+.2f} points "
                line += f"and the calibration error by {100 * of.calibration:+.2f}"
            lines.append(line)
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """A section for the model card."""
        head = "| graph | MiB | largest logit difference | moved by neighbours | labels changed | F1 | calibration error |"
        rows = [head, "| --- " * 7 + "|"]
        for precision, of in self.graphs.items():
            changed = f"{of.flips} of {of.texts}" if of.texts else "not judged"
            f1, calibration = (f"{100 * value:+.2f}" if value is not None else "" for value in (of.f1, of.calibration))
            rows.append(
                f"| {precision} | {of.mib:.1f} | {of.logits:.2g} | {of.neighbours:.1g} | {changed} | {f1} | {calibration} |"
            )
        about = "Against the model in torch. F1 and expected calibration error: changes in points, on validation texts."
        return "\n".join(["## Export", "", about, "", *rows]) + "\n"
