"""Training: from labelled rows to a model."""
