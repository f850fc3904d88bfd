"""Reads {folder, texts} as JSON, and prints what optimum answers to each text. Runs in an environment of its own."""

import json
import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

job = json.load(sys.stdin)
model = ORTModelForSequenceClassification.from_pretrained(job["folder"])
tokenizer = AutoTokenizer.from_pretrained(job["folder"])
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
json.dump(classify(job["texts"], top_k=None, truncation=True), sys.stdout)
