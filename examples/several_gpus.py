"""Fine-tune on all available GPUs, or on CPUs. An interrupted run resumes from its last checkpoint.

    torchrun --nproc_per_node=4 --max-restarts=3 examples/several_gpus.py DATA [PRESET or RECIPE.toml]

The script is the same as for a single process; the launcher sets the number of processes.
"""

from __future__ import annotations

import sys

from reviewguard import Classifier

if __name__ == "__main__":
    data, recipe = (*sys.argv[1:], "minilm-finetune")[:2]
    classifier = Classifier(recipe)
    print(classifier.train(data, run_dir="run", resume="if-possible"))
    classifier.save("model")  # only the first process writes
