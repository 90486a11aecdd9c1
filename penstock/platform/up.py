"""Everything up: the database, the parts, the token; and down again, with nothing left behind."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from penstock.api.tokens import ensure_local_token
from penstock.deploy.rollout import recover
from penstock.images.leftovers import noted_runs, remove_of_run
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.local_runs import close_abandoned
from penstock.pipeline.records import unfinished_runs
from penstock.platform.parts import (
    checkout,
    create_dagster_tables,
    database_part,
    keep_database_address,
    keep_mail_address,
    platform_parts,
    port_variables,
    write_configuration,
)
from penstock.platform.supervisor import Supervisor, check_ports, only_one
from penstock.settings import Settings, create_home
from penstock.state.database import create_engine, hosted_database, migrate
from penstock.state.embedded import EmbeddedPostgres
from penstock.warehouse import Warehouse
from penstock.warehouse.home import warehouse_location

Say = Callable[[str], None]


@contextmanager
def platform(settings: Settings, on_ready: Say, on_event: Say) -> Iterator[sa.Engine]:
    """
    A whole Penstock for as long as the block runs.

    on_ready: told the name of each part that answers. on_event: told what happens to parts later.
    Raises: ConflictError when one runs here already, SettingsError for a port that is taken.
    """
    checkout()
    create_home(settings)
    with ExitStack() as stack:
        stack.enter_context(only_one(settings))
        check_ports(port_variables(settings))
        write_configuration(settings)
        stack.enter_context(_database(settings, on_event))
        on_ready("postgres")
        database = create_engine(settings)
        stack.callback(database.dispose)
        migrate(database)
        keep_database_address(settings)
        keep_mail_address(settings)
        create_dagster_tables(settings, database)
        ensure_local_token(database, settings)
        supervisor = Supervisor(platform_parts(settings), on_event, _end_this_process)
        supervisor.start()
        stack.callback(supervisor.stop)
        with Warehouse(warehouse_location(settings)) as warehouse:
            warehouse.create()  # meanwhile, so that readers find its tables before the first run
        supervisor.wait_until_ready(on_ready)
        recover(database, settings, on_event, CancelToken())
        close_abandoned(settings, database)
        for run_id in sorted({*noted_runs(settings)} - {*unfinished_runs(database)}):
            remove_of_run(settings, run_id)
        yield database


def _end_this_process() -> None:
    """As somebody from outside would ask it to."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _database(settings: Settings, on_event: Say) -> Iterator[None]:
    """The database first and last: the parts cannot do without it, neither at their beginning nor at their end."""
    part = database_part(settings)
    if part is None:
        with hosted_database(settings):
            yield
        return
    server = EmbeddedPostgres(settings.home)
    server.stop_leftover()
    with server.in_use():
        server.prepare()
        supervisor = Supervisor([part], on_event, _end_this_process)
        supervisor.start()
        try:
            supervisor.wait_until_ready(lambda _: None)
            server.create_database()
            yield
        finally:
            supervisor.stop()
