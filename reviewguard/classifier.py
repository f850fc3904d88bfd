"""The public face: one class that trains, predicts, evaluates, saves and exports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reviewguard import adaptation, files, loading, trained_on
from reviewguard.adaptation import Adaptation
from reviewguard.data.labels import read_weights, restored
from reviewguard.data.perturb import Attack
from reviewguard.data.reviews import Data, iter_texts, read_pair, texts_of
from reviewguard.errors import ConfigError, requires
from reviewguard.runtime.choose import Engine, Precision
from reviewguard.saver import Saver
from reviewguard.scoring import Floats, Prediction
from reviewguard.tokens import word_counts

if TYPE_CHECKING:
    from reviewguard.evaluation.report import Report, TrainingReport
    from reviewguard.evaluation.stress import StressReport
    from reviewguard.rehearsal import Rehearsal

#: Texts scored at once where there may be any number of them.
CHUNK_TEXTS: Final = 1024


class Classifier(Saver):
    """A text classifier: trained from a recipe, or loaded from a folder or the Hub.

    It is a scikit-learn estimator over texts: `clone`, `cross_val_score` and `GridSearchCV` work, and settings are named as
    there, with double underscores for sections (`encoder__max_length`).

    Attributes:
        classes_: Labels (classes,), in the order of every probability column: as `np.unique(y)`, in the type of the training
            labels (str, int, bool or float). Missing before training.
    """

    def __init__(self, preset: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> None:
        """Make an untrained classifier; settings are checked when it trains.

        Args:
            preset: Name of a preset (see `reviewguard presets`), path of a recipe in TOML, or a recipe as plain data.
            **overrides: Settings to change, such as `C=10` or `encoder__max_length=128`.
        """
        super().__init__(preset, **overrides)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        runtime: Engine = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        **overrides: Any,
    ) -> Classifier:
        """Load a trained model from a folder or the Hub, or make an untrained one from a preset.

        Args:
            name: In this order: a folder that `save` or `export` wrote, the name of a preset, or a Hub id `owner/name`. None: the
                built-in model, which needs neither torch nor network; `manifest.files` names its card, README.md.
            revision: Commit, branch or tag on the Hub; pin a commit in production.
            token: For a private repository; None: HF_TOKEN, or that of `hf auth login`. The latter two hold for its encoder too.
            runtime: What computes an export: "onnxruntime", "openvino", or "auto": OpenVINO where it is installed and the CPU
                computes in bf16, else onnxruntime. The attribute `runtime` says what it came to.
            precision: Of an export: "fp32"; "int8" (onnxruntime), if it was exported; "bf16" (OpenVINO); or "auto": bf16 as
                above, else int8 if the export has it.
            threads: Cores that an export keeps busy; 0: those that the process may use, by affinity and by its container.
            **overrides: Settings to change, for a preset.

        Raises:
            BundleError: If the folder, or what the Hub holds, is no valid model.
            ConfigError: If the name is none of the three, or runtime and precision do not go together.
            MissingExtra: If the model needs torch and it is not installed; an export does not.
        """
        if threads < 0:
            raise ConfigError(f"threads is {threads}; it is a number of cores, or 0 for those that the process may use")
        bundle = loading.find(name, revision, token)
        if bundle is None:
            if (runtime, precision, threads) != ("auto", "auto", 0):
                raise ConfigError(f"{str(name)!r} is a preset; runtime, precision and threads are for exports")
            return cls(str(name), **overrides)
        if overrides:
            raise ConfigError(f"a trained model's settings are fixed; remove {', '.join(overrides)}")
        self = cls(loading.recipe_of(bundle))
        self._fitted = loading.load(bundle, runtime, precision, threads)
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels in the order of the probability columns, in the type that the training labels had."""
        manifest = self._trained().manifest
        return restored(manifest.classes, manifest.label_type)

    @property
    def runtime(self) -> str:
        """What computes the logits: engine, precision, threads or device."""
        return self._trained().scorer.name

    def train(
        self,
        data: Data,
        validation: Data | None = None,
        *,
        epochs: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        resume: bool | Literal["if-possible"] = False,
    ) -> TrainingReport:
        """Clean, split, train, and report beside a TF-IDF baseline.

        With `validation`, all of `data` is for training. Else a column of splits is respected if there is one
        (`data.split`). Else rows are cleaned, then split at random, stratified, without near-duplicates across. Validation
        and test rows that you assign yourself are never dropped.

        Args:
            data: A path, DataFrame, Dataset, mapping of columns, or (texts, labels).
            validation: The same, for choosing when to stop and for the report.
            epochs: Passes over the rows, of a fine-tuned model: short for the setting `loop.epochs`.
            run_dir: Folder for the checkpoints and the log of fine-tuning; None: one in `reviewguard-runs/`, named after the
                settings and the data, so that the same call finds it again.
            resume: Go on from the newest checkpoint that is whole. With more `epochs` than before, a finished run goes on: its
                learning rate follows, from where it is, the curve of a run that was planned so long. "if-possible": begin anew
                where no checkpoint will do.

        Returns:
            What was dropped, what it cost, and the scores on validation and test.

        Raises:
            CheckpointError: If the run cannot be resumed, or would overwrite an unfinished one.
            ConfigError: If a setting is wrong.
            DataError: If the data cannot be used as they are.
            EncoderError: If the encoder cannot be had.
            MissingExtra: If torch or scikit-learn are not installed.
            TrainingError: If memory runs out or the loss is not finite.
            TrainingInterrupted: After Ctrl-C or SIGTERM, once a checkpoint is saved.
        """
        with requires("train"):
            from reviewguard import backends, training
            from reviewguard.nn.checkpoint import Run
        if resume not in (True, False, "if-possible"):
            raise ConfigError(f"resume is {resume!r}; it is True, False or 'if-possible'")
        recipe = self._recipe()
        if epochs is not None:
            if not hasattr(recipe, "loop"):
                raise ConfigError(f"epochs is for presets that fine-tune; the backend {recipe.backend!r} has none: leave it out")
            self.set_params(loop__epochs=epochs)
            recipe = self._recipe()
        run = Run(folder=None if run_dir is None else files.expanded(run_dir), resume=resume)
        self._fitted, report = training.train(recipe, backends.get_backend(recipe.backend), data, validation, run)
        return report

    def rehearse(self, data: Data, validation: Data | None = None, *, processes: int = 1) -> Rehearsal:
        """Do what `train` does up to the training, and say what it would do: what a cluster should not be held to find out.

        Settings are checked, the encoder is loaded, rows are read, cleaned and split. Nothing is written.

        Args:
            data: As for `train`.
            validation: The same.
            processes: That a launcher will start, on all machines together.

        Returns:
            What would be dropped, the rows and classes, and for fine-tuning the steps and batches.

        Raises:
            ConfigError: If a setting is wrong, or a batch cannot be dealt out to so many processes.
            DataError: The same.
            EncoderError: The same.
            MissingExtra: The same.
        """
        with requires("train"):
            from reviewguard import backends, rehearsal
        recipe = self._recipe()
        return rehearsal.rehearse(recipe, backends.get_backend(recipe.backend), data, validation, processes)

    def fit(
        self,
        X: Iterable[str],
        y: Iterable[Any],
        sample_weight: Iterable[float] | None = None,
        *,
        subclasses: Iterable[Any] | None = None,
    ) -> Classifier:
        """Train on exactly these rows, as scikit-learn does: nothing is dropped, split off or reported.

        Args:
            X: Texts, n of them.
            y: Labels, n of them: str, int, bool or float. `classes_` is `np.unique(y)`.
            sample_weight: What each row counts, n of them, finite and not negative; None: all count alike. A weight of 2 counts
                as the row twice, and one of 0 as if the row were not there. Fine-tuning divides weights by their mean.
            subclasses: Kinds within a class, n of them or None, as the setting `data.subclass` reads them from a column.

        Raises:
            DataError: If a text, label or weight is missing, a label is none of these types or has white space at its ends, a
                class has no weight, or there is only one class.
        """
        with requires("train"):
            from reviewguard import backends, training
        recipe = self._recipe()
        kinds = None if subclasses is None else list(subclasses)
        texts, backend = texts_of(X, recipe.data.text), backends.get_backend(recipe.backend)
        self._fitted = training.fit(recipe, backend, texts, y, kinds, sample_weight)
        return self

    def predict(self, texts: Iterable[str]) -> NDArray[Any]:
        """The most probable label of each text, (n,) in the type of `classes_`, or the one that `set_operating_point` calls for.

        Of a long text the first `encoder.max_length` tokens are read (see `stream`).

        Args:
            texts: Strings, n of them; or a table (pandas, polars, Arrow, a Dataset, a mapping of columns), of which the column is
                taken that the model was trained on, or one with a usual name.

        Raises:
            DataError: If `texts` is a single string, holds something other than strings, or an empty text.
            NotTrainedError: Before training.
            PredictionError: If a logit is not finite.
        """
        return self.classes_[self._trained().labels(self._texts(texts))]

    def predict_proba(self, texts: Iterable[str]) -> Floats:
        """Probabilities, float32 (n, classes), columns in the order of `classes_`. Raises as `predict` does."""
        return self._trained().probabilities(self._texts(texts))

    def stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Predictions for any number of texts, in order and in constant memory, with a flag on texts that were cut.

        An empty text has no label; `error` says why. Raises as `predict` does otherwise, at the text in question.
        """
        fitted = self._trained()
        remaining = iter_texts(texts, fitted.manifest.text_column)
        while chunk := list(islice(remaining, CHUNK_TEXTS)):
            yield from fitted.predictions(chunk)

    def evaluate(self, data: Data, *, split: str = "", text: str = "", label: str = "") -> Report:
        """Score the model on labelled rows, beside the baseline that was fitted on the same training rows.

        The report says how many of the texts the model was trained on.

        Args:
            data: As for `train`. No row is dropped.
            split: Only rows with this value in the column of splits; empty: all rows.
            text: Column of the texts; empty: as in training.
            label: Column of the labels; empty: as in training.

        Raises:
            DataError: If a row lacks text or label, or a label was not in training.
            NotTrainedError: Before training.
        """
        fitted = self._trained()
        manifest = fitted.manifest
        with requires("train"):
            from reviewguard.evaluation.baseline import FILES, Baseline
            from reviewguard.evaluation.report import make_report
        reviews = self._read(data, split, text, label)
        texts, labels = reviews.require_complete(manifest.classes)
        logits, encoded = fitted.logits(texts, progress="evaluating")
        baseline = Baseline.from_files({name: fitted.read(name) for name in FILES}) if FILES[0] in fitted.files else None
        return make_report(
            f"{reviews.source} ({split})" if split else reviews.source,
            labels,
            manifest.decision.scores(logits, fitted.positive, word_counts(encoded)),
            baseline.scores(fitted.normalized(texts)) if baseline else None,
            classes=manifest.classes,
            positive=manifest.positive,
            truncated=sum(item.truncated for item in encoded),
            seen=None if (seen := trained_on.seen(fitted, texts)) is None else int(seen.sum()),
        )

    def stress(
        self,
        data: Data,
        *,
        attacks: Sequence[str] = get_args(Attack),
        split: str = "",
        text: str = "",
        label: str = "",
        seed: int = 0,
    ) -> StressReport:
        """Score the model on labelled rows whose texts were changed: what evasion, haste and another keyboard do to it.

        Args:
            data: As for `train`. No row is dropped. Texts of both classes are changed.
            attacks: Names of `reviewguard.data.perturb.ATTACKS`; default: all.
            split: Only rows with this value in the column of splits; empty: all rows.
            text: Column of the texts; empty: as in training.
            label: Column of the labels; empty: as in training.
            seed: Of the changes.

        Raises:
            ConfigError: If an attack is not known, or there are more than two classes.
            DataError: If a row lacks text or label, a label was not in training, or there are not rows of both classes.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import stress
        return stress.stress(self._trained(), self._read(data, split, text, label), attacks, seed)

    def adapt(self, texts: Iterable[str], labels: Iterable[Any], *, references: Iterable[str] | None = None) -> Adaptation:
        """Teach an export a new kind of text by a few examples, such as 10 to 100 reviews by a new generator.

        It takes seconds and no torch. A linear correction of the log-odds is fitted on the embeddings of the examples and of
        reference texts, by logistic regression that starts from the model's own log-odds. Thresholds stay, and the correction is
        set so that no more references are called positive than before. `save` keeps it. Other runtimes do not apply it: the
        graph's own logits stay as they are. To add examples, adapt again with all of them; an earlier correction is replaced.

        Args:
            texts: Examples, n of them, at least two of the positive class.
            labels: Of the examples, n of them.
            references: At least 100 texts of the other class that the model was not trained on, such as genuine reviews of the
                domain that the examples are from; None: those of the validation texts that `export` was given. Where these are of
                another domain, the correction learns the domain, and flags its genuine texts (docs/results/adaptation.md).

        Returns:
            Recall on the examples before and after, by cross-fitting, and the share of references called positive.

        Raises:
            ConfigError: If the model is computed by torch, an earlier version exported it, or it has more than two classes.
            DataError: If a text or label is missing or unknown, or there are too few examples or references.
            NotTrainedError: Before training.
        """
        manifest = self._trained().manifest
        rows = read_pair(self._texts(texts), labels).labelled_as(manifest.label_type)
        examples = rows.require_complete(manifest.classes)
        beside = None if references is None else self._texts(references)
        self._fitted, found = adaptation.adapted(self._trained(), *examples, beside)
        return found

    def score(self, X: Iterable[str], y: Iterable[Any], sample_weight: Iterable[float] | None = None) -> float:
        """Accuracy of `predict(X)` against the labels `y`, read as in `fit`; `sample_weight` weighs the rows of the mean."""
        manifest = self._trained().manifest
        texts, labels = read_pair(self._texts(X), y).labelled_as(manifest.label_type).require_complete()
        called = self._trained().labels(texts)
        right = np.array(manifest.classes)[called] == np.array(labels)
        return float(np.average(right, weights=None if sample_weight is None else read_weights(sample_weight, len(right))))

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None
