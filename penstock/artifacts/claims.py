"""
Who writes an artifact that is there already, and who removes it at the same moment, see each other.

The writer puts down a claim and then looks for a mark; the remover puts down its mark and then looks for a claim.
Object stores and folders show a thing as soon as it is written, so at least one of the two sees the other: the remover
spares what is claimed, the writer waits until the marked one is gone or spared, and looks again.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# A remover that died leaves its mark; one that lives needs it for two or three requests.
MARK_COUNTS = timedelta(seconds=30)
PAUSE_S = 0.05


def claim(backend: "ObjectStore", digest: str) -> None:
    """The blob is about to be recorded. Returns when nobody is about to remove it. Raises: BaseError."""
    import obstore

    obstore.put(backend, claim_name(digest), b"")
    waited = timedelta()
    while waited < MARK_COUNTS and (age := _age(backend, mark_name(digest))) is not None and age < MARK_COUNTS:
        time.sleep(PAUSE_S)
        waited += timedelta(seconds=PAUSE_S)


def mark(backend: "ObjectStore", digest: str) -> None:
    """The blob is about to be removed. Raises: BaseError."""
    import obstore

    obstore.put(backend, mark_name(digest), b"")


def unmark(backend: "ObjectStore", digest: str) -> None:
    """It has been removed, or spared. Raises: BaseError."""
    drop(backend, mark_name(digest))


def claimed_since(backend: "ObjectStore", digest: str, since: datetime) -> bool:
    """Whether somebody claimed it after `since`. Raises: BaseError."""
    made = modified_at(backend, claim_name(digest))
    return made is not None and made >= since


def modified_at(backend: "ObjectStore", name: str) -> datetime | None:
    """When an object was written; None when there is none. Raises: BaseError."""
    import obstore

    try:
        return obstore.head(backend, name)["last_modified"]
    except FileNotFoundError:
        return None


def drop(backend: "ObjectStore", name: str) -> None:
    """Delete an object; one that is not there is fine. Raises: BaseError."""
    import obstore

    try:
        obstore.delete(backend, name)
    except FileNotFoundError:
        return


def _age(backend: "ObjectStore", name: str) -> timedelta | None:
    made = modified_at(backend, name)
    return None if made is None else datetime.now(UTC) - made


def claim_name(digest: str) -> str:
    """The claim of a blob."""
    return f"claims/{digest}"


def mark_name(digest: str) -> str:
    """The mark of a blob that is about to be removed."""
    return f"marks/{digest}"
