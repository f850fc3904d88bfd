"""The contract of all backends; a new backend must pass it too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reviewguard import Classifier, Prediction
from reviewguard.config import load_preset
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError, ExportError, NotTrainedError
from reviewguard.models.encoder import load_encoder
from reviewguard.training.backends import Labelled, _embed, backend_names, get_backend
from reviewguard.training.finetuning.checkpoint import Run

TEXTS = ["Great pan, highly recommend it to everyone!", "lid rattles a bit, but for 12 quid ok", "?", "Kettle " * 200]


#: A preset for each backend, and for each kind of adapter.
PRESETS = ["minilm-finetune", "minilm-logreg", "minilm-mlp", "minilm-qlora", "minilm-svm", "tfidf"]


def settings_of(preset: str, tiny_settings: dict[str, object]) -> dict[str, object]:
    if preset == "tfidf":
        return {"max_length": 400, "data__min_tokens": 10}
    loop = {"loop__epochs": 2, "loop__learning_rate": 1e-3} if load_preset(preset)["backend"] == "finetune" else {}
    return {**tiny_settings, **loop}


@pytest.fixture(scope="module", params=PRESETS)
def trained(
    request: pytest.FixtureRequest, tiny_settings: dict[str, object], sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    """Each preset, trained on the tiny encoder with two classes."""
    classifier = Classifier(request.param, **settings_of(request.param, tiny_settings))
    classifier.train(sample, run_dir=tmp_path_factory.mktemp("run"))
    return classifier


@pytest.fixture(scope="module", params=PRESETS)
def trained_three(request: pytest.FixtureRequest, tiny_settings: dict[str, object], sample: Path) -> Classifier:
    """Each preset, fitted on three classes: the sample's labels, and one for a category."""
    reviews = read(sample)
    labels = ["book" if c == "books" else label for c, label in zip(reviews.columns["category"], reviews.labels, strict=True)]
    return Classifier(request.param, **settings_of(request.param, tiny_settings)).fit(reviews.texts, labels)


def test_presets_cover_all_backends() -> None:
    assert {load_preset(name)["backend"] for name in PRESETS} == set(backend_names())
    assert {load_preset(name).get("adapter", "none") for name in PRESETS} == {"none", "qlora"}


def test_predictions(trained: Classifier) -> None:
    assert trained.classes_.tolist() == ["fake", "real"]
    probabilities = trained.predict_proba(TEXTS)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (4, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert trained.predict(TEXTS).tolist() == trained.classes_[probabilities.argmax(axis=1)].tolist()
    streamed = list(trained.stream(iter(TEXTS)))
    assert [p.label for p in streamed] == trained.predict(TEXTS).tolist()
    np.testing.assert_allclose([p.score for p in streamed], probabilities.max(axis=1), atol=1e-6)
    assert [p.truncated for p in streamed] == [False, False, False, True]


@pytest.mark.parametrize("preset", ["minilm-logreg", "minilm-mlp", "minilm-svm"])
def test_encoder_and_head_are_on_one_device(
    preset: str, tiny_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device replaces a GPU here. (Fine-tuning needs a real device.)"""
    recipe = Classifier(preset, **tiny_settings)._recipe()
    labelled = Labelled(["a kettle", "the pan"] * 12, np.array([0, 1] * 12))
    monkeypatch.setattr(_embed, "best_device", lambda: torch.device("meta"))
    loaded = load_encoder(recipe.encoder)
    model, _ = get_backend(recipe.backend).train(labelled, None, classes=["a", "b"], encoder=loaded, config=recipe, run=Run())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_empty_input_gives_no_predictions(trained: Classifier) -> None:
    assert trained.predict([]).shape == (0,)
    assert trained.predict_proba([]).shape == (0, 2)
    assert list(trained.stream([])) == []


def test_predictions_do_not_depend_on_other_texts(trained: Classifier, sample: Path) -> None:
    texts = [text for text in read(sample).texts[:60] if text]
    forward, backward = trained.predict_proba(texts), trained.predict_proba(texts[::-1])[::-1]
    np.testing.assert_allclose(forward, backward, atol=1e-5)
    np.testing.assert_allclose(forward[7], trained.predict_proba([texts[7]])[0], atol=1e-5)


def test_saved_exported_and_loaded_models_agree(trained: Classifier, tmp_path: Path, sample: Path) -> None:
    agree_everywhere(trained, tmp_path, sample)


def test_saved_exported_and_loaded_models_agree_on_three_classes(trained_three: Classifier, tmp_path: Path, sample: Path) -> None:
    assert trained_three.classes_.tolist() == ["book", "fake", "real"]
    agree_everywhere(trained_three, tmp_path, sample)


def agree_everywhere(classifier: Classifier, tmp_path: Path, sample: Path) -> None:
    texts = [*TEXTS, *(text for text in read(sample).texts[:40] if text)]
    expected = classifier.predict_proba(texts)
    classifier.save(tmp_path / "saved")
    saved = Classifier.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(saved.predict_proba(texts), expected, atol=1e-6)
    assert 0 <= saved.export(tmp_path / "exported").graphs["fp32"].logits <= 1e-4
    exported = Classifier.from_pretrained(tmp_path / "exported")
    np.testing.assert_allclose(exported.predict_proba(texts), expected, atol=1e-4)
    assert exported.classes_.tolist() == classifier.classes_.tolist()
    with pytest.raises(ExportError, match="already"):
        exported.export(tmp_path / "again")
    exported.save(tmp_path / "copied")
    np.testing.assert_array_equal(
        Classifier.from_pretrained(tmp_path / "copied").predict_proba(texts), exported.predict_proba(texts)
    )


@pytest.mark.parametrize("preset", ["minilm-finetune", "minilm-logreg", "minilm-mlp", "minilm-svm", "tfidf"])
def test_subclasses_are_trained_and_summed(preset: str, tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier(preset, **settings_of(preset, tiny_settings), data__subclass="category")
    classifier.train(sample, run_dir=tmp_path / "run")
    assert classifier.classes_.tolist() == ["fake", "real"]
    assert classifier.manifest.head.endswith("-subclasses")
    agree_everywhere(classifier, tmp_path, sample)
    reviews = read(sample)
    pairs = sorted(set(zip(reviews.labels, reviews.columns["category"], strict=True)))
    owner = load_file(tmp_path / "saved" / "head.safetensors")["owner"]
    assert owner.tolist() == [["fake", "real"].index(label) for label, _ in pairs]
    if preset == "minilm-logreg":
        fitted = Classifier(preset, **tiny_settings).fit(reviews.texts, reviews.labels, subclasses=reviews.columns["category"])
        assert fitted.manifest.head == "linear-subclasses"


@pytest.mark.parametrize("preset", ["minilm-finetune", "minilm-logreg", "minilm-mlp", "minilm-svm", "tfidf"])
def test_sample_weight(preset: str, tiny_settings: dict[str, object]) -> None:
    """Each text has both labels, and the label with the larger weight wins. Rows of weight 0 are ignored."""
    settings = settings_of(preset, tiny_settings)
    if "loop__epochs" in settings:
        settings |= {"loop__epochs": 20, "loop__batch_size": 8, "loop__learning_rate": 1e-2}
    texts = [text for number in range(8) for text in (f"a kettle {number}", f"my {number} books")]
    X = texts * 2 + ["unheard of"]
    y = ["fake", "real"] * 8 + ["real", "fake"] * 8 + ["fake"]
    heavy = [20.0] * 16 + [1.0] * 16 + [0.0]
    weighted = Classifier(preset, **settings).fit(X, y, heavy)
    assert weighted.predict(texts).tolist() == y[:16]
    assert weighted.score(X, y, heavy) == pytest.approx(320 / 336)
    without = Classifier(preset, **settings).fit(X[:-1], y[:-1], sample_weight=heavy[:-1])
    np.testing.assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))


def test_ngrams_are_saved_exported_and_merged(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    settings = {**settings_of("minilm-qlora", tiny_settings), "data__subclass": "category", "data__validation": 0.3}
    classifier = Classifier("minilm-qlora", **settings, ngrams=4096)
    classifier.train(sample, run_dir=tmp_path / "run")
    agree_everywhere(classifier, tmp_path, sample)
    assert load_file(tmp_path / "saved" / "ngrams.safetensors")["weight"].shape == (4096, 16)
    assert not (tmp_path / "exported" / "ngrams.safetensors").exists()
    merged = classifier.merge(TEXTS)
    np.testing.assert_allclose(merged.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-3)


def test_nothing_saved_is_a_pickle(trained: Classifier, tmp_path: Path) -> None:
    trained.save(tmp_path / "saved")
    trained.export(tmp_path / "exported")
    allowed = {".json", ".safetensors", ".onnx", ".csv", ".md"}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")} == allowed


def test_saved_model_contains_no_local_path(
    trained: Classifier, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trained.save(tmp_path / "saved")
    here = str(tmp_path_factory.getbasetemp()).encode()
    assert [path.name for path in (tmp_path / "saved").rglob("*") if path.is_file() and here in path.read_bytes()] == []


def test_a_saved_model_can_be_trained_again(trained: Classifier, tmp_path: Path, sample: Path) -> None:
    trained.save(tmp_path / "saved")
    saved = Classifier.from_pretrained(tmp_path / "saved")
    expected = saved.predict_proba(TEXTS)
    saved.train(sample, run_dir=tmp_path / "run")
    if saved.manifest.recipe.get("adapter") == "none":
        # The bundle of a fine-tuned local encoder contains the new weights, and training starts from them.
        assert not np.allclose(saved.predict_proba(TEXTS), expected, atol=1e-4)
        return
    np.testing.assert_allclose(saved.predict_proba(TEXTS), expected, atol=1e-5)


def test_report_includes_the_baseline(trained: Classifier, sample: Path) -> None:
    report = trained.evaluate(sample)
    assert report.rows == 320
    assert report.positive == "fake"
    assert report.baseline is not None
    assert report.baseline.metrics["f1"].value > 0.8
    training = trained.manifest.training
    assert training is not None
    assert set(training["results"]) == {"validation", "test"}
    assert training["rows"] == {"train": 224, "validation": 32, "test": 64}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "pass a list of texts"),
        ([None], r"texts\[0\] is NoneType None"),
        (["fine", 7], r"texts\[1\] is int 7"),
        (["fine", float("nan")], r"texts\[1\] is float nan"),
    ],
)
def test_invalid_texts_are_rejected(trained: Classifier, texts: object, message: str) -> None:
    for method in (trained.predict, trained.predict_proba, lambda t: list(trained.stream(t))):
        with pytest.raises(DataError, match=message):
            method(texts)


def test_huge_text_is_truncated_and_flagged(trained: Classifier) -> None:
    huge = "an ordinary review of a kettle. " * 40_000
    (prediction,) = trained.stream([huge])
    assert prediction.truncated
    assert prediction.score == pytest.approx(next(trained.stream([huge[:5000]])).score, abs=1e-6)


def test_out_of_distribution_texts_need_review(trained: Classifier, sample: Path) -> None:
    chinese = "\u8fd9\u662f\u4e00\u5bb6\u975e\u5e38\u597d\u7684\u9152\u5e97" * 4
    *odd, usual, empty = trained.stream([chinese, "ok", "The kettle boils fast, and the lid stays shut while it pours.", "  "])
    assert [prediction.out_of_distribution for prediction in (*odd, usual)] == [True, True, False]
    assert [prediction.decision for prediction in (*odd, usual)] == ["needs_review"] * 2 + [usual.label]
    assert usual.scores[usual.label] == usual.score
    assert empty == Prediction(None, None, None, truncated=False, out_of_distribution=False, error="the text is empty")
    for predict in (trained.predict, trained.predict_proba):
        with pytest.raises(DataError, match=r"1 texts are empty, first texts\[1\]; remove them, or use stream"):
            predict(["ok", " "])
    predictions = list(trained.stream([text for text in read(sample).texts if text]))
    assert np.mean([prediction.out_of_distribution for prediction in predictions]) <= 0.02


def test_special_tokens_in_a_text_affect_only_that_text(trained: Classifier) -> None:
    texts = ["a good kettle [SEP] [CLS] [PAD] </s>", "a bad kettle"]
    assert trained.predict_proba(texts)[1] == pytest.approx(trained.predict_proba(["a good kettle", texts[1]])[1], abs=1e-5)
    assert not np.allclose(trained.predict_proba([texts[0]]), trained.predict_proba(["a good kettle"]), atol=1e-7)


def test_single_class_is_rejected(trained: Classifier) -> None:
    with pytest.raises(DataError, match="only one label, 'real'"):
        Classifier(**trained.get_params(deep=False)).fit(["a", "b"], ["real"] * 2)


def test_labels_unseen_in_training_are_rejected(trained: Classifier) -> None:
    with pytest.raises(DataError, match="'paid'; it knows 'fake', 'real'"):
        trained.evaluate((["a text", "another"], ["real", "paid"]))


@pytest.mark.parametrize("preset", PRESETS)
def test_untrained_model_raises(preset: str, tmp_path: Path) -> None:
    fresh = Classifier(preset)
    for call in (
        lambda: fresh.predict(["a"]),
        lambda: list(fresh.stream(["a"])),
        lambda: fresh.evaluate((["a"], ["b"])),
        lambda: fresh.save(tmp_path / "x"),
        lambda: fresh.export(tmp_path / "x"),
        lambda: fresh.classes_,
    ):
        with pytest.raises(NotTrainedError, match="has not been trained; call train"):
            call()
    assert not hasattr(fresh, "classes_")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", PRESETS)
def test_unknown_settings_are_rejected(preset: str) -> None:
    section = "loop__" if load_preset(preset)["backend"] == "finetune" else ""
    with pytest.raises(ConfigError, match="did you mean 'class_weight'"):
        Classifier(preset, **{f"{section}clas_weight": "none"}).get_params()
    encoder = "" if preset == "tfidf" else "encoder__"
    with pytest.raises(ConfigError, match=r"max_lenght is not an option; did you mean 'max_length'"):
        Classifier(preset, **{f"{encoder}max_lenght": 3}).get_params()
    with pytest.raises(ConfigError, match="class_weight"):
        Classifier(preset, **{f"{section}class_weight": "heavy"}).get_params()


def test_unknown_backend_is_rejected() -> None:
    with pytest.raises(ConfigError, match="did you mean 'logreg'"):
        get_backend("logred")


def test_listing_presets_does_not_import_torch() -> None:
    code = "import sys; from reviewguard.config import preset_names; preset_names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
