"""A complete fine-tuning run."""

from __future__ import annotations

import contextlib
import logging
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from reviewguard import files
from reviewguard.config import LoopConfig
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import CheckpointError, ConfigError, ReviewGuardError, TrainingError
from reviewguard.models.text_model import TextModel
from reviewguard.models.transformer import TransformerEncoder
from reviewguard.training.finetuning import checkpoint, memory, state
from reviewguard.training.finetuning.batches import Rows, digest
from reviewguard.training.finetuning.checkpoint import Job, Run
from reviewguard.training.finetuning.trainer import TextTrainer, meet
from reviewguard.training.history import Epoch, History, Resumption

#: File that marks a finished run in its folder.
RESULT: Final = "result.json"
log = logging.getLogger(__name__)


def fine_tune(
    model: TextModel,
    tokenizer: Tokenizer,
    train: Rows,
    validation: Rows | None,
    *,
    loop: LoopConfig,
    seed: int,
    base: str,
    run: Run,
) -> History:
    """Train the parameters that require a gradient, and keep the epoch with the best macro F1 on validation rows.

    The learning rate depends only on the step and the total number of steps. A run resumed with more epochs therefore continues
    on the curve of a run that was planned with that many epochs from the start.

    Args:
        model: Model on the training device; changed in place.
        tokenizer: Tokenizer, which pads the batches.
        train: Rows to fit on.
        validation: Rows to choose the epoch by. None: the last epoch is kept.
        loop: Settings of the training loop.
        seed: Seed of the row order and of dropout.
        base: Identity of the base weights.
        run: Folder of the checkpoints, and whether to resume. Without a folder, there are no checkpoints, and the last epoch is
            kept.

    Raises:
        CheckpointError: If the run cannot be resumed, or would overwrite an unfinished run.
        ConfigError: If the batch sizes do not match, or the encoder does not support gradient checkpointing.
        TrainingError: If memory runs out or the loss is not finite.
        TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is on disk.
    """
    with _isolated_random(), _written_to(run.folder), tempfile.TemporaryDirectory() as scratch:
        trainer = TextTrainer(model, tokenizer, train, validation, loop, seed, run.folder, Path(scratch))
        job = Job(
            base=base,
            trainable={name: list(parameter.shape) for name, parameter in state.trainable(model)},
            rows=digest(train),
            order=f"seed {seed}, {loop.batch_size} rows a step",
        )
        plan = memory.plan(model, train.encoded, loop, trainer.micro_batch, trainer.dtype)
        if trainer.is_world_process_zero():
            log.info("fine-tuning %s", plan.to_text())
        if loop.gradient_checkpointing:
            assert isinstance(model.encoder, TransformerEncoder)
            try:
                model.encoder.transformer.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
            except ValueError as error:
                kind = type(model.encoder.transformer).__name__
                raise ConfigError(
                    f"{kind} does not support gradient checkpointing; set loop.gradient_checkpointing=false"
                ) from error
        start = None
        if run.folder is not None:
            if trainer.is_world_process_zero():
                run.folder.mkdir(parents=True, exist_ok=True)
                if not run.resume:
                    _make_room(run.folder)
            meet()
            if run.resume:
                start = checkpoint.find_start(
                    run.folder,
                    job,
                    processes=trainer.args.world_size,
                    optimizer=trainer.optimizer_name,
                    may_restart=run.resume == "if-possible",
                )
            meet()
            (run.folder / RESULT).unlink(missing_ok=True)
        with memory.explained(loop, plan):
            resumed = trainer.run(job, start)
        history = _history(trainer, plan.to_text() + memory.peak_text(trainer.args.device), resumed)
        if run.folder is not None and trainer.is_world_process_zero():
            _finish(run.folder, history)
            size = checkpoint.settle(run.folder, trainer.state.global_step, loop.checkpoints)
            history = msgspec.structs.replace(history, checkpoints_mib=size)
            _finish(run.folder, history)
        return history


def _finish(folder: Path, history: History) -> None:
    """Mark a run as finished."""
    files.replace(folder / RESULT, msgspec.json.format(msgspec.json.encode(history), indent=1))


@contextlib.contextmanager
def _written_to(folder: Path | None) -> Iterator[None]:
    """Turn write errors into an error that names the folder and the setting."""
    try:
        yield
    except ReviewGuardError:
        raise
    except OSError as error:
        where = "a temporary folder (TMPDIR)" if folder is None else f"the run's folder {folder}"
        raise TrainingError(
            f"training cannot write to {where}: {error}. Free some space, or choose another folder with run_dir (command line: "
            "--run-dir)"
        ) from error


def _make_room(folder: Path) -> None:
    """Remove the checkpoints of a finished run; refuse to remove those of an unfinished one."""
    checkpoints = checkpoint.listed(folder)
    if checkpoints and not (folder / RESULT).exists():
        raise CheckpointError(
            f"{folder} contains checkpoints of an unfinished run (the newest is {checkpoints[0].name}); pass resume=True to "
            "resume it (command line: --resume), choose another run_dir, or delete the folder"
        )
    for old in checkpoints:
        checkpoint.unseal(old)


def _history(trainer: TextTrainer, plan: str, resumed: list[Resumption]) -> History:
    log, model = trainer.state.log_history, trainer.text_model
    epochs = []
    for number in range(1, -(-trainer.state.global_step // trainer.steps_per_epoch) + 1):
        first, end = (number - 1) * trainer.steps_per_epoch, number * trainer.steps_per_epoch
        entries = [entry for entry in log if first < entry["step"] <= end]
        losses, rates = ([entry[name] for entry in entries if name in entry] for name in ("loss", "learning_rate"))
        evaluation = next((entry for entry in entries if "eval_f1" in entry), {})
        epochs.append(
            Epoch(
                epoch=number,
                step=min(end, trainer.state.global_step),
                loss=float(np.mean(losses)) if losses else None,
                learning_rate=rates[-1] if rates else None,
                f1=evaluation.get("eval_f1"),
                accuracy=evaluation.get("eval_accuracy"),
            )
        )
    return History(
        trainable=sum(parameter.numel() for _, parameter in state.trainable(model)),
        parameters=state.count(model),
        epochs=epochs,
        kept=trainer.state.best_global_step or trainer.state.global_step,
        resumed=resumed,
        memory=plan,
        precision="bf16" if trainer.dtype == torch.bfloat16 else "fp32",
        device=trainer.args.device.type,
        processes=trainer.args.world_size,
        run_dir=str(trainer.folder or ""),
    )


@contextlib.contextmanager
def _isolated_random() -> Iterator[None]:
    """Restore the caller's random generators afterwards: Trainer seeds all of them."""
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
