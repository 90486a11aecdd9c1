"""The plugins that come with Penstock: each passes its own cases, run as the platform runs it."""

from pathlib import Path

import pytest

from penstock.engines.process import bubblewrap
from penstock.pipeline.cancel import CancelToken
from penstock.plugins.catalog import DELIVERED
from penstock.plugins.folder import examine
from penstock.plugins.kit import read_cases, run_case
from penstock.plugins.registries.local import assemble
from penstock.settings import Settings, create_home, load_settings

NAMES = sorted(path.name for path in DELIVERED.iterdir() if (path / "plugin.yaml").is_file())
CASES = [(name, case.name) for name in NAMES for case in read_cases(DELIVERED / name)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One home, so that a plugin's packages are installed once."""
    settings = load_settings({"PENSTOCK_HOME": str(tmp_path_factory.mktemp("home"))})
    create_home(settings)
    return settings


def test_every_plugin_that_was_promised_is_delivered() -> None:
    """Eight, each with manifest, architecture and docs."""
    assert NAMES == ["code-size", "coverage", "gitleaks", "licenses", "notify", "sbom", "semgrep", "trivy"]
    for name in NAMES:
        assert [str(one) for one in examine(DELIVERED / name).complaints] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_delivered_plugin_passes_its_case(shared: Settings, tmp_path: Path, name: str, case: str) -> None:
    """On the process engine, isolated where bubblewrap is; with its packages from its lock."""
    folder = assemble(DELIVERED / name, tmp_path)
    examined = examine(folder)
    assert examined.folder is not None
    wanted = next(one for one in read_cases(folder) if one.name == case)
    printed: list[str] = []
    came = run_case(examined.folder, wanted, shared, printed.append, CancelToken())
    assert not came.wrong, "\n".join([*came.wrong, *printed])
    assert bubblewrap() is not None
