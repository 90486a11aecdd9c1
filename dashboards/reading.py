"""What the pages read: Penstock's state as it is now and the warehouse's tables, cached for seconds."""

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import attrs
import pandas as pd
import streamlit as st

from penstock.deploy.releases import Release, live_releases, service_url
from penstock.errors import NotFoundError
from penstock.pipeline.records import RunRecord, StepRecord, list_runs, list_steps, load_run
from penstock.settings import Settings, load_settings
from penstock.sources.projects import Project, list_projects
from penstock.state.database import create_engine
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.views import Reader

if TYPE_CHECKING:
    import sqlalchemy as sa

RUN_LIMIT = 500


@attrs.frozen
class LiveService:
    """A release that answers now, and its address (None until traffic was first sent to it)."""

    release: Release
    url: str | None


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """The settings of this process. Raises: SettingsError."""
    return load_settings()


@st.cache_resource(show_spinner=False)
def database() -> "sa.Engine":
    """One engine for all sessions."""
    return create_engine(settings())


@st.cache_resource(show_spinner=False)
def reader() -> Reader:
    """One read-only connection to the warehouse for all sessions."""
    return Reader(warehouse_location(settings()))


def lake(question: Callable[..., pd.DataFrame], **parameters: Any) -> pd.DataFrame:
    """
    The answer of a query of `penstock.warehouse`, at most five seconds old; a frame without columns while there is no
    warehouse.
    """
    return _answer(question, tuple(sorted(parameters.items())))


def _name(question: Callable[..., Any]) -> str:
    return f"{question.__module__}.{question.__qualname__}"


@st.cache_data(ttl=5, show_spinner=False, max_entries=200, hash_funcs={FunctionType: _name})
def _answer(question: Callable[..., pd.DataFrame], parameters: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    try:
        return reader().ask(question, **dict(parameters))
    except NotFoundError:
        return pd.DataFrame()


@st.cache_data(ttl=2, show_spinner=False)
def projects() -> tuple[Project, ...]:
    """Every connected repository, by name."""
    return list_projects(database())


@st.cache_data(ttl=2, show_spinner=False)
def recent_runs(project: str | None = None) -> tuple[RunRecord, ...]:
    """The newest runs, at most RUN_LIMIT, newest first."""
    return list_runs(database(), project=project, limit=RUN_LIMIT)


@st.cache_data(ttl=1, show_spinner=False)
def run_and_steps(run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
    """A run as it is now, and its steps in the order of starting. Raises: NotFoundError."""
    return load_run(database(), run_id), list_steps(database(), run_id)


@st.cache_data(ttl=2, show_spinner=False)
def live_services() -> tuple[LiveService, ...]:
    """Everything that answers now, by environment, project and service."""
    engine = database()
    return tuple(LiveService(each, service_url(engine, each.service)) for each in live_releases(engine))


def on_default_branch(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of `found` that are on their project's default branch (main where the project is not connected)."""
    if found.empty:
        return found
    defaults = {project.name: project.default_branch for project in projects()}
    return found[found["branch"] == found["project"].map(lambda name: defaults.get(name, "main"))]
