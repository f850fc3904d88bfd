"""A small manifest that tests change to their needs."""

from __future__ import annotations

from reviewguard.bundle.manifest import FORMAT_VERSION, Manifest

PLAIN = Manifest(
    format_version=FORMAT_VERSION,
    reviewguard_version="0.1.0",
    classes=["fake", "real"],
    positive="fake",
    normalization="typography",
    max_length=32,
    head="linear",
    recipe={"backend": "logreg"},
    training=None,
    data_sha256="0" * 64,
)
