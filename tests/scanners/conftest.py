"""A step's context over real parts: the process engine, an artifact store in a folder, tools installed once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.artifacts.store import open_store
from penstock.engines import open_engine
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings, load_settings
from penstock.steps.context import RunInfo, StepContext


class RecordedLog:
    """Keeps what a step prints."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.printed = b""

    def line(self, text: str) -> None:
        self.lines.append(text)

    def output(self, chunk: bytes) -> None:
        self.printed += chunk

    def tail(self, lines: int) -> tuple[str, ...]:
        return tuple(self.printed.decode(errors="replace").splitlines()[-lines:])


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One PENSTOCK_HOME for all tests of scanners, so that each tool is installed once."""
    return load_settings({"PENSTOCK_HOME": str(tmp_path_factory.mktemp("home"))})


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def log() -> RecordedLog:
    return RecordedLog()


@pytest.fixture
def context(settings: Settings, workspace: Path, log: RecordedLog, tmp_path: Path) -> StepContext:
    run = RunInfo("run-1", "shop", "c" * 40, "refs/heads/main", "g" * 64, "s" * 64)
    return StepContext(
        run=run,
        settings=settings,
        workspace=workspace,
        engine=open_engine(settings),
        store=open_store(str(tmp_path / "store")),
        log=log,
        token=CancelToken(),
        defaults_env={},
        find_published=lambda _key, _ref: None,
        upstream_artifacts=lambda _step: (),
        undecided=lambda _step: (),
        holds=lambda _step, _condition: True,
        database=sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/never-connected"),
        platform_up=False,
    )


@pytest.fixture
def write(workspace: Path) -> Callable[[str, str], Path]:
    """write(path, text) puts a file into the workspace."""

    def put(path: str, text: str) -> Path:
        target = workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    return put
