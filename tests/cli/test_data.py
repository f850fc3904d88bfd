"""The command line, end to end; training, export and the version run in separate processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import captured


def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "reviewguard", *map(str, arguments)], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, sample: Path) -> Path:
    """A folder with `model`, trained by a command, and its `export`."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "tiny.toml"
    recipe.write_text(f'backend = "logreg"\n[encoder]\nrepo = "{tiny_encoder}"\nmax_length = 32\n')
    done = run("train", sample, "--preset", recipe, "--out", folder / "model", "--set", "C=2", "--set", "data.min_tokens=3")
    assert "cleaning: 320 rows read" in done.stdout
    assert "TF-IDF baseline" in done.stdout
    assert "saved to" in done.stderr
    run("export", folder / "model", "--out", folder / "export")
    return folder


def test_settings_reach_the_model(folder: Path) -> None:
    recipe = json.loads((folder / "model" / "reviewguard.json").read_text())["recipe"]
    assert recipe["C"] == 2
    assert recipe["data"]["min_tokens"] == 3


def test_train_prints_its_report_as_json(folder: Path, sample: Path) -> None:
    done = captured(
        "train", sample, "--preset", folder / "tiny.toml", "--out", folder / "again", "--json", "--validation", sample
    )
    report = json.loads(done.stdout)
    assert report["rows"] == {"train": 320, "validation": 320}
    assert 0 <= report["results"]["validation"]["model"]["metrics"]["f1"]["value"] <= 1


def test_evaluate(folder: Path, sample: Path) -> None:
    assert "roc_auc" in captured("evaluate", sample, "--model", folder / "export").stdout
    report = json.loads(captured("evaluate", sample, "--model", folder / "model", "--json").stdout)
    assert report["rows"] == 320
    assert report["baseline"] is not None


def test_predict(folder: Path, sample: Path, tmp_path: Path) -> None:
    done = captured("predict", sample, "--model", folder / "export", "--out", tmp_path / "out.csv", "--json")
    assert json.loads(done.stdout)["rows"] == 320
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted_label"] for row in rows} <= {"fake", "real"}
    plain = captured("predict", sample, "--model", folder / "export")
    assert plain.stdout == (tmp_path / "out.csv").read_text()
    lines = captured("predict", sample, "--model", folder / "export", "--json").stdout.splitlines()
    assert json.loads(lines[0])["predicted_label"] == rows[0]["predicted_label"]


def test_decide(folder: Path, sample: Path, tmp_path: Path) -> None:
    done = captured("decide", folder / "export", "--out", tmp_path / "own", "--max-fpr", "0.01", "--error-rate", "0.2", "--json")
    assert "warning: 16 rows that are not fake cannot support a false positive rate of 1 %: at least 99" in done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {"operating_point", "abstention"}
    assert result["operating_point"]["negatives"] == result["abstention"]["rows"][1] == 16
    captured("predict", sample, "--model", tmp_path / "own", "--out", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        assert {"needs_review"} < {row["decision"] for row in csv.DictReader(file)} <= {"fake", "real", "needs_review"}
    text = captured("decide", folder / "model", "--out", tmp_path / "new", "--data", sample, "--calibrate").stdout
    assert "temperature" in text
    assert "from 320 rows" in text
    done = captured("decide", "--out", tmp_path / "box", "--data", sample, "--max-fpr", "0.1")
    assert "The built-in model flags English reviews" in done.stderr
    assert (tmp_path / "box" / "onnx" / "model_quantized.onnx").exists()
    done = captured("decide", folder / "model", "--out", tmp_path / "none", check=False)
    assert done.returncode == 1
    assert "pass at least one of --windows, --calibrate, --max-fpr, --error-rate, --review-rate" in done.stderr
    assert not (tmp_path / "none").exists()


def test_adapt(folder: Path, sample: Path, tmp_path: Path) -> None:
    command = ["adapt", sample, "--model", folder / "export", "--out", tmp_path / "new"]
    done = captured(*command, check=False)
    assert "contains no reference texts" in done.stderr
    assert not (tmp_path / "new").exists()
    result = json.loads(captured(*command, "--references", sample, "--json").stdout)
    assert (result["positives"], result["negatives"], result["references"]) == (160, 160, 160)
    assert (tmp_path / "new" / "adaptation.safetensors").exists()


def test_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout.strip() == version("reviewguard")


def test_an_existing_folder_is_refused_before_training(folder: Path, sample: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = captured("train", sample, "--preset", folder / "tiny.toml", "--out", tmp_path, check=False)
    assert done.returncode == 1
    assert "was not changed" in done.stderr
    assert not done.stdout, "nothing was trained"


def test_presets() -> None:
    named = json.loads(captured("presets", "--json").stdout)
    assert set(named) >= {f"{family}-{head}" for family in ("minilm", "stella") for head in ("logreg", "svm", "mlp")}
    assert "stella-svm" in captured("presets").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "DATA", "--preset", "minilm-logrg", "--out", "x"], "did you mean 'minilm-logreg'"),
        (["train", "DATA", "--preset", "minilm-logreg", "--out", "x", "--set", "C"], "an override must be KEY=VALUE"),
        (["train", "DATA", "--preset", "minilm-logreg", "--out", "x", "--set", "D=1"], "D is not an option"),
        (["train", "DATA", "--preset", "minilm-logreg", "--out", "x", "--set", "data.text=body"], "has no column 'body'"),
        (["train", "nowhere.csv", "--preset", "minilm-logreg", "--out", "x"], "cannot read nowhere.csv"),
        (["predict", "DATA", "--model", "nowhere"], "there is no folder"),
        (["export", "nowhere", "--out", "x"], "there is no folder"),
    ],
)
def test_errors_are_printed_on_one_line(arguments: list[str], message: str, sample: Path, tmp_path: Path) -> None:
    arguments = [str(sample) if a == "DATA" else str(tmp_path / "x") if a == "x" else a for a in arguments]
    done = captured(*arguments, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_fine_tune_resume_merge(tiny_encoder: Path, sample: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f'backend = "finetune"\nadapter = "qlora"\n[encoder]\nrepo = "{tiny_encoder}"\nmax_length = 32\n'
        "[lora]\nr = 4\n[loop]\nepochs = 1\nlearning_rate = 1e-2\n"
    )
    model, merged = tmp_path / "model", tmp_path / "merged"
    command = ["train", sample, "--preset", recipe, "--out", model, "--run-dir", tmp_path / "run", "--set", "lora.r=8"]
    done = run(*command)
    assert "needs about" in done.stderr
    assert "fine-tuned" in done.stdout
    report = json.loads(run(*command, "--resume", "--set", "loop.epochs=2", "--json").stdout)
    assert [epoch["epoch"] for epoch in report["history"]["epochs"]] == [1, 2]
    assert [item["restored"] for item in report["history"]["resumed"]] == ["full state"]
    assert json.loads((model / "adapter" / "adapter_config.json").read_text())["r"] == 8
    assert "cannot resume" in run(*command, "--resume", "--set", "lora.r=16", check=False).stderr

    done = run("merge", model, sample, "--out", merged)
    assert "merged into the trained base; on 320 texts:" in done.stdout
    assert "original: largest logit change" in done.stdout
    assert not (merged / "adapter").exists()
    assert "no adapters" in run("merge", merged, sample, "--out", tmp_path / "again", check=False).stderr


def test_missing_models_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("nothere", "there is no folder 'nothere'; pass one that `reviewguard train` or `export` wrote"),
        ("minilm-svm", "'minilm-svm' is a preset, not a trained model; run: reviewguard train"),
    ):
        done = captured("predict", "--input", "a kettle", "--model", name, check=False)
        assert done.returncode == 1
        assert message in done.stderr
    done = captured("train", tmp_path / "not.csv", "--preset", "minilm-svm", "--out", tmp_path / "out", check=False)
    assert "cannot read" in done.stderr
    assert "No such file" in done.stderr


def test_texts_come_from_options_or_standard_input(folder: Path, tmp_path: Path) -> None:
    done = captured("predict", "--input", "It boils fast.", "--input", "A fine pan.", "--model", folder / "export", "--out", "-")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["It boils fast.", "A fine pan."]
    for content in ("text;note\nIt boils fast, yes;b\n", '{"text": "It boils fast, yes"}\n'):
        piped = subprocess.run(
            [sys.executable, "-m", "reviewguard", "predict", "-", "--model", folder / "export", "--delimiter", ";", "--json"],
            input=content,
            capture_output=True,
            text=True,
        )
        assert json.loads(piped.stdout)["text"] == "It boils fast, yes", piped.stderr
    done = captured("predict", tmp_path / "x.csv", "--input", "a", check=False)
    assert "pass either DATA, which may be - for standard input, or --input TEXT" in done.stderr


def test_layout_options_are_applied(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    rows = list(csv.DictReader((Path(__file__).parents[2] / "examples" / "sample_reviews.csv").open(encoding="utf-8")))
    path.write_text("".join(f"{row['text'].replace('|', ' ')}|{row['label']}\n" for row in rows), encoding="utf-8")
    options = ["--delimiter", "|", "--no-header", "--text", "0", "--label", "1", "--quoting", "none"]
    report = json.loads(captured("evaluate", path, "--model", folder / "model", *options, "--json").stdout)
    assert report["rows"] == len(rows)
    captured("decide", "--out", tmp_path / "decided", folder / "model", "--data", path, *options, "--calibrate")
