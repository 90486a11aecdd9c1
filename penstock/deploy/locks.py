"""One deployment at a time per service: an advisory lock that lives exactly as long as its connection."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.pipeline.cancel import CancelToken

ASK_EVERY_S = 0.1


def lock_number(service: Service) -> int:
    """The advisory lock's number: 64 bits, signed."""
    name = "\0".join((service.environment, service.project, service.name))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


@contextmanager
def service_lock(
    engine: sa.Engine, service: Service, log: Callable[[str], None], token: CancelToken
) -> Iterator[sa.Connection]:
    """
    The right to deploy `service`, waited for if need be, and the connection that it hangs on.

    What must not be done without the lock is done on this connection: when it is lost, so is the lock.
    Raises: Cancelled while waiting.
    """
    with _own_connection(engine) as connection:
        waited = False
        while not try_lock(connection, service):
            if not waited:
                log(f"waiting for the deployment of {service} that is under way")
            waited = True
            token.wait(ASK_EVERY_S)
            token.raise_if_cancelled()
        yield connection


@contextmanager
def free_service(engine: sa.Engine, service: Service) -> Iterator[sa.Connection | None]:
    """The connection that holds the service's lock; None when somebody else holds it."""
    with _own_connection(engine) as connection:
        yield connection if try_lock(connection, service) else None


@contextmanager
def _own_connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One that ends with the block: given back to the pool, it would keep its locks."""
    with engine.connect() as connection:
        connection.detach()
        yield connection


def try_lock(connection: sa.Connection, service: Service) -> bool:
    """Take the session's lock if nobody has it."""
    with connection.begin():
        return bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(lock_number(service)))).scalar())
