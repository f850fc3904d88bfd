"""A model soup: the average, weight by weight, of runs that began with the same weights (Wortsman et al. 2022, arXiv:2203.05482).

Each run finds a solution near the others', and between them lies one that does better than any, above all on texts unlike those
trained on. It is as large and as fast as one model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load, save

from reviewguard.errors import CheckpointError
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.finetuning.loop import RESULT
from reviewguard.training.finetuning.trainer import meet


def runs_of(run: Run, seeds: Sequence[int]) -> list[Run]:
    """One run a seed, each in a folder of its own below the one of all; a single one has that folder to itself.

    Raises:
        CheckpointError: If some of them are finished, some are not, and they are not to go on.
    """
    if run.folder is None or len(seeds) == 1:
        return [run for _ in seeds]
    folders = [run.folder / f"seed-{seed}" for seed in seeds]
    finished = [(folder / RESULT).exists() for folder in folders]
    if not run.resume and any(finished) and not all(finished):
        raise CheckpointError(
            f"{run.folder} holds {sum(finished)} finished runs of {len(seeds)}; pass resume=True to go on with the others "
            "(command line: --resume), give another run_dir, or delete the folder"
        )
    meet()  # nobody begins before all have looked
    first, *others = folders
    # Where the first goes on, a later one may not have begun.
    return [Run(folder=first, resume=run.resume), *(Run(folder=one, resume=run.resume and "if-possible") for one in others)]


def average(contents: Sequence[bytes]) -> bytes:
    """The mean of weights, as `state.weights` gives them."""
    models = [load(content) for content in contents]
    return save({name: torch.stack([model[name] for model in models]).mean(dim=0) for name in models[0]})
