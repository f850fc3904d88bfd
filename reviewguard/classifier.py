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
from reviewguard.data.reviews import read_pair
from reviewguard.data.tables import Data
from reviewguard.data.texts import iter_texts, texts_of
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
    from reviewguard.evaluation.calibration import Calibration
    from reviewguard.evaluation.report import Report
    from reviewguard.evaluation.stress import StressReport
    from reviewguard.evaluation.windows import WindowChoice
    from reviewguard.export.report import ExportReport, Limits
    from reviewguard.training.dry_run import DryRun
    from reviewguard.training.report import TrainingReport


class Classifier:
    """A text classifier, trained from a recipe or loaded from a folder or the Hugging Face Hub.

    The class follows the scikit-learn estimator interface, with texts as input: `clone`, `cross_val_score` and `GridSearchCV`
    work. Nested settings are named with double underscores (`encoder__max_length`).

    Attributes:
        classes_: Class labels, shape (classes,), sorted as by `np.unique(y)`, in the type of the training labels (str, int, bool
            or float). Probability columns follow this order. Not available before training.
    """

    def __init__(self, preset: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> None:
        """Create an untrained classifier. Settings are validated at training.

        Args:
            preset: Name of a preset (see `reviewguard presets`), path of a TOML recipe, or a recipe as a mapping.
            **overrides: Settings that override the recipe, such as `C=10` or `encoder__max_length=128`.
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
        """Load a trained model from a folder or the Hub, or create an untrained classifier from a preset.

        Args:
            name: Folder written by `save` or `export`, preset name, or Hub id `owner/name`, tried in this order. None: the
                built-in model, which needs neither torch nor a network connection; its model card is README.md in the bundle.
            revision: Commit, branch or tag on the Hub. Pin a commit in production.
            token: Hub token for private repositories. None: `HF_TOKEN`, or the token stored by `hf auth login`; these two also
                apply to the model's encoder.
            runtime: Engine for an export: "onnxruntime", "openvino" or "auto". "auto" selects OpenVINO if it is installed and
                the CPU supports bf16, and onnxruntime otherwise. The property `runtime` reports the selection.
            precision: Precision for an export: "fp32", "int8" (onnxruntime, if exported), "bf16" (OpenVINO) or "auto". "auto"
                selects bf16 under the condition above, and otherwise int8 if the export contains it.
            threads: Number of cores for an export. 0: all cores available to the process, limited by its CPU affinity and
                container.
            **overrides: Settings that override the recipe; presets only.

        Returns:
            A classifier: trained, or untrained if `name` is a preset.

        Raises:
            BundleError: If the folder or the Hub repository does not contain a valid model.
            ConfigError: If the name is none of the three, or if `runtime` and `precision` are incompatible.
            MissingExtra: If the model needs torch and torch is not installed. Exports do not need it.
        """
        if threads < 0:
            raise ConfigError(f"threads is {threads}; it must be a number of cores, or 0 for all cores available to the process")
        bundle = loading.find(name, revision, token)
        if bundle is None:
            if (runtime, precision, threads) != ("auto", "auto", 0):
                raise ConfigError(f"{str(name)!r} is a preset; runtime, precision and threads apply to exports only")
            return cls(str(name), **overrides)
        if overrides:
            raise ConfigError(f"the settings of a trained model are fixed; remove {', '.join(overrides)}")
        self = cls(loading.recipe_of(bundle))
        self._model = loading.load(bundle, runtime, precision, threads)
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Class labels in the order of the probability columns, in the type of the training labels."""
        manifest = self._trained().manifest
        return restored(manifest.classes, manifest.label_type)

    @property
    def manifest(self) -> Manifest:
        """The model's manifest: classes, recipe, training report, and for saved models the hashes of all files."""
        return self._trained().manifest

    @property
    def runtime(self) -> str:
        """What computes the logits: the engine with its precision and threads, or torch with its device."""
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
        """Clean and split the data, train, and report scores next to those of a TF-IDF baseline.

        If `validation` is given, all of `data` is used for training. Otherwise, an existing split column is used (`data.split`).
        Without either, rows are cleaned and then split at random, stratified by class, with near-duplicates kept in the same
        split. Validation and test rows that you assign yourself are never dropped.

        Args:
            data: Path, DataFrame, Dataset, mapping of columns, or tuple `(texts, labels)`.
            validation: Validation rows for early stopping and for the report, in any of these forms.
            epochs: Number of epochs for a fine-tuned model; shorthand for the setting `loop.epochs`.
            run_dir: Folder for the checkpoints and logs of fine-tuning. None: a folder in `reviewguard-runs/` named after the
                settings and the data, so that an identical call finds it again.
            resume: Whether to resume from the newest valid checkpoint. With more `epochs` than before, a finished run continues;
                its learning rate follows the schedule of a run of that length from the current step. "if-possible": start over
                if no checkpoint can be used.

        Returns:
            Dropped rows, training cost, and scores on the validation and test rows.

        Raises:
            CheckpointError: If the run cannot be resumed, or would overwrite an unfinished run.
            ConfigError: If a setting is invalid.
            DataError: If the data cannot be used.
            EncoderError: If the encoder cannot be loaded.
            MissingExtra: If torch or scikit-learn is not installed.
            TrainingError: If memory runs out or the loss is not finite.
            TrainingInterrupted: After Ctrl-C or SIGTERM, once a checkpoint has been saved.
        """
        with requires("train"):
            from reviewguard.training import backends
            from reviewguard.training import train as training
            from reviewguard.training.finetuning.checkpoint import Run
        if resume not in (True, False, "if-possible"):
            raise ConfigError(f"resume is {resume!r}; it must be True, False or 'if-possible'")
        recipe = self._recipe()
        if epochs is not None:
            if not hasattr(recipe, "loop"):
                raise ConfigError(f"epochs applies to fine-tuning; the backend {recipe.backend!r} has none: omit the argument")
            self.set_params(loop__epochs=epochs)
            recipe = self._recipe()
        run = Run(folder=None if run_dir is None else files.expanded(run_dir), resume=resume)
        self._model, report = training.train(recipe, backends.get_backend(recipe.backend), data, validation, run)
        return report

    def dry_run(self, data: Data, validation: Data | None = None, *, processes: int = 1) -> DryRun:
        """Check what `train` would do, without training or writing anything.

        A dry run validates the settings, loads the encoder, and reads, cleans and splits the rows. Run it before you request a
        cluster.

        Args:
            data: Training rows, as for `train`.
            validation: Validation rows, as for `train`.
            processes: Number of processes that the launcher will start, over all machines.

        Returns:
            Rows that would be dropped, rows per split and class, and for fine-tuning the number of steps and the batch sizes.

        Raises:
            ConfigError: If a setting is invalid, or if the batch cannot be divided among the processes.
            DataError: If the data cannot be used.
            EncoderError: If the encoder cannot be loaded.
            MissingExtra: If torch or scikit-learn is not installed.
        """
        with requires("train"):
            from reviewguard.training import backends, dry_run
        recipe = self._recipe()
        return dry_run.dry_run(recipe, backends.get_backend(recipe.backend), data, validation, processes)

    def fit(
        self,
        X: Iterable[str],
        y: Iterable[Any],
        sample_weight: Iterable[float] | None = None,
        *,
        subclasses: Iterable[Any] | None = None,
    ) -> Classifier:
        """Train on exactly these rows, following scikit-learn: no row is dropped or held out, and no report is computed.

        Args:
            X: Texts, shape (n,).
            y: Labels, shape (n,), of type str, int, bool or float. `classes_` is `np.unique(y)`.
            sample_weight: Row weights, shape (n,), finite and non-negative. None: equal weights. A weight of 2 is equivalent to
                repeating the row, and a weight of 0 to removing it. Fine-tuning divides the weights by their mean.
            subclasses: Subclass of each row, shape (n,), as read by the setting `data.subclass` from a column. None: no
                subclasses.

        Returns:
            This classifier.

        Raises:
            DataError: If a text, label or weight is missing, a label has another type or has leading or trailing white space, a
                class has zero total weight, or there is only one class.
        """
        with requires("train"):
            from reviewguard.training import backends
            from reviewguard.training import train as training
        recipe = self._recipe()
        subclass_list = None if subclasses is None else list(subclasses)
        texts, backend = texts_of(X, recipe.data.text), backends.get_backend(recipe.backend)
        self._model = training.fit(recipe, backend, texts, y, subclass_list, sample_weight)
        return self

    def predict(self, texts: Iterable[str]) -> NDArray[Any]:
        """Predict the label of each text: the most probable class, or the class given by `set_operating_point`.

        Texts longer than `encoder.max_length` tokens are truncated, unless `set_windows` is used; `stream` reports truncation.

        Args:
            texts: Strings, shape (n,), or a table (pandas, polars, Arrow, Dataset or mapping of columns). From a table, the text
                column of the training data is used, or a column with a common name.

        Returns:
            Labels, shape (n,), in the type of `classes_`.

        Raises:
            DataError: If `texts` is a single string, contains an element that is not a string, or contains an empty text.
            NotTrainedError: If the classifier has not been trained.
            PredictionError: If a logit is not finite.
        """
        return self.classes_[self._trained().labels(texts_for(self.manifest, texts))]

    def predict_proba(self, texts: Iterable[str]) -> Floats:
        """Predict calibrated probabilities.

        Args:
            texts: Texts, as for `predict`.

        Returns:
            Probabilities, float32, shape (n, classes), with columns in the order of `classes_`.

        Raises:
            DataError: As for `predict`.
            NotTrainedError: If the classifier has not been trained.
            PredictionError: If a logit is not finite.
        """
        return self._trained().probabilities(texts_for(self.manifest, texts))

    def predict_detailed(self, texts: Iterable[str]) -> list[Prediction]:
        """Predict label, probabilities, decision and warning flags for each text, as a list. See `stream`.

        Args:
            texts: Texts, as for `predict`. Empty texts are allowed.

        Returns:
            One prediction per text, in order.

        Raises:
            DataError: If `texts` is a single string or contains an element that is not a string.
            NotTrainedError: If the classifier has not been trained.
            PredictionError: If a logit is not finite.
        """
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Predict any number of texts lazily, in order and in constant memory.

        An empty text does not raise an error; its prediction has no label, and its `error` gives the reason.

        Args:
            texts: Texts, as for `predict`. Any iterable, including a generator.

        Yields:
            One prediction per text. Truncated and out-of-distribution texts are flagged.

        Raises:
            DataError: If `texts` is a single string, or when an element is reached that is not a string.
            NotTrainedError: If the classifier has not been trained.
            PredictionError: If a logit is not finite.
        """
        trained = self._trained()
        yield from trained.stream(iter_texts(texts, trained.manifest.text_column))

    def predict_file(self, source: str | os.PathLike[str], out: str | os.PathLike[str], *, text: str = "") -> Summary:
        """Add predictions to every row of a file, in constant memory.

        Rows are written to `OUT.partial`; `OUT.progress` records how many rows are on disk. The finished file is renamed to
        `OUT`. After an interruption, an identical call resumes after the last recorded row, once it has verified that the model
        and the rows read so far are unchanged.

        Args:
            source: Input path with one of the file types in `reviewguard.data.rows.FILE_TYPES`, or a `File`.
            out: Output path ending in .csv, .tsv, .jsonl or .ndjson. An existing file is replaced.
            text: Name of the text column. Empty: as in training.

        Returns:
            Number of rows, errors, and truncated and out-of-distribution texts.

        Raises:
            DataError: If a file, column or row cannot be used, or if the interrupted run used other input or another model.
            NotTrainedError: If the classifier has not been trained.
        """
        return streaming.predict_file(self._trained(), source, out, text=text)

    def evaluate(self, data: Data, *, split: str = "", text: str = "", label: str = "") -> Report:
        """Score the model on labelled rows, next to the baseline that was fitted on the same training rows.

        The report states how many of the texts were in the training data.

        Args:
            data: Labelled rows, as for `train`. No row is dropped.
            split: Value of the split column; only these rows are used. Empty: all rows.
            text: Name of the text column. Empty: as in training.
            label: Name of the label column. Empty: as in training.

        Returns:
            Metrics with confidence intervals for the model and the baseline.

        Raises:
            DataError: If a text or label is missing, or if a label is not a class of the model.
            NotTrainedError: If the classifier has not been trained.
        """
        trained = self._trained()
        with requires("train"):
            from reviewguard.evaluation import evaluate
            from reviewguard.models.files import load_baseline
        reviews = labelled_rows(trained.manifest, data, split=split, text=text, label=label)
        title = f"{reviews.source} ({split})" if split else reviews.source
        return evaluate.evaluate(trained, reviews, title, load_baseline(trained))

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
        """Score the model on labelled rows whose texts are perturbed, for example by typos, casual style or look-alike letters.

        Args:
            data: Labelled rows, as for `train`. No row is dropped. Texts of both classes are perturbed.
            attacks: Names from `reviewguard.data.perturb.ATTACKS`. Default: all attacks.
            split: Value of the split column; only these rows are used. Empty: all rows.
            text: Name of the text column. Empty: as in training.
            label: Name of the label column. Empty: as in training.
            seed: Random seed of the perturbations.

        Returns:
            Recall and false positive rate on the unchanged texts and under each attack.

        Raises:
            ConfigError: If an attack is unknown, or if the model has more than two classes.
            DataError: If a text or label is missing, a label is not a class of the model, or one of the classes has no rows.
            NotTrainedError: If the classifier has not been trained.
        """
        trained = self._trained()
        with requires("train"):
            from reviewguard.evaluation import stress
        return stress.stress(trained, labelled_rows(trained.manifest, data, split=split, text=text, label=label), attacks, seed)

    def calibrate(self, data: Data | None = None, *, split: str = "") -> Calibration:
        """Calibrate probabilities by temperature scaling (Guo et al. 2017). Labels do not change.

        Args:
            data: Labelled rows that were not used for training, as for `train`. None: the validation rows of training. These
                also selected the epoch or the stopping point, so results on them are slightly optimistic.
            split: Value of the split column; only these rows are used. Empty: all rows.

        Returns:
            The temperature, and the expected calibration error before and after.

        Raises:
            DataError: If rows cannot be used, or if the model contains no validation rows.
            NotTrainedError: If the classifier has not been trained.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        self._model, calibration = decisions.calibrate(self._trained(), data, split)
        return calibration

    def set_windows(self, data: Data, *, overlap: int | None = None, max_windows: int = 8, split: str = "") -> WindowChoice:
        """Read long texts in overlapping windows if this improves results on held-out rows.

        Three ways to read a text that is longer than one window are compared: the first window only, the mean of the windows'
        logits, and the window with the highest log-odds of the positive class. Texts that fit into one window are read as
        before. Call this method before the other decision settings: a new choice changes the logits and therefore removes
        calibration, thresholds and abstention.

        Args:
            data: Labelled held-out rows, as for `calibrate`. Required, because training does not store texts.
            overlap: Tokens shared by consecutive windows. None: a quarter of `encoder.max_length`.
            max_windows: Maximum number of windows per text, at least 2.
            split: Value of the split column; only these rows are used. Empty: all rows.

        Returns:
            The selected way of reading and the scores of all alternatives.

        Raises:
            ConfigError: If `overlap` is more than half a window, or if `max_windows` is less than 2.
            DataError: If rows cannot be used, or if too few of them are longer than one window.
            NotTrainedError: If the classifier has not been trained.

        Warns:
            UserWarning: If existing calibration, thresholds or abstention are removed.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        self._model, choice = decisions.set_windows(self._trained(), data, split, overlap, max_windows)
        return choice

    def set_operating_point(
        self, data: Data | None = None, *, max_fpr: float, by_length: Sequence[int] = (), group: str = "", split: str = ""
    ) -> OperatingPoint:
        """Set the decision threshold so that the expected false positive rate on new texts is at most `max_fpr`.

        The threshold affects `predict`, `stream` and `evaluate`; probabilities do not change. An existing review threshold
        (`set_abstention(review_rate=...)`) is removed and must be set again.

        Args:
            data: Labelled held-out rows, as for `calibrate`.
            max_fpr: Maximum false positive rate, between 0 and 1.
            by_length: Lower bounds of length bands, in words, such as `(8, 20, 40, 80)`. Each band gets its own threshold, and
                texts shorter than the first bound need review. Empty: one threshold for all lengths.
            group: Name of a column of groups, such as domains. The threshold is raised until the rate also holds in each group
                with at least 150 negative rows, and in the remaining groups together. Requires `data`. Empty: no groups.
            split: Value of the split column; only these rows are used. Empty: all rows.

        Returns:
            The threshold and the expected rates with confidence intervals, also by band and group. Its method
            `precision(prevalence)` estimates the precision for your own class ratio.

        Raises:
            ConfigError: If the model has more than two classes, the rate is not between 0 and 1, or the bounds are not ascending.
            DataError: If rows cannot be used, or if the model contains no validation rows.
            NotTrainedError: If the classifier has not been trained.

        Warns:
            UserWarning: If there are too few rows to guarantee or to estimate the rate.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        self._model, point = decisions.set_operating_point(self._trained(), data, split, max_fpr, by_length, group)
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
        """Enable abstention: the model decides on a text only if the held-out rows support it; other texts need review.

        Exactly one of the two rates must be given. A one-sided decision is the positive class, "needs_review" or "not_flagged",
        and never the negative class: the absence of evidence does not show that a person wrote the text. With a one-sided
        decision, texts above the operating point are assigned to the positive class, so call `set_operating_point` first if you
        use it.

        Args:
            data: Labelled held-out rows, as for `calibrate`.
            error_rate: Maximum share of the texts of each class that are expected to be assigned to another class. With
                `one_sided`, maximum share of the positive class that is expected not to be flagged. Between 0 and 1.
            review_rate: Share of negative texts that may need review, between 0 and 1. Requires `one_sided`.
            one_sided: Whether decisions are one-sided. Two-class models only.
            split: Value of the split column; only these rows are used. Empty: all rows.

        Returns:
            The log-odds bounds and the number of held-out rows that they are based on.

        Raises:
            ConfigError: If the rate is not between 0 and 1, if not exactly one rate is given, or if `one_sided` is used with
                more than two classes.
            DataError: If rows cannot be used, or if the model contains no validation rows.
            NotTrainedError: If the classifier has not been trained.
        """
        with requires("train"):
            from reviewguard.evaluation import decisions
        trained = self._trained()
        self._model, abstention = decisions.set_abstention(trained, data, split, error_rate, review_rate, one_sided)
        return abstention

    def adapt(self, texts: Iterable[str], labels: Iterable[Any], *, references: Iterable[str] | None = None) -> Adaptation:
        """Adapt an export to a new kind of text from a few examples, such as 10 to 100 reviews by a new generator.

        Adaptation takes seconds and does not need torch. It fits a linear correction of the log-odds to the embeddings of the
        examples and of reference texts, by logistic regression with the model's log-odds as offset. Thresholds do not change,
        and the correction is set so that no more references are classified as positive than before. `save` stores the
        correction, but other runtimes do not apply it, because the logits of the graph do not change. To add examples, call
        `adapt` with all examples; it replaces an earlier correction.

        Args:
            texts: Examples, shape (n,), at least two of the positive class.
            labels: Labels of the examples, shape (n,).
            references: At least 100 negative texts that the model was not trained on, such as genuine reviews from the domain of
                the examples. None: the negative validation texts that were passed to `export`. If these are from another domain,
                the correction learns the domain and flags its genuine texts (docs/results/adaptation.md).

        Returns:
            Cross-fitted recall on the examples before and after, and the share of references classified as positive.

        Raises:
            ConfigError: If the model runs in torch, was exported by an earlier version, or has more than two classes.
            DataError: If a text or label is missing, a label is not a class of the model, or there are too few examples or
                references.
            NotTrainedError: If the classifier has not been trained.
        """
        trained = self._trained()
        manifest = trained.manifest
        rows = read_pair(texts_for(manifest, texts), labels).labelled_as(manifest.label_type)
        examples = rows.require_complete(manifest.classes)
        reference_texts = None if references is None else texts_for(manifest, references)
        self._model, report = adaptation.adapted(trained, *examples, reference_texts)
        return report

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder. An existing model in the folder is replaced atomically.

        The written model is first loaded again and must produce the same logits up to rounding (1e-5). Under torchrun, only the
        first process writes.

        Args:
            folder: Output folder.

        Raises:
            BundleError: If the folder contains something other than a model, if a merged model would overwrite its adapters, or
                if the folder cannot be written or does not reproduce the model.
            NotTrainedError: If the classifier has not been trained.
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
        """Upload the model to the Hugging Face Hub in one commit. `from_pretrained(repo_id)` loads it again.

        Use a separate repository or branch for each of a trained model, its merged version and its export. If the repository
        already contains a model, files of that model that are missing from the new one are deleted; other files are kept.
        `HF_ENDPOINT` is respected.

        Args:
            repo_id: Repository id `owner/name`. The repository is created if it does not exist.
            revision: Branch, created if it does not exist. None: main.
            private: Whether a new repository is private. None: the owner's default.
            token: Hub token with write access. None: `HF_TOKEN`, or the token stored by `hf auth login`.
            message: Commit message.
            license: License identifier for the model card, such as "apache-2.0".
            datasets: Hub ids of the training data, for the model card.

        Returns:
            The commit, for `from_pretrained(repo_id, revision=...)`. Under torchrun, only the first process uploads; the others
            return an empty string.

        Raises:
            ConfigError: If `repo_id` does not have the form `owner/name`.
            HubError: If the upload fails. The repository is then unchanged.
            NotTrainedError: If the classifier has not been trained.
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
        """Merge the adapters of a fine-tuned model into its weights, in float32. This classifier is not changed.

        Args:
            texts: Texts on which the change is measured, such as your validation texts.
            base: Weights to merge into: "trained" for those that the adapters were trained on (for QLoRA the dequantised 4-bit
                weights), "original" for the published full-precision weights. The result is never 4-bit.

        Returns:
            A classifier without adapters. `manifest.merged` reports how much the logits and how many labels change with either
            base.

        Raises:
            EncoderError: If the original weights cannot be loaded.
            ExportError: If the model has no adapters, or if no texts are given.
            NotTrainedError: If the classifier has not been trained.
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
        """Export the model as one ONNX graph, from token ids to logits. Prediction then needs only the base installation.

        Each graph is compared with torch before it is written: on padded batches of several shapes, on texts alone and in
        batches with others, and on the validation texts. If it exceeds a limit, nothing is written. Adapters are merged into the
        weights that they were trained on (see `merge`).

        Args:
            folder: Output folder. An existing model in the folder is replaced.
            validation: Labelled validation texts, as for `train`. No row is dropped.
            split: Value of the split column; only these rows of `validation` are used. Empty: all rows.
            int8: Whether to write a second graph, a quarter of the size, with 8-bit weights. Activations are quantised per
                token, so that a text's probability does not depend on the other texts in its batch. Requires at least 1,000
                validation texts.
            limits: Maximum differences from torch. None: `Limits()`.

        Returns:
            How the graphs compare with torch. The report is also written as `export_report.json` and as a table in the model
            card.

        Raises:
            BundleError: If the folder contains something other than a model, or if it cannot be written.
            DataError: If a text or label is missing, or if a label is not a class of the model.
            ExportError: If the model is already an export, or if a graph exceeds a limit; the message lists texts whose label
                changed.
            NotTrainedError: If the classifier has not been trained.
        """
        trained = self._trained()
        if is_export(trained.files):
            raise ExportError("this model is already an ONNX export; use save() to copy it")
        with requires("export"):
            from reviewguard.export import write
            from reviewguard.export.report import Limits
        reviews = None if validation is None else labelled_rows(trained.manifest, validation, split=split)
        return write.export(trained, Path(folder), reviews, int8=int8, limits=limits or Limits())

    def score(self, X: Iterable[str], y: Iterable[Any], sample_weight: Iterable[float] | None = None) -> float:
        """Compute the accuracy of `predict(X)`.

        Args:
            X: Texts, shape (n,).
            y: True labels, shape (n,), as for `fit`.
            sample_weight: Row weights, shape (n,). None: equal weights.

        Returns:
            Accuracy, 0 to 1.
        """
        manifest = self._trained().manifest
        texts, labels = read_pair(texts_for(manifest, X), y).labelled_as(manifest.label_type).require_complete()
        predicted = self._trained().labels(texts)
        correct = np.array(manifest.classes)[predicted] == np.array(labels)
        return float(np.average(correct, weights=None if sample_weight is None else read_weights(sample_weight, len(correct))))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the settings, following scikit-learn.

        Args:
            deep: Whether to return every setting with its value. False: only the constructor's arguments.

        Raises:
            ConfigError: If `deep` is true and a setting is invalid.
        """
        given = {"preset": self.preset, **self._overrides}
        return {**_flatten(msgspec.to_builtins(self._recipe())), **given} if deep else given

    def set_params(self, **params: Any) -> Self:
        """Change settings. They are validated immediately and take effect at the next training.

        Args:
            **params: Constructor arguments: settings, and `preset`.

        Returns:
            This classifier.

        Raises:
            ConfigError: If a setting is invalid. In this case, no setting is changed.
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
        # Only scikit-learn calls this method, so the import cannot fail.
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


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}__") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
