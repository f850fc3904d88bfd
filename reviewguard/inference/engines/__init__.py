"""Engines that compute the logits of an export. Nothing here imports torch."""
