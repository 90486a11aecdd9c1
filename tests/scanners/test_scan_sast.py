"""The step that scans: real scanners, really run in the engine."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from pydantic import ValidationError

from penstock.errors import InputError, PlatformError, StepFailure
from penstock.steps.context import StepContext
from penstock.steps.scan_sast import Config, run

Write = Callable[[str, str], Path]

SHELL = "import subprocess\n\n\ndef f(x):\n    subprocess.run(x, shell=True)\n"
HARMLESS = "def f(x):\n    return x + 1\n"
SCANNERS = ["semgrep", "bandit"]


def config(**fields: object) -> Config:
    return Config.model_validate({"name": "scan", "type": "step.scan_sast", **fields})


@pytest.mark.parametrize("scanner", SCANNERS)
def test_finding_above_the_limit_fails_the_step(scanner: str, context: StepContext, write: Write):
    """The reason counts and names what was found, and the verdict carries the counts."""
    write("app.py", SHELL)
    result = run(config(scanner=scanner), context)
    assert result.state == "failed"
    assert result.reason is not None
    assert result.reason.startswith("1 finding at or above high: app.py:5 ")
    assert result.verdict is not None
    assert not result.verdict.passed
    assert result.verdict.evidence["high"] == 1


@pytest.mark.parametrize("scanner", SCANNERS)
def test_harmless_source_passes(scanner: str, context: StepContext, write: Write):
    """Nothing found, and the verdict says how many files that rests on."""
    write("app.py", HARMLESS)
    write("src/other.py", HARMLESS)
    result = run(config(scanner=scanner), context)
    assert result.state == "succeeded", result.reason
    assert result.verdict is not None
    assert result.verdict.passed
    assert result.verdict.evidence["files"] == 2


def test_report_is_stored_as_it_came(context: StepContext, write: Write):
    """The raw SARIF is an artifact of the step and the scan names its hash."""
    write("app.py", SHELL)
    result = run(config(scanner="bandit"), context)
    (artifact,), (scan,) = result.artifacts, result.scans
    raw = b"".join(context.store.read(artifact.digest))
    assert artifact.key == "scan.sarif"
    assert scan.report_digest == artifact.digest
    assert scan.category == "scan"
    assert b'"runs"' in raw


@pytest.mark.parametrize(("limit", "state"), [("none", "succeeded"), ("critical", "succeeded"), ("medium", "failed")])
def test_limit_decides(limit: str, state: str, context: StepContext, write: Write):
    """One finding of severity high: below critical, above medium, and `none` never stops the pipeline."""
    write("app.py", "import hashlib\n\nhashlib.md5(b'')\n")
    result = run(config(scanner="bandit", fail_on_severity=limit), context)
    assert result.state == state
    assert len(result.scans[0].report.findings) == 1


@pytest.mark.parametrize("scanner", SCANNERS)
def test_folder_without_files_is_not_clean(scanner: str, context: StepContext, workspace: Path):
    """A scan that found nothing to read fails and says so."""
    (workspace / "src").mkdir()
    result = run(config(scanner=scanner, paths=["src"]), context)
    assert result.state == "failed"
    assert "to look at" in str(result.reason)
    assert result.verdict is not None
    assert not result.verdict.passed


@pytest.mark.parametrize("scanner", SCANNERS)
def test_source_that_cannot_be_parsed_is_not_clean(scanner: str, context: StepContext, write: Write):
    """When every source file is broken the scan fails, though the tool itself exits 0."""
    write("README.md", "# A project\n")
    write("app.py", "def (: subprocess.run(x, shell=True) exec(\n")
    result = run(config(scanner=scanner), context)
    assert result.state == "failed"
    assert "could not parse any of 1" in str(result.reason)
    assert "app.py" in str(result.reason)


@pytest.mark.parametrize("scanner", SCANNERS)
def test_one_broken_file_among_others_is_counted(scanner: str, context: StepContext, write: Write):
    """What could not be read is in the evidence and in the summary."""
    write("good.py", HARMLESS)
    write("bad.py", "def (: subprocess.run(x, shell=True) exec(\n")
    result = run(config(scanner=scanner), context)
    assert result.state == "succeeded"
    assert result.verdict is not None
    assert result.verdict.evidence["unreadable_files"] == "bad.py"
    assert "1 file could not be read" in result.verdict.summary


@pytest.mark.parametrize("scanner", SCANNERS)
def test_exclusions_hide_whole_names_only(scanner: str, context: StepContext, write: Write):
    """`test` hides the folder test, not latest.py or contest/; the default hides tests."""
    write("test/a.py", SHELL)
    write("tests/b.py", SHELL)
    write("latest.py", SHELL)
    write("contest/c.py", SHELL)
    result = run(config(scanner=scanner, fail_on_severity="none"), context)
    assert {finding.path for finding in result.scans[0].report.findings} == {"latest.py", "contest/c.py"}


@pytest.mark.parametrize("scanner", SCANNERS)
def test_empty_exclude_looks_everywhere(scanner: str, context: StepContext, write: Write):
    """`exclude: []` scans tests and dependencies too, whatever lists a tool has of its own."""
    write("tests/b.py", SHELL)
    write("node_modules/x/c.py", SHELL)
    result = run(config(scanner=scanner, exclude=[], fail_on_severity="none"), context)
    assert {finding.path for finding in result.scans[0].report.findings} == {"tests/b.py", "node_modules/x/c.py"}


@pytest.mark.parametrize("scanner", SCANNERS)
def test_only_the_named_paths_are_scanned(scanner: str, context: StepContext, write: Write):
    """`paths` limits the scan, and findings keep their path from the repository's root."""
    write("src/a.py", SHELL)
    write("docs/b.py", SHELL)
    result = run(config(scanner=scanner, paths=["src"], fail_on_severity="none"), context)
    assert {finding.path for finding in result.scans[0].report.findings} == {"src/a.py"}


@pytest.mark.parametrize("scanner", SCANNERS)
def test_modules_of_the_repository_are_not_run(scanner: str, context: StepContext, write: Write, workspace: Path):
    """A repository with its own yaml.py, bandit and sitecustomize does not get into the scanner."""
    trap = "from pathlib import Path\nPath('trapped').touch()\n"
    for name in ("yaml.py", "bandit/__init__.py", "semgrep/__init__.py", "sitecustomize.py"):
        write(name, trap)
    poisoned = attrs.evolve(context, defaults_env={"PYTHONPATH": ".", "PYTHONSTARTUP": "yaml.py"})
    result = run(config(scanner=scanner), poisoned)
    assert result.state == "succeeded", result.reason
    assert not (workspace / "trapped").exists()


def test_workspace_is_left_as_it_was(context: StepContext, write: Write, workspace: Path):
    """The folder for the report is gone afterwards."""
    write("app.py", HARMLESS)
    run(config(scanner="bandit"), context)
    assert [path.name for path in workspace.iterdir()] == ["app.py"]


def test_suppressed_finding_does_not_count(context: StepContext, write: Write):
    """A finding that the source marks with nosemgrep is on record as suppressed, and the step passes."""
    write("app.py", SHELL.replace("shell=True)", "shell=True)  # nosemgrep: python.shell-true"))
    result = run(config(), context)
    assert result.state == "succeeded"
    assert result.verdict is not None
    assert result.verdict.evidence["suppressed"] == 1


def test_path_that_is_not_there_fails_before_the_scan(context: StepContext, write: Write):
    """Bandit would exit 0 for it."""
    write("app.py", HARMLESS)
    with pytest.raises(StepFailure, match='no "srv" at this commit'):
        run(config(scanner="bandit", paths=["srv"]), context)


def test_path_through_a_link_out_of_the_workspace_is_refused(context: StepContext, workspace: Path):
    """A committed link to / is not scanned."""
    (workspace / "all").symlink_to("/etc")
    with pytest.raises(InputError, match="leads out"):
        run(config(paths=["all"]), context)


def test_cancelled_scan_says_so(context: StepContext, write: Write):
    """A run that was cancelled meanwhile starts nothing."""
    write("app.py", HARMLESS)
    context.token.cancel("enough")
    with pytest.raises(Exception, match="enough"):
        run(config(), context)


def test_scan_over_its_limit_is_timed_out(context: StepContext, write: Write):
    """A limit of one second is too short for Semgrep to start; the check does not pass."""
    write("app.py", HARMLESS)
    result = run(config(timeout=1), context)
    assert result.state == "timed_out"
    assert result.verdict is not None
    assert not result.verdict.passed


@pytest.mark.parametrize(
    "fields",
    [
        {"scanner": "sonar"},
        {"fail_on_severity": "sometimes"},
        {"paths": []},
        {"paths": ["../other"]},
        {"paths": ["/etc"]},
        {"exclude": ["a,b"]},
        {"exclude": ["!keep"]},
        {"exclude": ["--config=x"]},
        {"exclude": [""]},
        {"threshold": "high"},
    ],
)
def test_wrong_words_are_refused(fields: dict[str, object]):
    """Unknown scanners, severities, fields, and paths or patterns that would mean something else to a tool."""
    with pytest.raises(ValidationError):
        config(**fields)


def test_crashed_scanner_is_a_platform_error(context: StepContext, write: Write, tmp_path: Path):
    """A tool whose environment lost a package is no clean scan."""
    write("app.py", HARMLESS)
    run(config(scanner="bandit"), context)
    (package,) = context.settings.home.glob("tools/bandit-*/lib/python3*/site-packages/bandit")
    package.rename(tmp_path / "bandit")
    try:
        with pytest.raises(PlatformError, match="bandit exited with 1"):
            run(config(scanner="bandit"), context)
    finally:
        (tmp_path / "bandit").rename(package)
