"""Compare approaches on the same rows: a report that a sceptic can check, with a bag of words beside them.

    python examples/compare.py [DATA]

Runs are processes of their own, hence the guard at the end. Stopped, it goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reviewguard.experiments import compare

DATA = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("sample_reviews.csv"))

if __name__ == "__main__":
    experiment = compare(DATA, ["minilm-logreg"], out="compared", seeds=[1], max_fpr=0.2)
    print(experiment)
    print("the whole report: compared/report.html")
