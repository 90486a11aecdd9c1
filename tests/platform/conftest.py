"""One home for all tests of the platform; the platform on it is started when a test wants it."""

import shutil
from collections.abc import Iterator

import pytest
from penstock_running import Penstock


@pytest.fixture(scope="session")
def home_of_all() -> Iterator[Penstock]:
    """A home where nothing is yet when the first test comes."""
    penstock = Penstock(PENSTOCK_ALLOW_PRIVATE_HOSTS="127.0.0.1")  # where the tests' forges are
    yield penstock
    if penstock.process is not None:
        if penstock.process.poll() is None:
            penstock.down()
        print(penstock.output.read_text())  # pytest shows it where a test has failed
    shutil.rmtree(penstock.folder, ignore_errors=True)


@pytest.fixture
def penstock(home_of_all: Penstock) -> Penstock:
    """A platform that runs."""
    home_of_all.up(*(["--no-example"] if home_of_all.home.exists() else []))
    return home_of_all
