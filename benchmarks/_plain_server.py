"""Handlers that a user might write, for benchmarks/serving.py.

python benchmarks/_plain_server.py {reviewguard,pipeline} FOLDER PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """A text."""

    text: str


def reviewguard(folder: str) -> Callable[[str], Any]:
    """`predict_detailed` of one text."""
    from reviewguard import Classifier

    classifier = Classifier.from_pretrained(folder, runtime="onnxruntime", precision="int8", threads=1)
    return lambda text: classifier.predict_detailed([text])[0].scores


def pipeline(folder: str) -> Callable[[str], Any]:
    """The pipeline of transformers, as in its documentation."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return lambda text: classify(text, truncation=True, max_length=256)[0]


def main() -> None:
    """Serve one text a request, as in FastAPI's documentation: a plain function, which runs in a thread."""
    kind, folder, port = sys.argv[1:]
    answer = {"reviewguard": reviewguard, "pipeline": pipeline}[kind](folder)
    api = FastAPI()

    @api.get("/readyz")
    def ready() -> dict[str, str]:
        return {}

    @api.post("/predict")
    def predict(body: Body) -> Any:
        return answer(body.text)

    uvicorn.run(api, port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
