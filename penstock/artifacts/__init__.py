"""Artifacts: bytes by their SHA-256, in a folder or an object store."""

from penstock.artifacts.errors import BlobDamaged, BlobLost
from penstock.artifacts.store import ArtifactStore, Blob, Kind, StoredBlob, open_store

__all__ = ["ArtifactStore", "Blob", "BlobDamaged", "BlobLost", "Kind", "StoredBlob", "open_store"]
