"""transformers' Trainer for `TextModel`, with verified checkpoints."""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from reviewguard.config import LoopConfig
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import CheckpointError, ConfigError, TrainingInterrupted
from reviewguard.models.device import compute_dtype
from reviewguard.models.text_model import TextModel
from reviewguard.models.transformer import quiet
from reviewguard.training.finetuning import checkpoint, state
from reviewguard.training.finetuning.batches import (
    Collator,
    LengthGroupedSampler,
    Rows,
    TokenDataset,
    divided,
    row_weights,
    sorted_by_length,
)
from reviewguard.training.finetuning.callbacks import Guard, MetricsLogger, Progress, Stop
from reviewguard.training.finetuning.checkpoint import OPTIMIZER, CheckpointManifest, Job, Start, generators_of
from reviewguard.training.history import Resumption


class TextTrainer(Trainer):
    """Trainer whose row order depends only on the seed and the epoch, and whose checkpoints are verified."""

    def __init__(
        self,
        model: TextModel,
        tokenizer: Tokenizer,
        train: Rows,
        validation: Rows | None,
        loop: LoopConfig,
        seed: int,
        folder: Path | None,
        scratch: Path,
    ) -> None:
        for logger in loop.report_to:
            if not any(find_spec(package) for package in (logger, f"{logger}X")):  # tensorboardX works too
                raise ConfigError(f"loop.report_to names {logger}, which is not installed; run: pip install {logger}")
        device = next(model.parameters()).device
        self.text_model = model
        self.dtype = compute_dtype(loop.precision)
        self.folder = folder
        self.job: Job | None = None
        self.start: Start | None = None
        self.resumed: list[Resumption] = []
        self.stop = Stop()
        self.keeps_all = loop.checkpoints == "all"
        self.guard = Guard(loop.patience, loop.save_steps if folder else 0)
        on_cpu = device.type == "cpu"
        self.optimizer_name = "adamw_torch" if on_cpu or loop.optimizer == "adamw" else loop.optimizer
        with quiet():
            args = TrainingArguments(
                output_dir=str(folder or scratch),
                num_train_epochs=loop.epochs,
                learning_rate=loop.learning_rate,
                lr_scheduler_type=loop.schedule if loop.schedule != "constant" else "constant_with_warmup",
                warmup_steps=loop.warmup,
                weight_decay=loop.weight_decay,
                max_grad_norm=loop.max_grad_norm,
                optim=self.optimizer_name,
                bf16=self.dtype == torch.bfloat16,
                use_cpu=on_cpu,
                seed=seed,
                eval_strategy="epoch" if validation is not None else "no",
                save_strategy="epoch" if folder is not None else "no",
                metric_for_best_model="f1" if validation is not None else None,
                logging_steps=10,
                logging_nan_inf_filter=False,
                report_to=list(loop.report_to) or "none",
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=not on_cpu,
                ddp_find_unused_parameters=False,
                label_names=["labels"],
            )
            # Without torchrun, Trainer would split each batch over all GPUs in one process, which fails with 4-bit weights.
            args._n_gpu = min(args.n_gpu, 1)
            self.micro_batch, _, args.gradient_accumulation_steps = divided(loop, args.world_size)
            args.per_device_train_batch_size = self.micro_batch
            args.per_device_eval_batch_size = max(16, self.micro_batch)
            weights = row_weights(train.y, train.weight, loop.class_weight)
            self._smoothing = loop.label_smoothing
            self._order = LengthGroupedSampler([len(item.ids) for item in train.encoded], loop.batch_size, seed)
            # Sorted by length, so that batches contain little padding; metrics do not depend on the order.
            held_out = None if validation is None else TokenDataset(sorted_by_length(validation))
            super().__init__(
                model=model,
                args=args,
                # Scaled to mean 1, so that the scale of the weights does not change the effective learning rate.
                train_dataset=TokenDataset(train._replace(weight=weights / weights.mean())),
                eval_dataset=held_out,
                data_collator=Collator(tokenizer),
                compute_loss_func=self._loss,
                compute_metrics=_metrics,
                callbacks=[Progress(), self.guard, self.stop],
            )
        if folder is not None:
            self.add_callback(MetricsLogger(folder / "metrics.jsonl"))
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, for any number of processes."""
        size = self.micro_batch * self.args.world_size * self.args.gradient_accumulation_steps
        return -(-len(self._order) // int(size))

    def run(self, job: Job, start: Start | None) -> list[Resumption]:
        """Train from `start`, and return all resumptions of this run, including this one.

        Raises:
            TrainingInterrupted: After a signal, once a checkpoint is on disk.
        """
        self.job, self.start = job, start
        source = None
        if start is not None:
            before = start.manifest.resumed if start.manifest else []
            step = start.manifest.step if start.manifest and start.restored != "weights only" else 0
            self.resumed = [*before, Resumption(step=step, restored=start.restored, lost=start.lost)]
            if start.restored == "weights only" and start.folder:
                self._load_from_checkpoint(str(start.folder))
            elif start.folder:
                source = str(start.folder)
        listening = self.stop.listening() if self.folder is not None else contextlib.nullcontext()
        with quiet(), listening:
            self.train(resume_from_checkpoint=source)
        if self.stop.signum:
            raise TrainingInterrupted(
                f"stopped by signal {self.stop.signum} at step {self.state.global_step} of {self.state.max_steps}; a "
                f"checkpoint is in {self.folder}. To resume, repeat the call with resume=True (command line: --resume)",
                self.stop.signum,
            )
        # Mixed precision wraps `forward`; the returned model must compute as a loaded one does.
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        if best := self._require_best():
            self._load_from_checkpoint(str(best))
        return self.resumed

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the row-weighted cross-entropy, averaged over all micro-batches and processes of a step."""
        # Trainer passes only the labels to its loss function.
        self._weights = inputs.pop("weights")
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self._smoothing)
        total: Tensor = (losses * self._weights).sum()
        return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))

    def _run_epoch(self, **arguments: Any) -> None:  # type: ignore[override]
        """Train one epoch, except when a run that stopped early is resumed: further steps would change its result."""
        if self.guard.is_exhausted(self.state):
            self.control.should_training_stop = True
            return
        super()._run_epoch(**arguments)  # type: ignore[no-untyped-call]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._order

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the loss, logits and labels of a batch; Trainer's own method cannot handle a plain tensor."""
        inputs = self._prepare_inputs(inputs)
        labels, _ = inputs.pop("labels"), inputs.pop("weights")
        with torch.no_grad():
            logits: Tensor = model(**inputs).float()
        return nn.functional.cross_entropy(logits, labels), logits, labels

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.folder is None or self.job is None:
            return
        folder = checkpoint.path_of(self.folder, self.state.global_step)
        weights, optimizer = state.weights(self.text_model), state.optimizer(self.text_model, self._prepared()[0])
        generators = state.gather(state.generators())
        if self.is_world_process_zero():
            checkpoint.unseal(folder)
            contents = {checkpoint.WEIGHTS: weights, OPTIMIZER: optimizer}
            contents |= {generators_of(rank): content for rank, content in enumerate(generators)}
            checkpoint.write(folder, contents)
            self.state.save_to_json(str(folder / checkpoint.STATE))
            checkpoint.seal(
                folder,
                CheckpointManifest(
                    step=self.state.global_step,
                    job=self.job,
                    processes=self.args.world_size,
                    optimizer=self.optimizer_name,
                    best_step=self.state.best_global_step,
                    learning_rate=float(self._prepared()[1].get_last_lr()[0]),
                    resumed=self.resumed,
                    versions={name: version(name) for name in ("reviewguard", "torch", "transformers", "peft")},
                ),
            )
            if not self.keeps_all:
                checkpoint.rotate(self.folder, self.state.global_step)
        meet()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / checkpoint.WEIGHTS
        state.load_weights(self.text_model, path.read_bytes(), str(path))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.start is None or self.start.manifest is None:
            return
        manifest, resumption = self.start.manifest, self.resumed[-1]
        if self.start.restored == "full state":
            try:
                state.load_optimizer(self.text_model, self._prepared()[0], Path(checkpoint) / OPTIMIZER)
            except CheckpointError as error:
                lost = [*resumption.lost, f"optimizer state: {error}"]
                resumption = msgspec.structs.replace(resumption, restored="weights and schedule", lost=lost)
        rate = state.move_schedule(*self._prepared(), manifest.step)
        if abs(rate - manifest.learning_rate) > 1e-9 * self.args.learning_rate:
            resumption = msgspec.structs.replace(resumption, learning_rate=(manifest.learning_rate, rate))
        try:
            self._require_best()
        except CheckpointError as error:
            resumption = msgspec.structs.replace(resumption, lost=[*resumption.lost, f"the best epoch so far: {error}"])
            self.state.best_global_step = self.state.best_metric = None
        self.resumed[-1] = resumption

    def _require_best(self) -> Path | None:
        """Verified checkpoint of the best epoch. None: the model is at that step, or there was no validation."""
        best = self.state.best_global_step
        if self.folder is None or best is None or best == self.state.global_step:
            return None
        folder = checkpoint.path_of(self.folder, best)
        checkpoint.verify(folder)
        return folder

    def _prepared(self) -> tuple[Optimizer, LambdaLR]:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        return self.optimizer, self.lr_scheduler

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state.load_generators(Path(checkpoint) / generators_of(self.args.process_index))


def meet() -> None:
    """Wait for the other processes, if any."""
    if distributed.is_initialized():
        distributed.barrier()


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    predicted, truth = np.asarray(prediction.predictions).argmax(axis=1), np.asarray(prediction.label_ids)
    return {"f1": float(f1_score(truth, predicted, average="macro")), "accuracy": float(accuracy_score(truth, predicted))}
