"""Read, clean and split labelled texts."""
