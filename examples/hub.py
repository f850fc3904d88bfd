"""Upload a model to the Hugging Face Hub and load it again.

    python examples/hub.py FOLDER OWNER/NAME

FOLDER is a model folder written by `save` or `export`. Log in first (`hf auth login`) or set HF_TOKEN.
"""

from __future__ import annotations

import sys

from reviewguard import Classifier

if __name__ == "__main__":
    folder, repo = sys.argv[1:]
    commit = Classifier.from_pretrained(folder).push_to_hub(repo, private=True)
    print(f"uploaded to {repo}, commit {commit}")
    again = Classifier.from_pretrained(repo, revision=commit)
    print(again.predict(["Great product, works as described."]))
