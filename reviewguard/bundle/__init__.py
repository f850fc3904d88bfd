"""The folder that holds a trained model: manifest, files, model card, and the Hub."""
