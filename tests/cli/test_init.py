"""`penstock init`: a pipeline that fits, in real repositories."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from penstock.cli.init import init
from penstock.errors import ConflictError, InputError
from penstock.pipeline.initial import Listing, propose
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import compile_graph

TEST = {"tests/test_a.py": "import pytest\n\n\ndef test_a():\n    pass\n"}
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
Repository = Callable[[dict[str, str]], Path]


def listing(files: dict[str, str]) -> Listing:
    return Listing(frozenset(files), lambda path: files[path])


def commands(files: dict[str, str], step: str = "test") -> tuple[str, ...]:
    """The commands of a proposed step, after the whole proposal was validated."""
    found = compile_graph(load_spec(propose(listing(files)).encode())).step(step)
    return tuple(found.commands)  # type: ignore[attr-defined]


def names(files: dict[str, str]) -> list[str]:
    return [step.name for step in load_spec(propose(listing(files)).encode()).steps]


def step(files: dict[str, str], name: str) -> dict[str, object]:
    return compile_graph(load_spec(propose(listing(files)).encode())).step(name).model_dump(exclude_none=True)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "repository"
        root.mkdir()
        subprocess.run(["git", "init", "--quiet", root], check=True)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    return make


# What is proposed


def test_python_with_an_extra_for_tests_installs_it():
    """`[test]` wins over `[dev]`; pytest is there by it."""
    files = {
        **TEST,
        "pyproject.toml": SETUPTOOLS + '[project.optional-dependencies]\ndev = ["ruff"]\ntest = ["pytest"]\n',
    }
    assert "pip install --quiet -e '.[test]'" in commands(files)
    assert not [command for command in commands(files) if command.endswith(" pytest")]


def test_python_with_dependency_groups_installs_the_group():
    """It needs a newer pip than many a Python brings."""
    files = {**TEST, "pyproject.toml": SETUPTOOLS + '[dependency-groups]\ndev = ["pytest"]\n'}
    found = commands(files)
    assert "pip install --quiet -e . --group dev" in found
    assert found.index("pip install --quiet --upgrade pip") < found.index("pip install --quiet -e . --group dev")


def test_python_takes_of_developers_only_what_brings_pytest():
    """An extra `dev` with a build tool is left out when a group `dev` has pytest."""
    pyproject = SETUPTOOLS + '[project.optional-dependencies]\ndev = ["build"]\n[dependency-groups]\ndev = ["pytest"]\n'
    assert "pip install --quiet -e . --group dev" in commands({**TEST, "pyproject.toml": pyproject})


def test_python_by_setup_py_installs_its_extra():
    """Old projects say it in code."""
    files = {**TEST, "setup.py": 'setup(name="a", extras_require={"docs": [], "tests": ["pytest"]})'}
    assert "pip install --quiet -e '.[tests]'" in commands(files)


def test_python_by_setup_cfg_installs_its_extra():
    """Or in setup.cfg."""
    files = {**TEST, "setup.py": "setup()", "setup.cfg": "[options.extras_require]\ntesting =\n    pytest\n"}
    assert "pip install --quiet -e '.[testing]'" in commands(files)


def test_python_with_requirements_files_installs_them():
    """Nothing to install as a project: both files, and pytest by the second."""
    files = {**TEST, "requirements.txt": "flask\n", "requirements-dev.txt": "pytest\n"}
    assert commands(files)[2:] == (
        "pip install --quiet -r requirements.txt -r requirements-dev.txt",
        "python -m pytest -q --junitxml=reports/junit.xml",
    )


def test_python_with_tox_takes_what_it_names():
    """Plain names only: lines for one factor, files and substitutions are tox's own."""
    tox = "[testenv]\ndeps =\n    pytest>=7\n    hypothesis\n    py39: old\n    -r more.txt\n    {env:EXTRA}\n"
    files = {**TEST, "setup.py": "setup()", "tox.ini": tox}
    assert "pip install --quiet -e . 'pytest>=7' 'hypothesis'" in commands(files)


def test_python_by_poetry_uses_poetry():
    """A lock of Poetry's can only be read by it."""
    files = {
        **TEST,
        "pyproject.toml": '[tool.poetry]\nname = "a"\n[tool.poetry.group.dev.dependencies]\npytest = "*"\n',
    }
    assert "poetry install --no-interaction --quiet" in commands(files)


def test_python_without_anything_to_install_gets_pytest():
    """A folder of files."""
    files = {"a.py": "", "test_a.py": "def test_a():\n    pass\n"}
    assert commands(files)[2:] == ("pip install --quiet pytest", "python -m pytest -q --junitxml=reports/junit.xml")


@pytest.mark.parametrize(
    ("place", "discover"),
    [
        ("test_a.py", "discover"),
        ("tests/test_a.py", "discover -s tests"),
        ("tests/x/test_a.py", "discover -s tests -t ."),
    ],
)
def test_python_with_unittest_alone_runs_unittest(place: str, discover: str):
    """By a runner that writes reports, from where unittest finds the tests."""
    files = {place: "import unittest\n\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        pass\n"}
    if "-t" in discover:
        files |= {"tests/__init__.py": "", "tests/x/__init__.py": ""}
    assert commands(files)[-1] == f"python -m xmlrunner {discover} -o reports"
    assert step(files, "test")["reports"] == {"junit": "reports/*.xml"}


def test_python_in_src_that_is_no_project_is_importable():
    """PYTHONPATH, since nothing is installed."""
    assert step({**TEST, "src/a.py": ""}, "test")["env"] == {"PYTHONPATH": "src"}


@pytest.mark.parametrize("tool", ["setuptools_scm", "setuptools-scm", "hatch-vcs"])
def test_version_from_git_is_given_by_a_variable(tool: str):
    """A step's workspace holds no .git."""
    files = {**TEST, "pyproject.toml": f'[build-system]\nrequires = ["{tool}"]\n'}
    assert step(files, "test")["env"] == {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.0"}


def test_tests_write_a_report_and_may_install():
    """The step decides the check `tests`, and has a network to install from."""
    found = step({**TEST, "setup.py": "setup()"}, "test")
    assert found["reports"] == {"junit": "reports/junit.xml"}
    assert found["network"] is True


def test_python_without_tests_is_compiled():
    """Without network."""
    assert names({"a.py": ""}) == ["compile", "scan"]


def test_django_project_runs_its_own_tests():
    """Unless it uses pytest."""
    files = {"manage.py": "", "shop/tests.py": "", "requirements.txt": "django\n"}
    assert commands(files)[-1] == "python manage.py test"
    assert commands({**files, "pytest.ini": "[pytest]\n"})[-1].startswith("python -m pytest")


@pytest.mark.parametrize(
    ("lock", "install"),
    [
        ("package-lock.json", "npm ci"),
        ("yarn.lock", "yarn install --frozen-lockfile"),
        ("pnpm-lock.yaml", "pnpm install --frozen-lockfile"),
    ],
)
def test_node_installs_by_its_lock(lock: str, install: str):
    """And runs the scripts that there are, in this order: lint, build, test."""
    package = json.dumps({"scripts": {"test": "jest", "lint": "eslint ."}, "devDependencies": {"jest": "1"}})
    tool = install.split(maxsplit=1)[0]
    assert commands({"package.json": package, lock: ""}) == (install, f"{tool} run lint", f"{tool} run test")


def test_node_without_packages_needs_no_network():
    """Node's own test runner."""
    files = {"package.json": json.dumps({"scripts": {"test": "node --test"}}), "a.js": ""}
    assert commands(files) == ("npm run test",)
    assert step(files, "test")["network"] is False


def test_node_script_that_npm_wrote_is_no_test():
    """`echo "Error: no test specified" && exit 1`."""
    package = {"scripts": {"test": 'echo "Error: no test specified" && exit 1'}}
    assert names({"package.json": json.dumps(package), "a.js": ""}) == ["scan"]


def test_vitest_writes_a_report():
    """Its options come after npm's dashes."""
    package = json.dumps({"scripts": {"test": "vitest run"}, "devDependencies": {"vitest": "1"}})
    assert commands({"package.json": package})[-1].startswith("npm run test -- --reporter=default --reporter=junit")


def test_python_and_node_together_get_a_step_each():
    """Both with names of their own."""
    package = json.dumps({"scripts": {"test": "jest"}, "devDependencies": {"jest": "1"}})
    assert names({**TEST, "package.json": package}) == ["test-python", "test-node", "scan"]


def test_makefile_with_a_test_target_is_used():
    """Where nothing else is known."""
    assert commands({"Makefile": "all:\n\ttrue\ntest: all\n\t./check\n", "main.c": ""}) == ("make test",)


@pytest.mark.parametrize("files", [{"README.md": "# A"}, {"Dockerfile": "FROM scratch\n"}, {"main.go": ""}])
def test_anything_is_scanned(files: dict[str, str]):
    """Where no tests are known, the scan is the pipeline."""
    assert names(files) == ["scan"]


def test_every_part_is_explained():
    """A comment above each step."""
    lines = propose(listing({**TEST, "setup.py": "setup()"})).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - name: ")]
    assert starts
    assert all(lines[number - 1].startswith("  # ") for number in starts)


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": "[[["},
        {"pyproject.toml": "project = 1\ntool = []\n[dependency-groups]\n"},
        {"pyproject.toml": 'build-system = "x"\nproject = {optional-dependencies = ["x"]}'},
        {"setup.cfg": "no section"},
        {"tox.ini": "[testenv\ndeps"},
        {"package.json": "{"},
        {"package.json": "[]"},
        {"package.json": '{"scripts": ["test"], "dependencies": 1}'},
        {"package.json": '{"scripts": {"test": 1}}'},
        {"setup.py": "\0\ufffd"},
    ],
)
def test_wrong_configuration_still_gives_a_valid_pipeline(files: dict[str, str]):
    """Other people's files may hold anything."""
    assert "scan" in names({**TEST, **files})


# The command


def test_file_is_written_at_the_root(repository: Repository, capsys: pytest.CaptureFixture[str]):
    """Also from a folder below it; the steps are named."""
    root = repository({**TEST, "setup.py": "setup()"})
    init(root / "tests")
    assert load_spec((root / "penstock.yaml").read_bytes())
    assert "test, scan" in capsys.readouterr().out


def test_ignored_files_do_not_count(repository: Repository):
    """An environment that lies in the repository is no project."""
    root = repository({".gitignore": ".venv/\n", ".venv/x/test_a.py": "", "README.md": "# A\n"})
    init(root)
    assert [step.name for step in load_spec((root / "penstock.yaml").read_bytes()).steps] == ["scan"]


def test_file_that_is_there_is_kept(repository: Repository):
    """One line with the remedy; --force overwrites."""
    root = repository({"a.py": "", "penstock.yaml": "mine"})
    with pytest.raises(ConflictError, match="there already") as caught:
        init(root)
    assert "--force" in str(caught.value)
    assert (root / "penstock.yaml").read_text() == "mine"
    init(root, force=True)
    assert load_spec((root / "penstock.yaml").read_bytes())


def test_empty_repository_is_one_line(repository: Repository):
    """Nothing to fit a pipeline to."""
    with pytest.raises(InputError, match="nothing here yet"):
        init(repository({}))


def test_folder_that_is_no_repository_is_one_line(tmp_path: Path):
    """With the remedy."""
    with pytest.raises(InputError, match="no git repository") as caught:
        init(tmp_path)
    assert "git init" in str(caught.value)


def test_path_that_is_no_folder_is_one_line(tmp_path: Path):
    """A file, or nothing at all."""
    with pytest.raises(InputError, match="no folder"):
        init(tmp_path / "nowhere")


def test_help_shows_examples():
    """`penstock init --help`."""
    app = typer.Typer()
    app.command()(init)
    assert "penstock init ../shop --force" in CliRunner().invoke(app, ["--help"]).output
