"""Experiments of many runs on one identical split, with one report: comparison, ablation, transfer between sources."""

from reviewguard.experiments.ablate import ablate
from reviewguard.experiments.compare import compare
from reviewguard.experiments.experiment import Experiment
from reviewguard.experiments.jobs import Result
from reviewguard.experiments.transfer import transfer

__all__ = ["Experiment", "Result", "ablate", "compare", "transfer"]
