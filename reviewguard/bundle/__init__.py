"""The folder that holds a trained model: manifest, files and model card; transfer to and from the Hub."""
