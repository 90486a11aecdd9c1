"""Services that somebody holds at a release: no run deploys them until they are let go."""

from datetime import datetime

import attrs
import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.deploy.releases import of_service
from penstock.errors import ConflictError, NotFoundError, StepFailure
from penstock.state.rollout_tables import pins


@attrs.frozen
class Pin:
    """Who holds a service at which release, and why."""

    service: Service
    number: int
    actor: str
    why: str
    created_at: datetime

    def __str__(self) -> str:
        return f"release {self.number}, by {self.actor}" + (f": {self.why}" if self.why else "")


def pin_of(connection: sa.Connection, service: Service) -> Pin | None:
    """None when it is not held."""
    row = connection.execute(sa.select(pins).where(of_service(pins, service))).mappings().first()
    return None if row is None else Pin(service, row["number"], row["actor"], row["why"], row["created_at"])


def list_pins(connection: sa.Connection) -> list[Pin]:
    """All, by environment, project and service."""
    query = sa.select(pins).order_by(pins.c.environment, pins.c.project, pins.c.service)
    return [
        Pin(Service(row.project, row.environment, row.service), row.number, row.actor, row.why, row.created_at)
        for row in connection.execute(query)
    ]


def pin(connection: sa.Connection, service: Service, number: int, actor: str, why: str) -> Pin:
    """Hold it. Raises: ConflictError when somebody does."""
    if held := pin_of(connection, service):
        raise ConflictError(f"pinned to {held}", where=str(service), remedy="unpin it first")
    key = {"environment": service.environment, "project": service.project, "service": service.name}
    row = connection.execute(
        sa.insert(pins).values(number=number, actor=actor, why=why, **key).returning(pins.c.created_at)
    ).one()
    return Pin(service, number, actor, why, row.created_at)


def unpin(connection: sa.Connection, service: Service) -> Pin:
    """Let it go. Returns: how it was held. Raises: NotFoundError when it was not."""
    held = pin_of(connection, service)
    if held is None:
        raise NotFoundError(f"{service} is not pinned", remedy="see `penstock release list`")
    connection.execute(sa.delete(pins).where(of_service(pins, service)))
    return held


def follow(connection: sa.Connection, service: Service, number: int) -> None:
    """Somebody made another release live by hand: the service is held there, if it is held."""
    connection.execute(sa.update(pins).where(of_service(pins, service)).values(number=number))


def check_unpinned(connection: sa.Connection, service: Service) -> None:
    """Raises: StepFailure when runs must not deploy the service."""
    if held := pin_of(connection, service):
        raise StepFailure(
            f"not deployed: {service} is pinned to {held}",
            remedy="`penstock release unpin` lets runs deploy it again",
        )
