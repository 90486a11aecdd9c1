"""Who has which name: those of live releases, of releases on their way, and of those that these may go back to."""

import sqlalchemy as sa

from penstock.deploy.caddy import caddy_folder
from penstock.deploy.front import running_front
from penstock.deploy.plan import DeploymentPlan, Service
from penstock.deploy.releases import of_service
from penstock.errors import StepFailure
from penstock.settings import Settings
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import releases, routes

CLAIM_LOCK = 7_036_873  # an advisory lock's number: any, but always the same
_OPEN = ("requested", "going")


def check_claims(connection: sa.Connection, plan: DeploymentPlan, settings: Settings) -> None:
    """
    Whether the plan's service may have its names; call it in the transaction that makes the release.

    Raises: StepFailure when names are not served here, or another service has one of them.
    """
    wanted = plan.configuration.domains
    if not wanted:
        return
    if running_front(caddy_folder(settings), settings) is None:
        remedy = "set PENSTOCK_HTTP_PORT and PENSTOCK_HTTPS_PORT and start Penstock again, or leave `domains` out"
        raise StepFailure(f"{wanted[0]} cannot be served: names are off here", where=str(plan.service), remedy=remedy)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CLAIM_LOCK)))
    owners = _owners(connection)
    for domain in wanted:
        for owner in owners.get(domain, []):
            if owner != plan.service:
                remedy = "take it from there first, or leave it out here"
                raise StepFailure(f"{domain} is the name of {owner}", where=str(plan.service), remedy=remedy)


def _owners(connection: sa.Connection) -> dict[str, list[Service]]:
    may_return = sa.select(rollouts.c.former_id).where(rollouts.c.state.in_(_OPEN), rollouts.c.former_id.is_not(None))
    condition = sa.or_(releases.c.state.in_(("live", "pending")), releases.c.id.in_(may_return))
    domains = releases.c.configuration["domains"]
    query = sa.select(releases.c.project, releases.c.environment, releases.c.service, domains.label("domains"))
    found: dict[str, list[Service]] = {}
    for row in connection.execute(query.where(condition)):
        for domain in row.domains or ():
            found.setdefault(domain, []).append(Service(row.project, row.environment, row.service))
    return found


def live_names(connection: sa.Connection) -> dict[str, int]:
    """Name → port of the service whose live release has it; the one that had it first, should there be two."""
    domains = releases.c.configuration["domains"]
    query = sa.select(routes.c.port, domains.label("domains")).join(releases, releases.c.id == routes.c.release_id)
    found: dict[str, int] = {}
    for row in connection.execute(query.order_by(releases.c.live_at, routes.c.port)):
        for domain in row.domains or ():
            found.setdefault(domain, row.port)
    return found


def names_of(connection: sa.Connection, service: Service) -> list[str]:
    """Those of the service's live release."""
    port = connection.execute(sa.select(routes.c.port).where(of_service(routes, service))).scalar()
    return [name for name, its_port in live_names(connection).items() if its_port == port]
