"""Metrics, reports, decision settings from held-out rows, and stress tests."""
