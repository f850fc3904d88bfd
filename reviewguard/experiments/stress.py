"""The page of a stress test."""

from __future__ import annotations

from reviewguard.evaluation.stress import StressReport
from reviewguard.experiments import charts
from reviewguard.experiments.page import Figure, Page, Section, Table


def stress_page(report: StressReport, command: str) -> Page:
    """A report with a chart, to be saved as HTML and Markdown.

    Args:
        report: What `Classifier.stress` gave.
        command: How it was made.
    """
    clean, worst = report.results[0], report.worst
    head, *rows = report.rows()
    lines = {one.attack: (one.recall_at_clean_rate, one.false_positive_rate) for one in report.results}
    picture = charts.pairs(lines, ("recall at the clean false-positive rate", "false-positive rate at the threshold"))
    short = [f"On clean texts, recall is {clean.recall} at a false-positive rate of {clean.false_positive_rate}."]
    if worst:
        short.append(
            f"The attack that costs most at the same false-positive rate is {worst.attack}: {worst.lost:.1f} points of recall. "
            "Shorter texts hold less evidence and are not counted as an attack."
        )
    return Page(
        title=f"Stress test: {report.name}",
        short=short,
        sections=[
            Section(
                "Under each attack",
                [
                    f"{report.positives} texts of the class {report.positive!r} and {report.negatives} others, all of "
                    "them changed. Rates in percent, with 95 % intervals.",
                    Figure("attacks", "Recall and false-positive rate under each attack.", picture),
                    Table(head, rows),
                ],
            )
        ],
        about=[f"Made by `{command}`."],
    )
