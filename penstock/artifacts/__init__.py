"""Artifacts: bytes by their SHA-256, in a folder or an object store."""

from penstock.artifacts.store import ArtifactStore, Blob, open_store

__all__ = ["ArtifactStore", "Blob", "open_store"]
