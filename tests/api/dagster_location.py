"""What the Dagster of the tests has loaded: a job whose second step fails, and one that waits."""

import time

import dagster as dg


@dg.op
def first() -> int:
    """What a rerun takes over."""
    return 1


@dg.op
def second(first: int) -> None:
    """What a rerun runs again."""
    raise dg.Failure(f"always, after {first}", allow_retries=False)


@dg.op
def wait() -> None:
    """Until it is stopped."""
    time.sleep(3600)


@dg.job(executor_def=dg.in_process_executor)
def breaks() -> None:
    """Fails at its second step."""
    second(first())


@dg.job(executor_def=dg.in_process_executor)
def waits() -> None:
    """Never ends by itself."""
    wait()


defs = dg.Definitions(jobs=[breaks, waits])
