"""The public API: loading models, splitting data, scikit-learn conventions, decisions and errors."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted

from reviewguard import Classifier
from reviewguard.config import load_preset
from reviewguard.data.reviews import read
from reviewguard.data.split import row_hash
from reviewguard.errors import BundleError, ConfigError, DataError, EncoderError, IntegrityError, NotTrainedError, PredictionError


@pytest.fixture(scope="module")
def trained(tiny_settings: dict[str, object], sample: Path) -> Classifier:
    classifier = Classifier("minilm-logreg", **tiny_settings)
    classifier.train(sample)
    return classifier


@pytest.fixture
def rows(sample: Path) -> list[dict[str, str]]:
    with open(sample, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def columns(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


class TestLoading:
    def test_a_preset(self) -> None:
        classifier = Classifier.from_pretrained("minilm-logreg", C=3.0)
        assert classifier.get_params()["C"] == 3.0
        assert not hasattr(classifier, "classes_")

    def test_a_custom_recipe(self, tmp_path: Path, tiny_encoder: Path) -> None:
        recipe = tmp_path / "mine.toml"
        recipe.write_text(f'backend = "logreg"\nC = 0.25\n[encoder]\nrepo = "{tiny_encoder}"\n')
        assert Classifier(recipe).get_params()["C"] == 0.25
        recipe.write_text("backend = ")
        with pytest.raises(ConfigError, match="cannot read the recipe"):
            Classifier(recipe).get_params()

    def test_unknown_names_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="did you mean 'minilm-svm'"):
            Classifier.from_pretrained("minilm-smv")
        with pytest.raises(BundleError, match="does not contain a reviewguard model"):
            Classifier.from_pretrained(tmp_path)
        with pytest.raises(BundleError, match="cannot fetch nobody/nothing"):
            Classifier.from_pretrained("nobody/nothing", revision="0" * 40)

    def test_settings_of_a_trained_model_are_fixed(self, trained: Classifier, tmp_path: Path) -> None:
        trained.save(tmp_path / "m")
        with pytest.raises(ConfigError, match="fixed; remove C"):
            Classifier.from_pretrained(tmp_path / "m", C=1.0)

    def test_a_local_encoder_travels_with_the_model(self, trained: Classifier, tmp_path: Path) -> None:
        trained.save(tmp_path / "a")
        shutil.move(tmp_path / "a", tmp_path / "elsewhere")
        moved = Classifier.from_pretrained(tmp_path / "elsewhere")
        np.testing.assert_array_equal(moved.predict_proba(["a kettle"]), trained.predict_proba(["a kettle"]))

    def test_a_saved_model_contains_no_local_paths(self, trained: Classifier, tmp_path: Path) -> None:
        trained.save(tmp_path / "a")
        trained.export(tmp_path / "b")
        encoder = trained.get_params()["encoder__repo"].encode()
        for path in [*(tmp_path / "a").rglob("*"), *(tmp_path / "b").rglob("*")]:
            if path.is_file():
                assert encoder not in path.read_bytes(), path

    def test_a_model_replaced_on_disk_is_not_mixed_with_the_loaded_one(
        self, trained: Classifier, tiny_settings: dict[str, object], sample: Path, tmp_path: Path
    ) -> None:
        trained.save(tmp_path / "m")
        old = Classifier.from_pretrained(tmp_path / "m")
        other = Classifier("minilm-logreg", **tiny_settings, C=100.0, seed=3)
        other.train(sample)
        other.save(tmp_path / "m")
        for use in (lambda: old.save(tmp_path / "n"), lambda: old.export(tmp_path / "n"), lambda: old.evaluate(sample)):
            with pytest.raises(IntegrityError, match="changed on disk since this model was loaded"):
                use()
        assert not (tmp_path / "n").exists()

    def test_revisions_apply_only_to_the_hub(self, trained: Classifier, tmp_path: Path) -> None:
        trained.save(tmp_path / "m")
        for name in (tmp_path / "m", "minilm-logreg"):
            with pytest.raises(ConfigError, match="has no revision"):
                Classifier.from_pretrained(name, revision="0" * 40)

    def test_a_model_whose_encoder_is_not_pinned_is_refused(self, tmp_path: Path) -> None:
        Classifier("minilm-logreg").fit(["a kettle", "a pan"], ["x", "y"]).save(tmp_path / "m")
        manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
        manifest["recipe"]["encoder"]["weights_sha256"] = ""
        (tmp_path / "m" / "reviewguard.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="does not pin its encoder's weights"):
            Classifier.from_pretrained(tmp_path / "m")

    def test_a_published_encoder_is_not_stored_with_the_model(self, sample: Path, tmp_path: Path) -> None:
        real = Classifier("minilm-logreg")
        report = real.train(sample)
        real.save(tmp_path / "m")
        assert not (tmp_path / "m" / "encoder").exists()
        pinned = json.loads((tmp_path / "m" / "reviewguard.json").read_text())["recipe"]["encoder"]
        assert pinned["weights_sha256"] == load_preset("minilm-logreg")["encoder"]["weights_sha256"]
        loaded = Classifier.from_pretrained(tmp_path / "m")
        np.testing.assert_allclose(loaded.predict_proba(["a kettle"]), real.predict_proba(["a kettle"]), atol=1e-6)
        assert report.results["test"].model.metrics["f1"].value > 0.7, "real embeddings separate the two styles of the sample"

    @pytest.mark.parametrize("name", ["head.safetensors", "tokenizer.json", "encoder/model.safetensors", "README.md"])
    def test_an_altered_file_is_refused(self, trained: Classifier, tmp_path: Path, name: str) -> None:
        trained.save(tmp_path / "m")
        content = bytearray((tmp_path / "m" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "m" / name).write_bytes(content)
        with pytest.raises(IntegrityError, match=name.rsplit("/", 1)[-1]):
            Classifier.from_pretrained(tmp_path / "m")

    def test_a_planted_encoder_path_is_not_followed(self, tmp_path: Path, sample: Path, tiny_encoder: Path) -> None:
        """An untrusted manifest may name any folder, but the weights there must match the pinned hash."""
        real = Classifier("minilm-logreg").fit(["a kettle", "a pan"], ["x", "y"])
        real.save(tmp_path / "m")
        manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
        manifest["recipe"]["encoder"]["repo"] = str(tiny_encoder)
        (tmp_path / "m" / "reviewguard.json").write_text(json.dumps(manifest))
        with pytest.raises(EncoderError, match="the recipe pins 53aa5117"):
            Classifier.from_pretrained(tmp_path / "m")


class TestSplits:
    def test_an_existing_split_column_is_used(
        self, rows: list[dict[str, str]], tiny_settings: dict[str, object], sample: Path
    ) -> None:
        for i, row in enumerate(rows):
            row["split"] = "train" if i % 4 else "dev"
        rows[0]["text"] = "two words"  # validation rows are kept even if short
        rows[1]["text"] = "two words"  # training rows are not
        report = Classifier("minilm-logreg", **tiny_settings).train(columns(rows))
        assert report.rows == {"train": 239, "validation": 80}
        assert report.results["validation"].rows == 80
        assert {step.name: step.dropped for step in report.cleaning.steps}["shorter than 10 tokens"] == 1

    def test_given_validation_rows_are_never_cleaned(self, rows: list[dict[str, str]], tiny_settings: dict[str, object]) -> None:
        validation = columns([*rows[:20], *rows[:20], {**rows[0], "text": "ok"}])
        report = Classifier("minilm-logreg", **tiny_settings).train(columns(rows[20:]), validation)
        assert report.rows == {"train": 300, "validation": 41}

    def test_a_split_column_and_validation_rows_conflict(
        self, rows: list[dict[str, str]], tiny_settings: dict[str, object]
    ) -> None:
        data = columns([{**row, "split": "train"} for row in rows])
        with pytest.raises(DataError, match=r"use only one of them: set data\.split= "):
            Classifier("minilm-logreg", **tiny_settings).train(data, columns(rows))
        Classifier("minilm-logreg", **tiny_settings, data__split="").train(data, columns(rows))

    def test_a_saved_split_is_reproduced(
        self, trained: Classifier, tmp_path: Path, tiny_settings: dict[str, object], sample: Path
    ) -> None:
        trained.save(tmp_path / "m")
        split = tmp_path / "m" / "split.csv"
        reviews = read(sample)
        shuffled = reviews.take(np.random.default_rng(0).permutation(len(reviews)).tolist())
        again = Classifier("minilm-logreg", **tiny_settings, seed=7, data__split_file=str(split))
        again.train((["a text that the file does not know", *shuffled.texts], ["real", *shuffled.labels]))
        again.save(tmp_path / "n")
        assert sorted((tmp_path / "n" / "split.csv").read_text().splitlines()) == sorted(split.read_text().splitlines())
        assert again.manifest.training["cleaning"]["steps"][0] == {"name": "not in the split file", "dropped": 1}
        assert again.manifest.data_sha256 == trained.manifest.data_sha256
        sides = dict(line.split(",") for line in split.read_text().splitlines()[1:])
        assert set(sides) == {row_hash(text) for text in reviews.texts}

    def test_a_saved_split_is_reproduced_with_duplicate_texts(
        self, tmp_path: Path, tiny_settings: dict[str, object], sample: Path
    ) -> None:
        reviews = read(sample)
        doubled = (reviews.texts + reviews.texts[:150], reviews.labels + reviews.labels[:150])
        first = Classifier("minilm-logreg", **tiny_settings)
        rows = first.train(doubled).rows
        first.save(tmp_path / "m")
        again = Classifier("minilm-logreg", **tiny_settings, data__split_file=str(tmp_path / "m" / "split.csv"))
        assert again.train(doubled).rows == rows

    def test_a_validation_label_without_training_rows_is_refused(
        self, rows: list[dict[str, str]], tiny_settings: dict[str, object]
    ) -> None:
        with pytest.raises(DataError, match="not trained on: 'odd'"):
            Classifier("minilm-logreg", **tiny_settings).train(columns(rows), (["a text"], ["odd"]))

    def test_one_split_of_a_file_can_be_evaluated(self, trained: Classifier, rows: list[dict[str, str]]) -> None:
        data = columns([{**row, "split": "test" if i < 50 else "train"} for i, row in enumerate(rows)])
        assert trained.evaluate(data, split="test").rows == 50
        data = {**data, "split": ["dev" if side == "test" else side for side in data["split"]]}
        assert trained.evaluate(data, split="validation").rows == trained.evaluate(data, split="dev").rows == 50
        with pytest.raises(DataError, match="no row of the mapping is in split 'tset'"):
            trained.evaluate(data, split="tset")
        with pytest.raises(DataError, match="no column 'split'"):
            trained.evaluate(columns(rows), split="test")


@pytest.mark.parametrize(
    ("labels", "wanted", "positive"),
    [
        (("fake", "real"), "", "fake"),
        (("fake", "real"), "real", "real"),
        (("OR", "CG"), "", "CG"),
        ((0, 1), "", "1"),
        (("ham", "spam"), "", "spam"),
        (("left", "right"), "", "right"),
    ],
)
def test_the_positive_class(tiny_settings: dict[str, object], labels: tuple[object, object], wanted: str, positive: str) -> None:
    classifier = Classifier("minilm-logreg", **tiny_settings, data__positive=wanted)
    classifier.fit(["a kettle", "a pan", "a book", "a dog"], [*labels, *labels])
    assert classifier.manifest.positive == positive
    assert classifier.classes_.tolist() == sorted(labels)


def test_an_unknown_positive_class_is_refused(tiny_settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="'fak', which is not a class; did you mean 'fake'"):
        Classifier("minilm-logreg", **tiny_settings, data__positive="fak").fit(["a", "b"], ["fake", "real"])


def test_fit_refuses_missing_texts_and_labels(tiny_settings: dict[str, object]) -> None:
    for texts, labels in ((["a", None], ["x", "y"]), (["a", "b"], ["x", None])):
        with pytest.raises(DataError, match=r"texts\[1\]|first at row 1"):
            Classifier("minilm-logreg", **tiny_settings).fit(texts, labels)


class TestScikitLearn:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda fitted: pickle.loads(pickle.dumps(fitted))])
    def test_copies_predict_alike(self, trained: Classifier, tmp_path: Path, copied: Callable[[Classifier], Classifier]) -> None:
        """joblib and Ray send classifiers to other processes."""
        texts = ["a good kettle [SEP] [CLS] [PAD] fine", "a kettle"]
        np.testing.assert_array_equal(copied(trained).predict_proba(texts), trained.predict_proba(texts))
        trained.export(tmp_path / "export")
        exported = Classifier.from_pretrained(tmp_path / "export")
        np.testing.assert_array_equal(copied(exported).predict_proba(texts), exported.predict_proba(texts))

    def test_score_reads_labels_as_fit_does(self, tiny_settings: dict[str, object]) -> None:
        texts, labels = ["a kettle", "the pan", "a book", "the dog"], [0.0, 1.0, 0.0, 1.0]
        classifier = Classifier("minilm-logreg", **tiny_settings, C=1e4).fit(texts, labels)
        assert classifier.score(texts, labels) == classifier.score(texts, ["0", "1", "0", "1"]) == 1.0
        with pytest.raises(DataError, match="differ in length"):
            classifier.score(texts, ["0"])

    def test_it_is_a_classifier(self, trained: Classifier) -> None:
        assert is_classifier(trained)
        check_is_fitted(trained)
        with pytest.raises(NotFittedError):
            check_is_fitted(Classifier("minilm-logreg"))

    def test_clone(self, trained: Classifier) -> None:
        copy = clone(trained)
        assert copy.get_params(deep=False) == trained.get_params(deep=False)
        assert not hasattr(copy, "classes_")

    def test_parameters(self) -> None:
        classifier = Classifier("minilm-logreg", C=2.0)
        assert classifier.get_params(deep=False) == {"preset": "minilm-logreg", "C": 2.0}
        everything = classifier.get_params()
        assert everything["encoder__max_length"] == 256
        assert everything["data__min_tokens"] == 10
        assert classifier.set_params(encoder__max_length=64).get_params()["encoder__max_length"] == 64
        before = classifier.get_params()
        with pytest.raises(ConfigError, match="did you mean"):
            classifier.set_params(encoder__max_len=3)
        assert classifier.get_params() == before, "a refused setting changes nothing"
        assert repr(classifier) == "Classifier('minilm-logreg', C=2.0, encoder__max_length=64)"

    def test_cross_validation_and_grid_search(self, sample: Path) -> None:
        """With the real small encoder, whose embeddings separate the styles of the sample."""
        reviews = read(sample)
        X, y = np.array(reviews.texts), np.array(reviews.labels)
        classifier = Classifier("minilm-logreg")
        scores = cross_val_score(classifier, X, y, cv=3)
        assert scores.shape == (3,)
        assert scores.mean() > 0.7
        search = GridSearchCV(classifier, {"C": [1e-6, 1.0]}, cv=3, scoring="roc_auc", error_score="raise").fit(X, y)
        assert search.cv_results_["param_C"].tolist() == [1e-6, 1.0]
        assert search.best_params_["C"] == [1e-6, 1.0][int(search.cv_results_["mean_test_score"].argmax())]
        assert search.cv_results_["mean_test_score"].min() > 0.7
        assert search.best_estimator_.predict(X[:2]).shape == (2,)

    def test_fit_neither_drops_nor_splits(self, tiny_settings: dict[str, object]) -> None:
        texts, labels = ["hi", "hi", "ho", "ho"], ["a", "a", "b", "b"]
        classifier = Classifier("minilm-logreg", **tiny_settings).fit(texts, labels)
        assert classifier.score(texts, labels) == 1.0
        assert classifier.manifest.training is None
        assert classifier.evaluate((texts, labels)).baseline is None


def test_normalisation_is_the_same_at_prediction(tiny_settings: dict[str, object]) -> None:
    texts, labels = ["Good kettle, fine .", "BAD  pan!", "A fine book.", "an old dog"], ["a", "b", "a", "b"]
    plain = Classifier("minilm-logreg", **tiny_settings).fit(texts, labels)
    odd, tidy = "It\u2019s  good , really", "It's good, really"
    np.testing.assert_array_equal(plain.predict_proba([odd]), plain.predict_proba([tidy]))
    raw = Classifier("minilm-logreg", **tiny_settings, data__normalization="none").fit(texts, labels)
    assert not np.array_equal(raw.predict_proba([odd]), raw.predict_proba([tidy]))
    study = Classifier("minilm-logreg", **tiny_settings, data__normalization="study").fit(texts, labels)
    np.testing.assert_array_equal(study.predict_proba(["GOOD; kettle!!"]), study.predict_proba(["good kettle"]))


def test_augmentation_changes_what_is_trained_on_and_nothing_else(sample: Path, tiny_settings: dict[str, object]) -> None:
    plain = Classifier("minilm-logreg", **tiny_settings)
    rough = Classifier("minilm-logreg", **tiny_settings, data__augment=0.5, data__augmentations=["case", "snippet"])
    reports = [one.train(sample) for one in (plain, rough)]
    assert reports[0].cleaning == reports[1].cleaning
    assert plain.manifest.data_sha256 == rough.manifest.data_sha256
    baselines = [report.results["test"].baseline for report in reports]
    assert baselines[0] == baselines[1]
    texts = ["Good kettle, boils fast."]
    assert not np.array_equal(plain.predict_proba(texts), rough.predict_proba(texts))
    with pytest.raises(ConfigError, match=r"data\.augmentations .*'cas'; did you mean 'case'"):
        Classifier("minilm-logreg", **tiny_settings, data__augmentations=["cas"]).train(sample)


def rows_of(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    """The sample with a group column."""
    return {**{name: [row[name] for row in rows] for name in ("text", "label")}, "side": ["a", "b"] * (len(rows) // 2)}


class TestDecisions:
    """Decisions are set on held-out rows, saved with the model, and applied by every engine."""

    @pytest.fixture
    def decided(self, trained: Classifier) -> Classifier:
        decided = copy.copy(trained)
        decided.calibrate()
        decided.set_operating_point(max_fpr=0.2)
        decided.set_abstention(error_rate=0.2)
        return decided

    def test_labels_probabilities_and_abstention_follow(
        self, decided: Classifier, trained: Classifier, rows: list[dict[str, str]]
    ) -> None:
        texts = [row["text"] for row in rows]
        before, after = trained.predict_proba(texts), decided.predict_proba(texts)
        assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
        assert np.abs(before - after).max() > 1e-3
        predictions = decided.predict_detailed(texts)
        point, abstention = decided.manifest.decision.operating_point, decided.manifest.decision.abstention
        assert point is not None
        assert abstention is not None
        odds = np.log(before[:, 0].astype(np.float64)) - np.log(before[:, 1].astype(np.float64))  # of "fake"
        np.testing.assert_array_equal([prediction.label == "fake" for prediction in predictions], odds >= point.threshold)
        np.testing.assert_array_equal(decided.predict(texts), [prediction.label for prediction in predictions])
        assert [prediction.score for prediction in predictions] == [
            float(p[list(decided.classes_).index(prediction.label)]) for p, prediction in zip(after, predictions, strict=True)
        ]
        within = np.stack([odds >= abstention.floors[0], -odds >= abstention.floors[1]], axis=1)
        expected = [
            "needs_review" if sum(w) != 1 or prediction.out_of_distribution else ("fake", "real")[int(w[1])]
            for w, prediction in zip(within, predictions, strict=True)
        ]
        assert [prediction.decision for prediction in predictions] == expected
        assert {"needs_review", "fake", "real"} >= set(expected) > {"needs_review"}
        assert list(decided.stream(texts)) == predictions

    def test_evaluate_applies_the_operating_point(
        self, decided: Classifier, trained: Classifier, sample: Path, rows: list[dict[str, str]]
    ) -> None:
        report, plain = decided.evaluate(sample), trained.evaluate(sample)
        predicted = decided.predict([row["text"] for row in rows])
        truth = np.array([row["label"] for row in rows])
        assert report.model.metrics["recall"].value == pytest.approx((predicted[truth == "fake"] == "fake").mean())
        assert report.model.metrics["recall"] != plain.model.metrics["recall"]
        assert report.model.metrics["roc_auc"].value == plain.model.metrics["roc_auc"].value  # the ranking is unchanged

    def test_decisions_are_saved_and_exported(self, decided: Classifier, tmp_path: Path, rows: list[dict[str, str]]) -> None:
        texts = [row["text"] for row in rows][:50]
        decided.save(tmp_path / "saved")
        assert list(Classifier.from_pretrained(tmp_path / "saved").stream(texts)) == list(decided.stream(texts))
        decided.export(tmp_path / "export")
        exported = Classifier.from_pretrained(tmp_path / "export")
        assert exported.manifest.decision == decided.manifest.decision
        assert [prediction.decision for prediction in exported.predict_detailed(texts)] == [
            prediction.decision for prediction in decided.predict_detailed(texts)
        ]

    def test_decisions_can_be_set_on_an_export(self, trained: Classifier, tmp_path: Path) -> None:
        trained.export(tmp_path / "export")
        exported = Classifier.from_pretrained(tmp_path / "export")
        exported.set_abstention(error_rate=0.2)
        exported.save(tmp_path / "decided")
        floors = Classifier.from_pretrained(tmp_path / "decided").manifest.decision.abstention
        direct = copy.copy(trained)
        assert floors == direct.set_abstention(error_rate=0.2)

    def test_decisions_can_be_set_on_given_rows(self, trained: Classifier, rows: list[dict[str, str]]) -> None:
        decided = copy.copy(trained)
        abstention = decided.set_abstention(columns(rows), error_rate=0.1)
        assert abstention.rows == [sum(row["label"] == name for row in rows) for name in decided.classes_]
        with pytest.raises(DataError, match="label"):
            decided.calibrate((["a text"], ["neither"]))

    def test_training_again_resets_decisions(self, decided: Classifier, sample: Path) -> None:
        again = clone(decided)
        again.train(sample)
        assert again.manifest.decision == type(again.manifest.decision)()

    def test_missing_requirements_are_reported(self, trained: Classifier, tiny_settings: dict[str, object]) -> None:
        assert trained.predict_detailed(["a kettle"]) == list(trained.stream(["a kettle"]))  # no abstention is needed
        fitted = Classifier("minilm-logreg", **tiny_settings).fit(["good", "bad", "fine"], ["a", "b", "c"])
        with pytest.raises(DataError, match="contains no validation rows"):
            fitted.calibrate()
        with pytest.raises(ConfigError, match="requires two classes, and the model has 3"):
            fitted.set_operating_point((["x"], ["a"]), max_fpr=0.1)
        with pytest.raises(NotTrainedError):
            Classifier("minilm-logreg").calibrate()

    def test_thresholds_by_length_and_one_sided_decisions_are_saved(
        self, trained: Classifier, rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        decided, texts = copy.copy(trained), [row["text"] for row in rows]
        point = decided.set_operating_point(rows_of(rows), max_fpr=0.2, by_length=(15, 25), group="side")
        decided.set_abstention(rows_of(rows), review_rate=0.3, one_sided=True)
        assert [band.words for band in point.bands] == [15, 25]
        decided.save(tmp_path / "m")
        loaded = Classifier.from_pretrained(tmp_path / "m")
        assert loaded.manifest.decision == decided.manifest.decision
        predictions = list(loaded.stream([*texts, "too short"]))
        assert [prediction.decision for prediction in predictions[:-1]] == [
            prediction.decision for prediction in decided.stream(texts)
        ]
        assert {prediction.decision for prediction in predictions} == {trained.manifest.positive, "needs_review", "not_flagged"}
        assert predictions[-1].decision == "needs_review"
        # New thresholds invalidate the floor.
        loaded.set_operating_point(rows_of(rows), max_fpr=0.3, by_length=(15, 25))
        assert loaded.manifest.decision.abstention is None

    def test_invalid_rates_and_columns_are_refused(
        self, trained: Classifier, rows: list[dict[str, str]], tiny_settings: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigError, match="give exactly one of error_rate and review_rate"):
            trained.set_abstention(error_rate=0.1, review_rate=0.1)
        with pytest.raises(ConfigError, match="one_sided=True"):
            trained.set_abstention(review_rate=0.1)
        with pytest.raises(DataError, match="no data were passed"):
            trained.set_operating_point(max_fpr=0.2, group="domain")
        with pytest.raises(DataError, match=r"no group column 'sid'; .*side"):
            trained.set_operating_point(rows_of(rows), max_fpr=0.2, group="sid")
        fitted = Classifier("minilm-logreg", **tiny_settings).fit(["good", "bad", "fine"], ["a", "b", "c"])
        with pytest.raises(ConfigError, match="two classes"):
            fitted.set_abstention((["x"], ["a"]), error_rate=0.1, one_sided=True)

    def test_a_damaged_validation_file_is_refused(self, trained: Classifier, tmp_path: Path) -> None:
        trained.save(tmp_path / "m")
        (tmp_path / "m" / "validation.safetensors").write_bytes(b"no tensors")
        with pytest.raises(IntegrityError):
            Classifier.from_pretrained(tmp_path / "m")

    def test_a_decision_of_another_model_is_refused(self, decided: Classifier, tmp_path: Path) -> None:
        decided.save(tmp_path / "m")
        manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
        manifest["decision"]["abstention"]["floors"].append(0.0)
        (tmp_path / "m" / "reviewguard.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="its decision settings do not fit 2 classes"):
            Classifier.from_pretrained(tmp_path / "m")


def test_non_finite_logits_raise(tiny_settings: dict[str, object]) -> None:
    damaged = Classifier("minilm-logreg", **tiny_settings).fit(["a kettle", "a pan"], ["x", "y"])
    with torch.no_grad():
        damaged._trained().scorer.head.bias[0] = float("nan")
    for ask in (damaged.predict, damaged.predict_proba, lambda texts: list(damaged.stream(texts))):
        with pytest.raises(PredictionError, match=r"logits of 2 of 2 texts are not finite, first at positions 0, 1"):
            ask(["One.", "Two."])


class TestMistakes:
    """Error messages state what was given and what is allowed."""

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda classifier: Classifier.from_pretrained(threads=-1), "threads is -1; it must be a number of cores, or 0"),
            (lambda classifier: Classifier.from_pretrained("x" * 300), "is not a valid model name: File name too long"),
            (lambda classifier: classifier.predict(None), "texts is NoneType None; pass a list of texts"),
            (lambda classifier: classifier.predict(Path("reviews.csv")), "texts is a path; pass texts, or use predict_file"),
            (lambda classifier: classifier.predict(b"a kettle"), "texts is a single string"),
            (lambda classifier: classifier.predict(["a", 5]), r"texts\[1\] is int 5"),
            (
                lambda classifier: classifier.train(([], []), resume="no"),
                "resume is 'no'; it must be True, False or 'if-possible'",
            ),
            (
                lambda classifier: classifier.train(([], []), epochs=2),
                "epochs applies to fine-tuning; the backend 'logreg' has none",
            ),
        ],
    )
    def test_mistakes_raise_errors_of_this_package(
        self, trained: Classifier, call: Callable[[Classifier], object], message: str
    ) -> None:
        with pytest.raises((ConfigError, DataError), match=message):
            call(trained)

    def test_shares_without_training_rows_are_refused(self, tiny_settings: dict[str, object], sample: Path) -> None:
        greedy = Classifier("minilm-logreg", **tiny_settings, data__test=0.6, data__validation=0.6)
        with pytest.raises(ConfigError, match=r"data.test=0.6 and data.validation=0.6 leave no training rows"):
            greedy.train(sample)

    def test_a_tilde_means_the_home_folder(self, trained: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        trained.save("~/model")
        assert (tmp_path / "model" / "reviewguard.json").is_file()
        assert not (tmp_path / "~").exists()
        assert Classifier.from_pretrained("~/model").classes_.tolist() == ["fake", "real"]
