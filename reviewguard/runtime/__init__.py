"""Prediction from an export: which engine computes its logits, and how. Nothing here imports torch."""
