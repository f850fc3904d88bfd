"""Compare approaches, including the TF-IDF baseline, on the same rows and write a report.

    python examples/compare.py [DATA]

Each run is a separate process, so the script needs the `__main__` guard. If it is interrupted, the next call resumes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reviewguard.experiments import compare

DATA = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("sample_reviews.csv"))

if __name__ == "__main__":
    experiment = compare(DATA, ["minilm-logreg"], out="compared", seeds=[1], max_fpr=0.2)
    print(experiment)
    print("full report: compared/report.html")
