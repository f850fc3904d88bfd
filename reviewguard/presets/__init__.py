"""Recipes in TOML, one file each; the file's name is the preset's name."""
