"""What can be wrong with a stored blob. Neither is the step's fault: both end it as infra_error."""

from penstock.errors import PlatformError


class BlobLost(PlatformError):
    """A blob that is on record is not in the store."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            "the store has lost it", where=f"artifact {digest[:12]}", remedy="run the step that makes it again"
        )


class BlobDamaged(PlatformError):
    """A blob's bytes are not those that were stored."""

    def __init__(self, digest: str, found: str) -> None:
        super().__init__(
            f"the stored bytes are damaged: their hash is {found[:12]}…",
            where=f"artifact {digest[:12]}",
            remedy="run the step that makes it again",
        )
