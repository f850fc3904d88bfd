"""Reading, cleaning and splitting of labelled texts."""
