"""Model soups: averaged weights of runs that start from the same weights (Wortsman et al. 2022, arXiv:2203.05482).

The runs find nearby solutions, and their average does better than any of them, above all on out-of-domain texts. It is as large
and as fast as one model.
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
    """One run per seed, each in its own subfolder of the run's folder. A single run uses that folder itself.

    Raises:
        CheckpointError: If only some of the runs are finished, and `run.resume` is not set.
    """
    if run.folder is None or len(seeds) == 1:
        return [run for _ in seeds]
    folders = [run.folder / f"seed-{seed}" for seed in seeds]
    finished = [(folder / RESULT).exists() for folder in folders]
    if not run.resume and any(finished) and not all(finished):
        raise CheckpointError(
            f"{run.folder} contains {sum(finished)} finished runs of {len(seeds)}; pass resume=True to resume the others "
            "(command line: --resume), choose another run_dir, or delete the folder"
        )
    meet()  # no process starts before all have checked
    first, *others = folders
    # If the first run resumes, later ones may not have started yet.
    return [Run(folder=first, resume=run.resume), *(Run(folder=folder, resume=run.resume and "if-possible") for folder in others)]


def average(contents: Sequence[bytes]) -> bytes:
    """Average the weights of several models, each serialised by `state.weights`."""
    models = [load(content) for content in contents]
    return save({name: torch.stack([model[name] for model in models]).mean(dim=0) for name in models[0]})
