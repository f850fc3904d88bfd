"""Exports that are checked before they are written."""
