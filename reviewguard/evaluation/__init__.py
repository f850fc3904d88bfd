"""Reports on a model, and the bag of words that it has to beat."""
