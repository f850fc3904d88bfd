"""The engines that compute an export's logits. Nothing here imports torch."""
