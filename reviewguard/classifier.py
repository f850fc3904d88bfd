"""The public API: one class that trains, predicts, evaluates, saves and exports."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard import config, files, loading, saving
from reviewguard.bundle.manifest import Manifest
from reviewguard.data.labels import read_weights, restored
from reviewguard.data.perturb import Attack
from reviewguard.data.reviews import Data, iter_texts, read_pair, texts_of
from reviewguard.errors import ConfigError, ExportError, NotTrainedError, requires
from reviewguard.inference import adaptation, streaming
from reviewguard.inference.adaptation import Adaptation
from reviewguard.inference.engines.select import Engine, Precision, is_export
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.rows import labelled_rows, texts_for
from reviewguard.inference.scoring import Floats, Prediction
from reviewguard.inference.streaming import Summary

if TYPE_CHECKING:
    from reviewguard.bundle.decision import Abstention, OperatingPoint
    from reviewguard.evaluation.held_out import HeldOut
    from reviewguard.evaluation.operating import Calibration
    from reviewguard.evaluation.report import Report
    from reviewguard.evaluation.stress import StressReport
    from reviewguard.evaluation.windows import WindowChoice
    from reviewguard.export.report import ExportReport, Limits
    from reviewguard.training.dry_run import DryRun
    from reviewguard.training.report import TrainingReport


class Classifier:
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
        self.preset = preset
        self._overrides = dict(overrides)
        self._model: TrainedModel | None = None

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
        self._model = loading.load(bundle, runtime, precision, threads)
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels in the order of the probability columns, in the type that the training labels had."""
        manifest = self._trained().manifest
        return restored(manifest.classes, manifest.label_type)

    @property
    def manifest(self) -> Manifest:
        """What the trained model is: classes, recipe, training report, and the hashes of a saved model's files."""
        return self._trained().manifest

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
            from reviewguard.training import backends
            from reviewguard.training import train as training
            from reviewguard.training.finetuning.checkpoint import Run
        if resume not in (True, False, "if-possible"):
            raise ConfigError(f"resume is {resume!r}; it is True, False or 'if-possible'")
        recipe = self._recipe()
        if epochs is not None:
            if not hasattr(recipe, "loop"):
                raise ConfigError(f"epochs is for presets that fine-tune; the backend {recipe.backend!r} has none: leave it out")
            self.set_params(loop__epochs=epochs)
            recipe = self._recipe()
        run = Run(folder=None if run_dir is None else files.expanded(run_dir), resume=resume)
        self._model, report = training.train(recipe, backends.get_backend(recipe.backend), data, validation, run)
        return report

    def dry_run(self, data: Data, validation: Data | None = None, *, processes: int = 1) -> DryRun:
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
            from reviewguard.training import backends
            from reviewguard.training import dry_run as rehearsal
        recipe = self._recipe()
        return rehearsal.dry_run(recipe, backends.get_backend(recipe.backend), data, validation, processes)

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
            from reviewguard.training import backends
            from reviewguard.training import train as training
        recipe = self._recipe()
        kinds = None if subclasses is None else list(subclasses)
        texts, backend = texts_of(X, recipe.data.text), backends.get_backend(recipe.backend)
        self._model = training.fit(recipe, backend, texts, y, kinds, sample_weight)
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
        return self.classes_[self._trained().labels(texts_for(self.manifest, texts))]

    def predict_proba(self, texts: Iterable[str]) -> Floats:
        """Probabilities, float32 (n, classes), columns in the order of `classes_`. Raises as `predict` does."""
        return self._trained().probabilities(texts_for(self.manifest, texts))

    def predict_detailed(self, texts: Iterable[str]) -> list[Prediction]:
        """Label, probabilities, decision and warnings for each text: `stream` as a list. Raises as `stream` does."""
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Predictions for any number of texts, in order and in constant memory, with a flag on texts that were cut.

        An empty text has no label; `error` says why. Raises as `predict` does otherwise, at the text in question.
        """
        trained = self._trained()
        yield from trained.stream(iter_texts(texts, trained.manifest.text_column))

    def predict_file(self, source: str | os.PathLike[str], out: str | os.PathLike[str], *, text: str = "") -> Summary:
        """Add predictions to every row of a file, in constant memory.

        Rows are written to `OUT.partial`; `OUT.progress` records the rows that are on disk. The finished file is renamed into
        place. After an interruption, the same call resumes after the last recorded row, once it has verified that the model and
        the rows read so far are the same.

        Args:
            source: A path of one of `reviewguard.data.rows.FILE_TYPES`, or a `File`.
            out: .csv, .tsv, .jsonl or .ndjson; replaced if it exists.
            text: Column of the texts; empty: as in training.

        Raises:
            DataError: If a file, column or row cannot be used, or an interrupted run had other input or another model.
            NotTrainedError: Before training.
        """
        return streaming.predict_file(self._trained(), source, out, text=text)

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
        trained = self._trained()
        with requires("train"):
            from reviewguard.evaluation import evaluate
        reviews = labelled_rows(trained.manifest, data, split=split, text=text, label=label)
        return evaluate.evaluate(trained, reviews, f"{reviews.source} ({split})" if split else reviews.source)

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
        trained = self._trained()
        with requires("train"):
            from reviewguard.evaluation import stress
        return stress.stress(trained, labelled_rows(trained.manifest, data, split=split, text=text, label=label), attacks, seed)

    def calibrate(self, data: Data | None = None, *, split: str = "") -> Calibration:
        """Make probabilities mean what they say: by a temperature (Guo et al. 2017), which leaves every label as it is.

        Args:
            data: Labelled rows that were not trained on, as for `train`; None: the validation rows of training, which chose the
                epoch or when to stop, and flatter a little.
            split: Only rows with this value in the column of splits; empty: all rows.

        Returns:
            The temperature, and the expected calibration error before and after.

        Raises:
            DataError: If rows cannot be used, or training kept no validation rows.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        self._model, calibration = decisions.calibrate(self._trained(), self._held_out(data, split))
        return calibration

    def set_windows(self, data: Data, *, overlap: int | None = None, max_windows: int = 8, split: str = "") -> WindowChoice:
        """Read texts that are longer than the model reads at once in overlapping windows, if that is better on held-out rows.

        Compared are the first window alone, the mean of the windows' logits, and the window that looks most positive. Texts that
        fit into one window are read as before. Set it first: a new choice removes calibration, thresholds and abstention, which
        were set on other logits.

        Args:
            data: As for `calibrate`; needed here, as training keeps no texts.
            overlap: Tokens that a window shares with the one before; None: a quarter of what the model reads.
            max_windows: Windows read of a text at most; 2 or more.
            split: As for `calibrate`.

        Returns:
            What was chosen, and how the others did.

        Raises:
            ConfigError: If the overlap is over half a window, or `max_windows` is below 2.
            DataError: As `calibrate`, or if too few rows are longer than one window.
            NotTrainedError: Before training.

        Warns:
            UserWarning: If decisions were set before, and are removed.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        trained = self._trained()
        reviews = labelled_rows(trained.manifest, data, split=split)
        self._model, choice = decisions.set_windows(trained, reviews, overlap, max_windows)
        return choice

    def set_operating_point(
        self, data: Data | None = None, *, max_fpr: float, by_length: Sequence[int] = (), group: str = "", split: str = ""
    ) -> OperatingPoint:
        """Call a text positive only from where at most this share of the other texts is called so, by expectation on new ones.

        It changes `predict`, `stream` and `evaluate`; probabilities stay. A review threshold that was set before
        (`set_abstention(review_rate=...)`) is removed: set it again.

        Args:
            data: As for `calibrate`.
            max_fpr: False-positive rate, between 0 and 1.
            by_length: Lower bounds of bands of lengths, in words, such as `(8, 20, 40, 80)`. Each band gets a threshold of its
                own, and texts that are shorter than the first need review. Empty: one threshold for every length.
            group: Column of groups, such as a domain. The rate is held in each that has at least 150 negative rows, and in
                the others together, by the one that needs the highest threshold. Empty: over all rows. It needs `data`.
            split: As for `calibrate`.

        Returns:
            The threshold, with the rates to expect and their intervals, by band and group too; its `precision(prevalence)` is for
            your own mixture.

        Raises:
            ConfigError: If there are more than two classes, the rate is not between 0 and 1, or the bands do not ascend.
            DataError: As `calibrate`.
            NotTrainedError: Before training.

        Warns:
            UserWarning: If the rows are too few to hold the rate, or to know it.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        trained = self._trained()
        decisions.require_two_classes(trained)
        rows = self._held_out(data, split, group)
        self._model, point = decisions.set_operating_point(trained, rows, max_fpr, by_length)
        return point

    def set_abstention(
        self,
        data: Data | None = None,
        *,
        error_rate: float | None = None,
        review_rate: float | None = None,
        one_sided: bool = False,
        split: str = "",
    ) -> Abstention:
        """Let the model abstain: decide on a text only where that is safe, and send the others to review.

        Give one of the two rates. One-sided, a decision is the positive class, "needs_review" or "not_flagged", and never the
        other class: that a detector has nothing against a text does not show that a person wrote it. The positive class is then
        decided on from the operating point on, if one is set: set it first.

        Args:
            data: As for `calibrate`.
            error_rate: Of each class, at most this share gets another, by expectation on new texts; one-sided, at most this share
                of the positive class is not flagged. Between 0 and 1.
            review_rate: Share of the negatives that may go to review; one-sided only. Between 0 and 1.
            one_sided: See above; for two classes.
            split: As for `calibrate`.

        Raises:
            ConfigError: If the rate is not between 0 and 1, not just one is given, or there are more than two classes for a
                one-sided decision.
            DataError: As `calibrate`.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        trained = self._trained()
        decisions.require_rates(trained, error_rate, review_rate, one_sided)
        rows = self._held_out(data, split)
        self._model, abstention = decisions.set_abstention(trained, rows, error_rate, review_rate, one_sided)
        return abstention

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
        trained = self._trained()
        manifest = trained.manifest
        rows = read_pair(texts_for(manifest, texts), labels).labelled_as(manifest.label_type)
        examples = rows.require_complete(manifest.classes)
        beside = None if references is None else texts_for(manifest, references)
        self._model, report = adaptation.adapted(trained, *examples, beside)
        return report

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder; a model that is there already is replaced, atomically.

        What was written is loaded again first, and must give the same logits but for rounding (1e-5). Under torchrun only the
        first process writes.

        Raises:
            BundleError: If the folder holds something else, or of a merged model the adapters, which would be lost; if it cannot
                be written, or would not give back the model.
            NotTrainedError: Before training.
        """
        saving.save(self._trained(), Path(folder))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a model made with reviewguard",
        license: str | None = None,
        datasets: Sequence[str] = (),
    ) -> str:
        """Upload the model to the Hugging Face Hub, as one commit; `from_pretrained(repo_id)` gives it back.

        A saved model, a merged one and an export are each a repository's whole content, or a branch's. Of a model that is there
        already, files that this one lacks are deleted; files that belong to no model stay. HF_ENDPOINT is honoured.

        Args:
            repo_id: `owner/name`; the repository is made if it is not there.
            revision: Branch, made if it is not there; None: main.
            private: Of a repository that is made: whether only its owner sees it; None: as its owner has set.
            token: With the right to write; None: HF_TOKEN, or that of `hf auth login`.
            message: Of the commit.
            license: For the model card: an identifier such as "apache-2.0".
            datasets: For the model card: Hub ids of the training data.

        Returns:
            The commit, to be pinned with `from_pretrained(repo_id, revision=...)`. Under torchrun only the first process uploads,
            and the others get an empty string.

        Raises:
            ConfigError: If `repo_id` has another form.
            HubError: If anything fails on the way; what was there is as it was.
            NotTrainedError: Before training.
        """
        return saving.push(
            self._trained(),
            repo_id,
            revision=revision,
            private=private,
            token=token,
            message=message,
            license=license,
            datasets=datasets,
        )

    def merge(self, texts: Iterable[str], base: Literal["trained", "original"] = "trained") -> Self:
        """Fold the adapters of a fine-tuned model into its weights, in float32; this classifier stays as it is.

        Args:
            texts: To judge the change on, such as your validation texts.
            base: What to merge into: the weights that the adapters were trained on (of QLoRA the 4-bit ones, dequantised), or the
                published full-precision ones. It is never merged into four bits.

        Returns:
            A classifier without adapters, whose `manifest.merged` says how far either base moves the logits, and how many labels.

        Raises:
            ExportError: If there are no adapters or no texts.
            NotTrainedError: Before training.
        """
        trained = self._trained()
        with requires("train"):
            from reviewguard.export import merge
        merged = copy.copy(self)
        merged._model, _ = merge.merge(trained, texts_for(trained.manifest, texts), base)
        return merged

    def export(
        self,
        folder: str | os.PathLike[str],
        validation: Data | None = None,
        *,
        split: str = "",
        int8: bool = False,
        limits: Limits | None = None,
    ) -> ExportReport:
        """Write the model as one ONNX graph from token ids to logits, for prediction with the base install alone.

        Each graph is first compared with torch: on padded batches of several shapes, of texts alone and in company, and on the
        validation texts. If it is not true to the model, nothing is written. Adapters are merged into the weights that they were
        trained on (see `merge`).

        Args:
            folder: Where to write; an older model there is replaced.
            validation: Labelled texts to judge by, as for `train`. No row is dropped.
            split: Of them, only rows with this value in the column of splits; empty: all rows.
            int8: Write a second graph, a quarter of the size: weights in eight bits, activations quantised token by token, so
                that a text's probability does not depend on its batch. It needs `validation`, of at least 1,000 texts.
            limits: What an export may change at most; None: `Limits()`.

        Returns:
            How the graphs compare; also written as `export_report.json`, and as a table in the model card.

        Raises:
            ExportError: If this model is an export already, or a graph is not true to it; the message names texts that changed.
            BundleError: If the folder holds something else, or cannot be written.
            DataError: If a validation row lacks text or label, or a label was not in training.
        """
        trained = self._trained()
        if is_export(trained.files):
            raise ExportError("this model is an ONNX export already; use save() to copy it")
        with requires("export"):
            from reviewguard.export import write
            from reviewguard.export.report import Limits
        reviews = None if validation is None else labelled_rows(trained.manifest, validation, split=split)
        return write.export(trained, Path(folder), reviews, int8=int8, limits=limits or Limits())

    def score(self, X: Iterable[str], y: Iterable[Any], sample_weight: Iterable[float] | None = None) -> float:
        """Accuracy of `predict(X)` against the labels `y`, read as in `fit`; `sample_weight` weighs the rows of the mean."""
        manifest = self._trained().manifest
        texts, labels = read_pair(texts_for(manifest, X), y).labelled_as(manifest.label_type).require_complete()
        called = self._trained().labels(texts)
        right = np.array(manifest.classes)[called] == np.array(labels)
        return float(np.average(right, weights=None if sample_weight is None else read_weights(sample_weight, len(right))))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings as scikit-learn wants them.

        Args:
            deep: Every setting there is, with its value; else what the constructor was given.

        Raises:
            ConfigError: With `deep`, if a setting is wrong.
        """
        given = {"preset": self.preset, **self._overrides}
        return {**_flatten(msgspec.to_builtins(self._recipe())), **given} if deep else given

    def set_params(self, **params: Any) -> Self:
        """Change settings; they are checked at once and take effect at the next training.

        Args:
            **params: As for the constructor, and `preset`.

        Raises:
            ConfigError: If a setting is wrong; then none is changed.
        """
        previous = self.preset, self._overrides
        self.preset = params.pop("preset", self.preset)
        self._overrides = {**self._overrides, **params}
        try:
            self._recipe()
        except ConfigError:
            self.preset, self._overrides = previous
            raise
        return self

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._overrides.items())
        preset = f"<{self.preset.get('backend')} recipe>" if isinstance(self.preset, Mapping) else repr(str(self.preset))
        return f"{type(self).__name__}({preset}{given})"

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks for tags, so it is there to be imported.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return self._model is not None

    def _recipe(self) -> config.Recipe:
        with requires("train"):
            from reviewguard.training import backends
        base = self.preset if isinstance(self.preset, Mapping) else config.load_preset(self.preset)
        return backends.recipe_from(config.merge(base, self._overrides))

    def _trained(self) -> TrainedModel:
        if self._model is None:
            raise NotTrainedError(
                f"{self!r} has not been trained; call train(data), or load a trained model with "
                "Classifier.from_pretrained(folder)"
            )
        return self._model

    def _held_out(self, data: Data | None, split: str, group: str = "") -> HeldOut:
        from reviewguard.evaluation.held_out import held_out_rows

        trained = self._trained()
        reviews = None if data is None else labelled_rows(trained.manifest, data, split=split)
        return held_out_rows(trained, reviews, group)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}__") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
