import json
import sys

import msgspec
import numpy as np
import pytest

from reviewguard.data.clean import CleaningReport, Conflict, Step
from reviewguard.evaluation.metrics import measure
from reviewguard.evaluation.report import Report, make_report
from reviewguard.models.device import peak_memory_mib
from reviewguard.training.report import TrainingReport

BETTER = "The TF-IDF baseline has a higher F1 than this model on these rows."
CLASSES = {2: ["fake", "re|al"], 3: ["fake", "re|al", "unsure"]}


def _report(classes: int = 2, model: float = 0.8, baseline: float | None = 0.6, truncated: int = 3) -> Report:
    """A report on 120 rows with these accuracies of model and baseline."""
    names = CLASSES[classes]
    y = np.arange(120) % classes

    def scores(right: float) -> np.ndarray:
        rng = np.random.default_rng(round(1000 * right))
        wrong = rng.permutation(120) >= round(120 * right)
        return np.eye(classes)[(y + wrong) % classes] * 0.5 + rng.random((120, classes)) * 0.3

    return make_report(
        "held out",
        [names[i] for i in y],
        scores(model),
        None if baseline is None else scores(baseline),
        classes=names,
        positive="fake" if classes == 2 else None,
        truncated=truncated,
    )


def _cells(text: str) -> list[list[str]]:
    """Rows of the Markdown tables, without separators."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    return [[cell.replace("\0", "|") for cell in row] for row in rows if set(row) != {"---"}]


def _number(value: float) -> str:
    return f"{value:.4f}"


def _estimate(plain: dict[str, float | None]) -> str:
    value, low, high = plain["value"], plain["low"], plain["high"]
    return "undefined" if value is None else f"{_number(value)} [{_number(low)}, {_number(high)}]"


@pytest.mark.parametrize("baseline", [0.6, None])
@pytest.mark.parametrize("classes", [2, 3])
def test_all_formats_contain_the_same_figures(classes, baseline):
    report = _report(classes, baseline=baseline)
    plain = json.loads(report.to_json())
    sources = [plain[key] for key in ("model", "baseline") if plain[key]]
    assert len(sources) == (1 if baseline is None else 2)
    expected = [["metric, with 95 % interval", "model", "TF-IDF baseline"][: 1 + len(sources)]]
    expected += [[name, *(_estimate(own["metrics"][name]) for own in sources)] for name in plain["model"]["metrics"]]
    expected.append(["class", "precision", "recall", "f1", "rows", *(f"predicted {name}" for name in CLASSES[classes])])
    for name, row in zip(CLASSES[classes], plain["model"]["confusion"], strict=True):
        own = plain["model"]["per_class"][name]
        expected.append([name, *(_number(own[key]) for key in ("precision", "recall", "f1")), str(own["rows"]), *map(str, row)])
    assert _cells(report.to_markdown()) == expected
    text = report.to_text()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for row in expected:
        assert " ".join(row) in lines
    assert str(report) == text
    assert msgspec.json.decode(report.to_json(), type=Report) == report


def test_tables_are_aligned():
    rows = _report().to_text().splitlines()[2:]
    metrics = rows[: rows.index("")]
    assert len({line.index("[") for line in metrics[1:]}) == 1


@pytest.mark.parametrize(("classes", "about"), [(2, "metrics of the class 'fake'"), (3, "macro-averaged metrics")])
@pytest.mark.parametrize(("truncated", "note"), [(0, ""), (3, "; 3 texts were longer than the model reads")])
def test_heading(classes, about, truncated, note):
    report = _report(classes, truncated=truncated)
    heading = f"held out: 120 rows, {about}{note}"
    assert report.to_text().splitlines()[0] == heading
    assert report.to_markdown().splitlines()[0] == f"### {heading}"


def test_scores_are_measured():
    report = _report()
    y = np.arange(120) % 2
    assert report.rows == 120
    assert sum(report.model.confusion[i][i] for i in range(2)) == 96
    assert sum(report.baseline.confusion[i][i] for i in range(2)) == 72
    perfect = make_report("p", ["a", "b"] * 60, np.eye(2)[y], np.eye(2)[1 - y], classes=["a", "b"], positive="b", truncated=0)
    assert perfect.model == measure(y, np.eye(2)[y], ["a", "b"], "b")
    assert perfect.baseline.metrics["f1"].value == 0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("model", "baseline", "is_named"),
    [(0.8, 0.6, False), (0.6, 0.8, True), (0.7, 0.7, False), (0.7, 0.75, True), (0.0, None, False)],
)
def test_the_report_names_a_better_baseline(classes, model, baseline, is_named):
    report = _report(classes, model, baseline)
    if baseline is not None:
        assert (report.baseline.metrics["f1"].value > report.model.metrics["f1"].value) is is_named
    for text in (report.to_text(), report.to_markdown()):
        assert text.count(BETTER) == is_named
        assert not is_named or text.endswith(BETTER)


def test_undefined_areas_are_reported_as_undefined():
    report = make_report("one", ["a"] * 9, np.eye(2)[[0] * 8 + [1]], None, classes=["a", "b"], positive="b", truncated=0)
    assert _cells(report.to_markdown())[7:9] == [["roc_auc", "undefined"], ["pr_auc", "undefined"]]
    assert json.loads(report.to_json())["model"]["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}


def _training(text: str = "It's fine", memory: float | None = 512.4) -> TrainingReport:
    cleaning = CleaningReport(
        rows_in=10, rows_out=7, steps=[Step("repeated texts", 3)], conflicts=[Conflict(text, ["fake", "real"])]
    )
    return TrainingReport(
        cleaning=cleaning,
        rows={"train": 7, "test": 120},
        results={"validation": _report(3), "test": _report()},
        seconds=1.25,
        peak_memory_mib=memory,
        model_mib=86.6,
    )


@pytest.mark.parametrize(("memory", "shown"), [(512.4, "512 MiB"), (None, "unknown")])
def test_training_report(memory, shown):
    report = _training(memory=memory)
    cost = f"rows: 7 train, 120 test; trained in 1.2 s; peak memory {shown}; weights 86.6 MiB"
    text, markdown = report.to_text(), report.to_markdown()
    for form in (text, markdown):
        assert cost in form.splitlines()
        assert report.cleaning.to_text() in form
    for result in report.results.values():
        assert result.to_text() in text
        assert result.to_markdown() in markdown
    assert str(report) == text
    assert msgspec.json.decode(report.to_json(), type=TrainingReport) == report
    assert msgspec.convert(msgspec.to_builtins(report), TrainingReport) == report  # as stored in a manifest


@pytest.mark.parametrize("text", ["```\n# not a heading", "a|b"])
def test_any_conflicting_text_can_be_reported(text):
    report = _training(text)
    assert "\n# not a heading" not in report.to_markdown()
    assert json.loads(report.to_json())["cleaning"]["conflicts"][0]["labels"] == ["fake", "real"]


def test_peak_memory():
    resource = pytest.importorskip("resource")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, kilobytes elsewhere
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found = peak_memory_mib()
    assert before <= found <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    assert 10 < found < 1e6
