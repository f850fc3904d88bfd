"""Reports of A/B tests from logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call
from pages import tables

from reviewguard.errors import DataError
from reviewguard.experiments.ab import ab, arms_of, differences
from reviewguard.inference.decision_log import DecisionLog, Entry, hashed, read


def write_log(
    folder: Path, accuracy: tuple[float, float], *, shadow: bool, share: float = 0.3, texts: int = 3000, positives: float = 0.4
) -> dict[str, str]:
    """A log of models with these accuracies, written by two processes; returns the true labels by key."""
    rng, truth = np.random.default_rng(0), {}
    logs = [DecisionLog(folder / str(number), with_texts=shadow) for number in range(2)]
    for number in range(texts):
        key, is_fake = f"review {number}", rng.random() < positives
        truth[key] = "fake" if is_fake else "real"
        challenger_answers = rng.random() < share
        for arm, rate in zip(("champion", "challenger"), accuracy, strict=True):
            right = rng.random() < rate
            if not shadow and (arm == "challenger") != challenger_answers:
                continue
            label = truth[key] if right else ("real" if is_fake else "fake")
            score = 0.9 if label == "fake" else 0.1
            entry = Entry(
                time=float(number),
                key=hashed(key),
                arm=arm,
                model=arm,
                label=label,
                decision=label,
                scores={"fake": score, "real": 1 - score},
                seconds=0.01,
                share=0.0 if shadow else share,
                shadow=shadow,
                text=f"text {number}",
            )
            logs[number % 2].write(entry)
    for number, log in enumerate(logs):
        log.close()
        for path in (folder / str(number)).iterdir():
            path.rename(folder / f"{number}.jsonl")
    return truth


def write_labels(path: Path, truth: dict[str, str]) -> Path:
    path.write_text("key,label\n" + "".join(f"{key},{label}\n" for key, label in truth.items()))
    return path


@pytest.mark.parametrize("shadow", [False, True])
def test_a_better_challenger_is_found(shadow: bool, tmp_path: Path) -> None:
    truth = write_log(tmp_path / "log", (0.8, 0.95), shadow=shadow)
    hashes = {hashed(key): label for key, label in truth.items()}
    found = differences(arms_of(read(tmp_path / "log"), "log"), "fake", hashes)
    assert found.keys() == {"share classified as fake", "accuracy", "recall", "false positive rate", "F1"}
    for name, expected in (("accuracy", 0.15), ("recall", 0.15), ("false positive rate", -0.15)):
        one = found[name]
        assert one.is_significant
        assert one.value == pytest.approx(expected, abs=0.06)
    positives = sum(label == "fake" for label in truth.values())
    if shadow:
        assert (found["recall"].n, found["accuracy"].n) == (positives, 3000)
    # F1 of a model of accuracy a with 40 % positives: precision 0.4 a / (0.4 a + 0.6 (1 - a)), recall a.
    f1 = [2 * 0.4 * a / (0.4 + 0.4 * a + 0.6 * (1 - a)) for a in (0.8, 0.95)]
    assert found["F1"].value == pytest.approx(f1[1] - f1[0], abs=0.06)
    assert found["F1"].is_significant


def test_equal_models_do_not_differ(tmp_path: Path) -> None:
    truth = write_log(tmp_path / "log", (0.9, 0.9), shadow=False)
    found = differences(arms_of(read(tmp_path / "log"), "log"), "fake", {hashed(key): label for key, label in truth.items()})
    assert not any(one.is_significant for one in found.values())


def test_the_report_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_log(tmp_path / "log", (0.8, 0.95), shadow=True, texts=800)
    labels = write_labels(tmp_path / "labels.csv", dict(list(truth.items())[:700]))
    assert call("ab", tmp_path / "log", labels, "--out", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert (
        "Both models predicted every text (shadow). Compared: 800 decisions of the champion and 800 of the challenger." in printed
    )
    assert "Accuracy differs: +1" in printed
    text = (tmp_path / "report" / "report.md").read_text()
    rows, decisions, disagreements = tables(text)
    assert [row[0] for row in rows[1:]] == ["share classified as fake", "accuracy", "recall", "false positive rate", "F1"]
    assert [row[3] for row in rows[1:]][:2] == ["800", "700"]
    assert [row[0] for row in decisions[1:]] == ["champion", "challenger"]
    assert len(disagreements) == 21
    assert all(
        abs(float(row[0]) - float(row[1])) == pytest.approx(0.8) and row[2].startswith("text ") for row in disagreements[1:]
    )
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "report" / "report-differences.svg").exists()


def test_without_labels_only_decisions_are_compared(tmp_path: Path) -> None:
    write_log(tmp_path / "log", (0.8, 0.95), shadow=False, texts=300)
    page = ab(tmp_path / "log")
    assert page.short[-1] == "No labels were given, so nothing is said about which model is right."
    assert len(page.short) == 3


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_log(tmp_path / "log", (0.9, 0.9), shadow=True, texts=200)
    log = DecisionLog(tmp_path / "log", with_texts=False)
    entries = read(tmp_path / "log")
    last = entries[-1]
    for change in (
        {"time": -1.0, "model": "older"},
        {"time": 1e6},
        {"time": 1e6, "key": "empty", "label": None},
        {"time": 1e6, "key": "alone"},
    ):
        values = {name: getattr(last, name) for name in last.__struct_fields__}
        log.write(Entry(**{**values, "text": None, **change}))
    arms = arms_of(read(tmp_path / "log"), "log")
    assert arms.left_out == {
        "by earlier models": 1,
        "of empty texts": 1,
        "of keys that came again": 1,
        "that the shadow missed": 1,
    }
    assert len(arms.champion) == len(arms.challenger) == 200


def test_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no decisions of two models; serve with --challenger and --log"):
        ab(tmp_path)
    write_log(tmp_path / "log", (0.9, 0.9), shadow=True, texts=200)
    with pytest.raises(DataError, match="'faked' is not a class of the log; did you mean 'fake'"):
        ab(tmp_path / "log", positive="faked")
    with pytest.raises(DataError, match="has the label 'genuine', which is not a class"):
        ab(tmp_path / "log", write_labels(tmp_path / "labels.csv", {"review 1": "genuine"}))
    (tmp_path / "other.csv").write_text("id,label\n1,fake\n")
    with pytest.raises(DataError, match="has no column 'key'"):
        ab(tmp_path / "log", tmp_path / "other.csv")
    write_log(tmp_path / "log" / "more", (0.9, 0.9), shadow=False, texts=10)
    for path in (tmp_path / "log" / "more").glob("*.jsonl"):
        path.rename(tmp_path / "log" / f"split-{path.name}")
    with pytest.raises(DataError, match="of a split and of a shadow"):
        ab(tmp_path / "log")
