"""Prediction: scoring, decisions, streaming and engines. Nothing here imports torch."""
