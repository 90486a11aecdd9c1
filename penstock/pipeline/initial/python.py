"""Python: how it is installed, with what for its tests, and how they are run."""

import configparser
import re
from collections.abc import Mapping, Sequence

import attrs

from penstock.pipeline.initial.proposal import Listing, ProposedStep, quoted, table

_FOR_TESTS = ("test", "tests", "testing")
_FOR_DEVELOPERS = ("dev", "develop", "development")
_REQUIREMENTS = (
    *("requirements-test.txt", "requirements-tests.txt", "requirements_test.txt", "test-requirements.txt"),
    *("requirements/test.txt", "requirements/tests.txt", "requirements/testing.txt", "tests/requirements.txt"),
    *("requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt", "requirements/dev.txt"),
)
_TESTS_READ = 50
# What reads the version from git, which a step's workspace does not hold → the variable that gives one.
_VERSION_FROM_GIT = {
    "setuptools_scm": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "setuptools-scm": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "hatch-vcs": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "pdm-backend": "PDM_BUILD_SCM_VERSION",
    "pbr": "PBR_VERSION",
}


@attrs.frozen
class _Installation:
    """Commands that make the environment, and where the tests' own packages come from, in words."""

    commands: tuple[str, ...]
    by: str


def steps(files: Listing) -> Sequence[ProposedStep]:
    """A step `test`, or `compile` where there are no tests; none without Python files."""
    if not files.with_suffix(".py"):
        return ()
    name = "test-python" if files.first("package.json") else "test"
    if _django(files):
        return (_django_step(files, name),)
    if not _has_tests(files):
        return (_compile_step(),)
    return (_unittest_step(files, name) if _only_unittest(files) else _pytest_step(files, name),)


def _has_tests(files: Listing) -> bool:
    return files.any_named("test_*.py", "*_test.py", "tests.py", "conftest.py", "test.py") or any(
        path.startswith(("tests/", "test/")) and path.endswith(".py") for path in files.paths
    )


def _django(files: Listing) -> bool:
    return files.first("manage.py") is not None and not _mentions_pytest(files)


def _mentions_pytest(files: Listing) -> bool:
    places = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "pytest.ini", "noxfile.py", "requirements.txt")
    return any("pytest" in files.read(path) for path in (*places, *_REQUIREMENTS)) or files.any_named("conftest.py")


def _only_unittest(files: Listing) -> bool:
    """Whether the tests that were looked at are all methods, and nothing asks for pytest."""
    names = [path for path in sorted(files.paths) if re.search(r"(^|/)test[^/]*\.py$", path)][:_TESTS_READ]
    texts = [text for name in names if "def test" in (text := files.read(name))]
    of_pytest = any(re.search(r"^(async )?def test|\bimport pytest\b", text, re.MULTILINE) for text in texts)
    return bool(texts) and not of_pytest and not _mentions_pytest(files)


def _compile_step() -> ProposedStep:
    says = ("There are no tests yet; until then, every file can at least be compiled.",)
    return ProposedStep("compile", says, ("type: step.shell_exec", "commands:", "  - python3 -m compileall -q ."))


def _pytest_step(files: Listing, name: str) -> ProposedStep:
    installation = _installation(files)
    says = [
        f"The tests, in an environment of their own with {installation.by}.",
        "The JUnit report names the tests that failed; a run without any test fails too.",
    ]
    runner = "python -m pytest -q --junitxml=reports/junit.xml"
    lines = [*_head(files, installation), f"  - {runner}", "reports:", "  junit: reports/junit.xml"]
    return ProposedStep(name, tuple(says), tuple(lines))


def _unittest_step(files: Listing, name: str) -> ProposedStep:
    installation = _installation(files, runner=("unittest-xml-reporting",))
    says = (
        f"The tests (unittest's), in an environment of their own with {installation.by}.",
        "unittest writes no report itself, xmlrunner does; it names the tests that failed.",
    )
    folder = next((name for name in ("tests", "test") if f"{name}/__init__.py" in files.paths), None)
    where = f" -s {folder} -t ." if folder else " -s tests" if _folder(files, "tests") else ""
    lines = [*_head(files, installation), f"  - python -m xmlrunner discover{where} -o reports"]
    return ProposedStep(name, says, (*lines, "reports:", '  junit: "reports/*.xml"'))


def _folder(files: Listing, name: str) -> bool:
    return any(path.startswith(f"{name}/") for path in files.paths)


def _django_step(files: Listing, name: str) -> ProposedStep:
    installation = _installation(files, runner=())
    says = (f"The tests of this Django project, in an environment of their own with {installation.by}.",)
    return ProposedStep(name, says, (*_head(files, installation), "  - python manage.py test"))


def _head(files: Listing, installation: _Installation) -> list[str]:
    lines = ["type: step.shell_exec", "timeout: 30m", "network: true # to install; without it a step has none"]
    if env := _env(files):
        lines += ["env:", *(f"  {name}: {value}" for name, value in env.items())]
    return [*lines, "commands:", *(f"  - {quoted(command)}" for command in installation.commands)]


def _env(files: Listing) -> Mapping[str, str]:
    text = files.read("pyproject.toml") + files.read("setup.py") + files.read("setup.cfg")
    asked = {variable for word, variable in _VERSION_FROM_GIT.items() if re.search(rf"\b{re.escape(word)}\b", text)}
    if "PDM_BUILD_SCM_VERSION" in asked and "scm" not in text:
        asked.remove("PDM_BUILD_SCM_VERSION")
    env = dict.fromkeys(sorted(asked), '"0.0.0" # its version comes from git, which is not in the workspace')
    if not _installable(files) and _folder(files, "src"):
        env["PYTHONPATH"] = "src"
    return env


def _installation(files: Listing, runner: tuple[str, ...] = ("pytest",)) -> _Installation:
    start = ("python3 -m venv .venv", ". .venv/bin/activate")
    if _by_poetry(files):
        commands = ("pip install --quiet poetry", "poetry install --no-interaction --quiet")
        return _Installation((*start, *commands, *_ensured(files, runner)), "what Poetry's lock names")
    groups = table(files.toml("pyproject.toml").get("dependency-groups"))
    group = _chosen({name: str(needs) for name, needs in groups.items()})
    newer = ("pip install --quiet --upgrade pip",) if group else ()  # `--group` came with pip 25.1
    words, by = _words(files, group)
    install = (f"pip install --quiet {words}",) if words else ()
    return _Installation((*start, *newer, *install, *_ensured(files, runner)), by)


def _ensured(files: Listing, runner: tuple[str, ...]) -> tuple[str, ...]:
    """The test runner, unless what is installed already asks for it."""
    text = files.read("pyproject.toml") + files.read("setup.cfg") + files.read("setup.py")
    text += "".join(files.read(path) for path in _requirements(files))
    return tuple(f"pip install --quiet {name}" for name in runner if not re.search(rf"[\"'\s]{name}\b(?!\.)", text))


def _words(files: Listing, group: str | None) -> tuple[str, str]:
    """What pip is told to install, and the same for people."""
    requirements = [f"-r {path}" for path in _requirements(files)]
    extra = _extra(files)
    parts, by = [], []
    if _installable(files):
        parts.append(f"-e '.[{extra}]'" if extra else "-e .")
        by.append(f"the project and its extra {extra}" if extra else "the project")
    if group:
        parts.append(f"--group {group}")
        by.append(f"the dependency group {group}")
    if requirements and not (extra or group):
        parts += requirements
        by.append(" and ".join(_requirements(files)))
    if tox := () if extra or group or requirements else _tox_dependencies(files):
        parts += [f"'{name}'" for name in tox]
        by.append("what tox.ini names")
    return " ".join(parts), ", ".join(by) or "what runs them"


def _installable(files: Listing) -> bool:
    project = files.toml("pyproject.toml")
    needs = {"dependencies", "optional-dependencies"} & set(table(project.get("project")))
    return "build-system" in project or bool(needs) or files.first("setup.py") is not None


def _by_poetry(files: Listing) -> bool:
    project = files.toml("pyproject.toml")
    return "poetry" in table(project.get("tool")) and "project" not in project


def _requirements(files: Listing) -> tuple[str, ...]:
    tests = files.first(*_REQUIREMENTS)
    own = None if _installable(files) else files.first("requirements.txt")
    return tuple(path for path in (own, tests) if path)


def _extra(files: Listing) -> str | None:
    extras = table(table(files.toml("pyproject.toml").get("project")).get("optional-dependencies"))
    named = {name: str(needs) for name, needs in extras.items()}
    named |= _ini(files, "setup.cfg", "options.extras_require")
    in_code = _after(files.read("setup.py"), "extras_require")
    return _chosen(named | dict.fromkeys(re.findall(r"[\"'](\w+)[\"']\s*:", in_code), in_code))


def _after(text: str, word: str) -> str:
    return text.partition(word)[2][:2000]


def _chosen(needs: Mapping[str, str]) -> str | None:
    """The extra or group (name → what it needs) for tests; one for developers if that is where pytest is."""
    for_tests = next((name for name in _FOR_TESTS if name in needs), None)
    return for_tests or next((name for name in _FOR_DEVELOPERS if "pytest" in needs.get(name, "")), None)


def _ini(files: Listing, path: str, section: str) -> Mapping[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(files.read(path))
    except configparser.Error:
        return {}
    return dict(parser[section]) if parser.has_section(section) else {}


def _tox_dependencies(files: Listing) -> tuple[str, ...]:
    """Plain names of `deps` in tox.ini; lines for one factor, files and substitutions are left out."""
    lines = _ini(files, "tox.ini", "testenv").get("deps", "").splitlines()
    return tuple(line.strip() for line in lines if re.fullmatch(r"\s*[A-Za-z][\w.\[\]<>=!~,-]*\s*", line))
