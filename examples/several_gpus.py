"""Fine-tune on as many GPUs as there are, or on CPUs; killed, it goes on from its last checkpoint.

    torchrun --nproc_per_node=4 --max-restarts=3 examples/several_gpus.py DATA [PRESET or RECIPE.toml]

The script is that of one process; the launcher says how many there are.
"""

from __future__ import annotations

import sys

from reviewguard import Classifier

if __name__ == "__main__":
    data, recipe = (*sys.argv[1:], "minilm-finetune")[:2]
    classifier = Classifier(recipe)
    print(classifier.train(data, run_dir="run", resume="if-possible"))
    classifier.save("model")  # only the first process writes
