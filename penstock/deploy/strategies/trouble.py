"""What ends every strategy's way forward."""

from penstock.deploy.strategies import Observed


def trouble(seen: Observed) -> str:
    """In words, why the new release must not go on; nothing when it may."""
    if seen.command == "abort":
        return "aborted"
    if seen.new.failed:
        return "an instance of the new release failed"
    if seen.verified is False:
        return "the verification failed"
    return ""
