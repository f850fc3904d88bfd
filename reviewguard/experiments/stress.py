"""The report page of a stress test."""

from __future__ import annotations

from reviewguard.evaluation.stress import StressReport
from reviewguard.experiments import charts
from reviewguard.experiments.page import Figure, Page, Section, Table


def stress_page(report: StressReport, command: str) -> Page:
    """Make a report with a chart, to be saved as HTML and Markdown.

    Args:
        report: Result of `Classifier.stress`.
        command: The command that the report names.
    """
    clean, worst = report.results[0], report.worst
    head, *rows = report.rows()
    lines = {one.attack: (one.recall_at_clean_rate, one.false_positive_rate) for one in report.results}
    picture = charts.pairs(lines, ("recall at the clean false positive rate", "false positive rate at the threshold"))
    short = [f"On clean texts, recall is {clean.recall} at a false positive rate of {clean.false_positive_rate}."]
    if worst:
        short.append(
            f"The most damaging attack at the same false positive rate is {worst.attack}: it costs {worst.lost:.1f} points of "
            "recall. Cutting texts is not counted as an attack, since shorter texts hold less evidence."
        )
    return Page(
        title=f"Stress test: {report.name}",
        short=short,
        sections=[
            Section(
                "Results by attack",
                [
                    f"{report.positives} texts of the class {report.positive!r} and {report.negatives} others; each attack "
                    "is applied to all of them. Rates in percent, with 95 % intervals.",
                    Figure("attacks", "Recall and false positive rate by attack.", picture),
                    Table(head, rows),
                ],
            )
        ],
        about=[f"Made by `{command}`."],
    )
