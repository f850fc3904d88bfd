"""Commands that run experiments."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import call
from pages import assert_whole

from reviewguard.experiments.audit import CONTROL
from reviewguard.experiments.results import RESULTS, read_results


def _settings(settings: dict[str, object]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


def test_compare_stops_on_a_signal_and_resumes(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = list(map(str, ("compare", sample, "--presets", "tfidf", "--out", out, "--seeds", "1", "--max-fpr", "0.1")))
    command = [sys.executable, "-m", "reviewguard", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (out / RESULTS).exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.terminate()
        printed, message = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, message
    assert (printed, message.count("error: ")) == ("", 1)
    assert "error: stopped by a signal; finished runs are kept, and the same call resumes" in message
    assert "Traceback" not in message
    assert [item.job.name for item in read_results(out)] == ["tfidf"]
    stamps = {path: path.stat().st_mtime_ns for path in (out / "scores").iterdir()}
    assert len(stamps) == 1

    assert call(*arguments) == 0
    assert [(item.job.name, item.outcome, item.error) for item in read_results(out)] == [
        ("tfidf", "done", ""),
        (CONTROL, "done", ""),
    ]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "finished runs are not repeated"
    printed = capsys.readouterr().out
    assert printed.startswith("Most accurate: tfidf, ")
    assert printed.endswith(f"report: {out / 'report.html'}\n")
    assert f"Made by: {shlex.join(['reviewguard', *arguments])}" in assert_whole(out).text


@pytest.mark.usefixtures("no_processes")
def test_ablate(sample: Path, tiny_settings: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vary = ["--vary", "C=1,5", "--vary", "data.normalization=none"]
    settings = _settings(tiny_settings)
    assert call("ablate", sample, "-p", "minilm-logreg", *vary, "-o", tmp_path, "--seeds", "1, 2", *settings) == 0
    assert "minilm-logreg: accuracy " in capsys.readouterr().out
    result = [(item.job.name, item.job.recipe.get("seed")) for item in read_results(tmp_path) if item.job.name != CONTROL]
    names = ["minilm-logreg", "minilm-logreg+C=5", "minilm-logreg+data.normalization=none"]
    assert result == [(name, seed) for name in names for seed in (1, 2)]
    assert_whole(tmp_path)


@pytest.mark.usefixtures("no_processes")
def test_transfer(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = sample.read_text(encoding="utf-8").splitlines()
    for name, lines in (("one", rows[:160]), ("two", rows[160:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    assert call("transfer", tmp_path / "one.csv", tmp_path / "two.csv", "--presets", "tfidf", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "tfidf, trained on one source: recall on another source is " in printed
    result = [(item.job.name, item.job.trained_on, item.job.max_fpr) for item in read_results(out)]
    assert result == [*(("tfidf", arm, 0.02) for arm in ("one", "two", "all")), (CONTROL, "all", 0.02)]
    assert_whole(out)


@pytest.mark.usefixtures("no_processes")
def test_presets_and_settings_are_read_from_lists(
    sample: Path, tiny_settings: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    presets = ["--presets", "minilm-logreg+C=5,tfidf", "-p", "minilm-logreg"]
    assert call("compare", sample, *presets, "--out", tmp_path, "--seeds", "7", *_settings(tiny_settings)) == 0
    names = [item.job.name for item in read_results(tmp_path)]
    assert names == ["minilm-logreg+C=5", "tfidf", "minilm-logreg", CONTROL]
    assert "report: " in capsys.readouterr().out


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1,two"], "seeds must be comma-separated whole numbers, such as 42,43,44; got '1,two'"),
        (["--seeds", "1.5"], "seeds must be comma-separated whole numbers"),
        (["--seeds", ""], "seed"),
        (["-p", "minilm-logreg", "--seeds=-1"], "seed"),
        (["--presets", "minilm-logrek"], "no preset is called 'minilm-logrek'"),
        (["--set", "data.labl=x"], "data.labl is not an option"),
        (["--set", "data.label=stars"], "has no column 'stars'"),
        (["--max-fpr", "2"], "max_fpr"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call("compare", sample, "--presets", "tfidf", "--out", out, *arguments) == 1
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize("command", ["compare", "ablate", "transfer"])
def test_an_existing_file_gives_a_one_line_error(
    command: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "taken"
    out.write_text("mine")
    more = ["--by", "category"] if command == "transfer" else []
    assert call(command, sample, "-p", "tfidf", "--out", out, *more) == 1
    assert "taken" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("command", ["compare", "ablate", "transfer"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert "--max-fpr" in capsys.readouterr().out
