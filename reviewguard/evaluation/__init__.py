"""Metrics, reports, decisions set on held-out rows, and stress tests."""
