"""A fine-tuning run from its settings to its history."""

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
from reviewguard.errors import CheckpointError, ReviewGuardError, TrainingError
from reviewguard.models.text_model import TextModel
from reviewguard.training.finetuning import checkpoint, memory, state
from reviewguard.training.finetuning.batches import Rows, digest
from reviewguard.training.finetuning.checkpoint import Job, Run
from reviewguard.training.finetuning.trainer import TextTrainer, meet
from reviewguard.training.history import Epoch, History, Resumption

#: Written into the run's folder when it has ended.
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
    """Train the parameters that require a gradient, and keep the epoch with the best macro F1 on validation.

    The learning rate is a function of the step and of the number of all steps. A run resumed with more epochs therefore follows,
    from where it is, the curve of a run that was planned so long from the start.

    Args:
        model: On the device to train on; changed in place.
        tokenizer: Pads the batches.
        train: Rows to learn from.
        validation: Rows to choose the epoch by; None: the last one is kept.
        loop: Settings.
        seed: Of the order of the rows and of dropout.
        base: Identity of the weights that are not trained.
        run: Where checkpoints go; without a folder there are none, and the last epoch is kept.

    Raises:
        CheckpointError: If it cannot resume, or an unfinished run would be overwritten.
        ConfigError: If batch sizes do not fit together.
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
            model.encoder.transformer.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
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
    """Say of a file that cannot be written which folder and which setting that is about."""
    try:
        yield
    except ReviewGuardError:
        raise
    except OSError as error:
        where = "a temporary folder (TMPDIR)" if folder is None else f"the run's folder {folder}"
        raise TrainingError(
            f"training cannot write to {where}: {error}. Make room, or name another folder with run_dir (command line: --run-dir)"
        ) from error


def _make_room(folder: Path) -> None:
    """Clear what a finished run left; an unfinished one is somebody's work."""
    found = checkpoint.listed(folder)
    if found and not (folder / RESULT).exists():
        raise CheckpointError(
            f"{folder} holds checkpoints of an unfinished run (the newest is {found[0].name}); pass resume=True to go on with it "
            "(command line: --resume), give another run_dir, or delete the folder"
        )
    for old in found:
        checkpoint.unseal(old)


def _history(trainer: TextTrainer, plan: str, resumed: list[Resumption]) -> History:
    log, model = trainer.state.log_history, trainer.text_model
    epochs = []
    for number in range(1, -(-trainer.state.global_step // trainer.steps_per_epoch) + 1):
        first, end = (number - 1) * trainer.steps_per_epoch, number * trainer.steps_per_epoch
        own = [entry for entry in log if first < entry["step"] <= end]
        losses, rates = ([entry[name] for entry in own if name in entry] for name in ("loss", "learning_rate"))
        judged = next((entry for entry in own if "eval_f1" in entry), {})
        epochs.append(
            Epoch(
                epoch=number,
                step=min(end, trainer.state.global_step),
                loss=float(np.mean(losses)) if losses else None,
                learning_rate=rates[-1] if rates else None,
                f1=judged.get("eval_f1"),
                accuracy=judged.get("eval_accuracy"),
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
    """Leave the caller's random generators as they were: Trainer seeds all of them."""
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
