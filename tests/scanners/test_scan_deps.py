"""The step that looks up dependencies: the real Trivy with a database of the tests' own, the real pip-audit."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest
from package_index import running_index
from pydantic import ValidationError
from trivy_database import write_database

from penstock.components import read_bill
from penstock.engines import open_engine
from penstock.engines.process import bubblewrap
from penstock.errors import PlatformError, StepFailure, StepTimeout
from penstock.findings import read_report
from penstock.scanners import open_scanner
from penstock.scanners.tools import find_tool
from penstock.steps.context import StepContext
from penstock.steps.scan_deps import Config, run

Write = Callable[[str, str], Path]

VULNERABLE = "django==2.2.0\n"
NOBODY_LISTENS = "127.0.0.1:1"
LOCK = json.dumps(
    {
        "name": "shop",
        "lockfileVersion": 3,
        "packages": {"": {"name": "shop"}, "node_modules/left-pad": {"version": "1.3.0"}},
    }
)
DOCKERFILE = "FROM debian:latest\nUSER root\n"
TOKEN = "TOKEN=ghp_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5\n"


def config(**fields: object) -> Config:
    return Config.model_validate({"name": "deps", "type": "step.scan_deps", **fields})


def known(**fields: object) -> Config:
    """Trivy with the database that lies there."""
    return config(database={"update": False}, **fields)


@pytest.fixture
def trivy_knows(context: StepContext) -> StepContext:
    """A database of vulnerabilities lies where a site that is offline puts it."""
    write_database(context.settings.home / "tools" / "trivy-database")
    return context


def test_known_vulnerability_fails_the_step(trivy_knows: StepContext, write: Write):
    """The reason names the package, its version and the CVE; the verdict counts the packages that were read."""
    write("requirements.txt", VULNERABLE)
    result = run(known(), trivy_knows)
    assert result.state == "failed"
    assert result.reason == ("2 findings at or above high: django@2.2.0 CVE-2019-14234, django@2.2.0 CVE-2030-0001")
    assert result.verdict is not None
    assert result.verdict.evidence["critical"] == 1
    assert result.verdict.evidence["packages"] == 1


def test_what_people_suppressed_does_not_stop_the_step(trivy_knows: StepContext, write: Write):
    """The verdict says how many; what is recorded is as the tool wrote it, for a decision ends some day."""
    write("requirements.txt", VULNERABLE)
    marks = {one.rule_id: one.fingerprint for one in run(known(), trivy_knows).scans[0].report.findings}
    decided = {marks["CVE-2019-14234"]: "never reached"}
    half = run(known(), attrs.evolve(trivy_knows, suppressed=lambda: decided))
    assert half.reason == "1 finding at or above high: django@2.2.0 CVE-2030-0001; 1 finding suppressed"
    decided[marks["CVE-2030-0001"]] = "accepted"
    done = run(known(), attrs.evolve(trivy_knows, suppressed=lambda: decided))
    assert (done.state, done.verdict.summary) == ("succeeded", "no findings; 2 findings suppressed")
    assert (done.verdict.evidence["suppressed"], done.verdict.evidence["critical"]) == (2, 0)
    assert not any(one.suppressed for one in done.scans[0].report.findings)


def test_suppressions_that_cannot_be_read_are_no_verdict(trivy_knows: StepContext, write: Write):
    """Nobody guesses whether a finding is suppressed."""

    def away() -> dict[str, str]:
        raise PlatformError("the warehouse's catalog does not answer")

    write("requirements.txt", VULNERABLE)
    with pytest.raises(PlatformError, match="does not answer"):
        run(known(), attrs.evolve(trivy_knows, suppressed=away))


def test_components_are_listed(trivy_knows: StepContext, write: Write):
    """What Trivy read, with and without weaknesses, as CycloneDX beside the report."""
    write("app/requirements.txt", VULNERABLE + "six==1.16.0\n")
    result = run(known(fail_on_severity="none"), trivy_knows)
    (listed,) = result.bills
    found = {one.name: (one.version, one.purl, one.path) for one in listed.bill.components}
    assert found["six"] == ("1.16.0", "pkg:pypi/six@1.16.0", "app/requirements.txt")
    assert found["django"][0] == "2.2.0"
    assert (listed.source, listed.bill.image_digest) == ("checkout", None)
    assert [made.key for made in result.artifacts] == ["deps.sarif", "deps.cdx.json"]
    assert read_bill(b"".join(trivy_knows.store.read(listed.report_digest))) == listed.bill


def test_finding_is_a_package_and_an_advisory(trivy_knows: StepContext, write: Write):
    """purl, CVE, the file that names it and the version that mends it; the report is stored and says the same."""
    write("app/requirements.txt", VULNERABLE)
    result = run(known(), trivy_knows)
    findings = {one.rule_id: one for one in result.scans[0].report.findings}
    mended, waiting = findings["CVE-2019-14234"], findings["CVE-2030-0001"]
    assert (mended.package, mended.path, mended.fixed_version) == (
        "pkg:pypi/django@2.2.0",
        "app/requirements.txt",
        "2.2.4",
    )
    assert (waiting.fixed_version, waiting.severity, waiting.identity) == (None, "high", "package")
    stored = b"".join(trivy_knows.store.read(result.artifacts[0].digest))
    assert len(read_report(stored).findings) == 2


@pytest.mark.usefixtures("isolation")
def test_scan_works_with_and_without_bubblewrap(trivy_knows: StepContext, write: Write):
    """The same findings at the same paths, wherever the workspace is seen."""
    write("app/requirements.txt", VULNERABLE)
    result = run(known(paths=["app"], fail_on_severity="none"), trivy_knows)
    assert {one.path for one in result.scans[0].report.findings} == {"app/requirements.txt"}


def test_what_no_version_mends_may_be_let_pass(trivy_knows: StepContext, write: Write):
    """It does not count, and stays in the report and the words."""
    write("requirements.txt", "django==2.2.9\n")
    result = run(known(ignore_unfixed=True), trivy_knows)
    assert result.state == "succeeded", result.reason
    assert result.verdict is not None
    assert result.verdict.evidence["unfixed"] == 1
    assert "1 finding that no version mends yet was let pass" in result.verdict.summary
    assert [one.rule_id for one in result.scans[0].report.findings] == ["CVE-2030-0001"]
    assert run(known(), trivy_knows).state == "failed"


def test_path_of_a_folder_keeps_its_place(trivy_knows: StepContext, write: Write):
    """A scan of one folder finds nothing of another, and names files from the repository's root."""
    write("a/requirements.txt", VULNERABLE)
    write("b/requirements.txt", VULNERABLE)
    result = run(known(paths=["b"], fail_on_severity="none"), trivy_knows)
    assert {one.path for one in result.scans[0].report.findings} == {"b/requirements.txt"}
    assert result.verdict is not None
    assert "unreadable" not in result.verdict.evidence


def test_path_of_a_file_keeps_its_place(trivy_knows: StepContext, write: Write):
    """Trivy names a single file without its folder."""
    write("b c/requirements.txt", VULNERABLE)
    result = run(known(paths=["b c/requirements.txt"], fail_on_severity="none"), trivy_knows)
    assert {one.path for one in result.scans[0].report.findings} == {"b c/requirements.txt"}
    assert result.verdict is not None
    assert "unreadable" not in result.verdict.evidence


def test_excluded_folder_is_not_scanned(trivy_knows: StepContext, write: Write):
    """By its name, wherever it is, and it does not count as unreadable."""
    write("old/requirements.txt", VULNERABLE)
    write("x/old/requirements.txt", VULNERABLE)
    write("package-lock.json", LOCK)
    result = run(known(exclude=["old"]), trivy_knows)
    assert result.state == "succeeded", result.reason
    assert result.verdict is not None
    assert "unreadable" not in result.verdict.evidence


def test_repository_without_lock_files_is_not_clean(trivy_knows: StepContext, write: Write):
    """Trivy exits 0 and finds nothing; the step fails."""
    write("README.md", "# A project\n")
    result = run(known(), trivy_knows)
    assert result.state == "failed"
    assert "no package to look at" in str(result.reason)
    assert result.verdict is not None
    assert not result.verdict.passed


def test_broken_lock_file_alone_is_not_clean(trivy_knows: StepContext, write: Write):
    """Trivy exits 0 and says not a word of it."""
    write("package-lock.json", '{"name": "shop", ')
    result = run(known(), trivy_knows)
    assert result.state == "failed"
    assert "package-lock.json" in str(result.reason)


def test_broken_lock_file_among_others_is_named(trivy_knows: StepContext, write: Write):
    """What gave no package is counted and named in the verdict."""
    write("package-lock.json", LOCK)
    write("api/poetry.lock", "[[package")
    result = run(known(), trivy_knows)
    assert result.state == "succeeded", result.reason
    assert result.verdict is not None
    assert result.verdict.evidence["unreadable_files"] == "api/poetry.lock"
    assert "1 entry could not be read" in result.verdict.summary


def test_scan_without_a_database_is_no_clean_scan(context: StepContext, write: Write):
    """The database's place does not answer: not the user's fault, in one line with a remedy."""
    write("requirements.txt", VULNERABLE)
    with pytest.raises(PlatformError) as caught:
        run(config(database={"mirror": f"{NOBODY_LISTENS}/trivy-db:2"}), context)
    said = str(caught.value)
    assert said.startswith("deps: trivy has no database of vulnerabilities: ")
    assert NOBODY_LISTENS in said
    assert said.endswith("name a mirror in `database`")


def test_database_that_takes_too_long_is_timed_out(context: StepContext, write: Write):
    """A server that takes the connection and never answers: the step's limit ends it."""
    write("requirements.txt", VULNERABLE)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mirror = f"127.0.0.1:{silent.getsockname()[1]}/trivy-db:2"
        with pytest.raises(StepTimeout, match="longer than the limit of 2 s"):
            run(config(database={"mirror": mirror}, timeout=2), context)


def test_database_that_nobody_put_there_is_no_clean_scan(context: StepContext, write: Write):
    """`update: false` takes what lies there; nothing does."""
    write("requirements.txt", VULNERABLE)
    empty = {"update": False, "mirror": "registry.example/never-fetched:2"}
    with pytest.raises(PlatformError, match="trivy exited with 1"):
        run(config(database=empty), context)


def test_settings_of_the_repository_do_not_steer_the_scanner(trivy_knows: StepContext, write: Write):
    """Neither its trivy.yaml nor variables of `defaults` hide what is there."""
    write("requirements.txt", VULNERABLE)
    write("trivy.yaml", "severity: [LOW]\nscan: {skip-files: [requirements.txt]}\n")
    poisoned = attrs.evolve(trivy_knows, defaults_env={"TRIVY_SEVERITY": "LOW", "TRIVY_SKIP_FILES": "requirements.txt"})
    result = run(known(), poisoned)
    assert result.state == "failed"
    assert len(result.scans[0].report.findings) == 2


def test_workspace_is_left_as_it_was(trivy_knows: StepContext, write: Write, workspace: Path):
    """The report's folder is gone."""
    write("requirements.txt", VULNERABLE)
    run(known(), trivy_knows)
    assert [path.name for path in workspace.iterdir()] == ["requirements.txt"]


def test_misconfiguration_and_secrets_need_no_database(context: StepContext, write: Write):
    """Trivy's other eyes work on a machine that is offline."""
    write("Dockerfile", DOCKERFILE)
    write("conf.env", TOKEN)
    result = run(config(look_for=["secrets", "misconfiguration"]), context)
    assert result.state == "failed"
    rules = {one.rule_id for one in result.scans[0].report.findings}
    assert {"github-pat", "DS-0002"} <= rules


def test_no_configuration_to_look_at_is_not_clean(context: StepContext, write: Write):
    """A scan for misconfiguration alone that found no configuration fails."""
    write("README.md", "# A project\n")
    result = run(config(look_for="misconfiguration"), context)
    assert result.state == "failed"
    assert "no configuration to look at" in str(result.reason)


class Advisories(BaseHTTPRequestHandler):
    """An OSV service that knows one package; its answers have the form of https://google.github.io/osv.dev/api/"""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"vulns": [ADVISORY]} if asked["package"]["name"] in KNOWN else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


OWN = "penstock-tests-own-package"  # no index of the machine's has it
KNOWN = ("django", OWN)
ADVISORY = {
    "id": "PYSEC-2019-13",
    "aliases": ["CVE-2019-14234", "GHSA-6r97-cj55-9hrq"],
    "summary": "SQL injection",
    "affected": [
        {
            "package": {"name": "django", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2.2"}, {"fixed": "2.2.4"}]}],
        }
    ],
}


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()
    thread.join()


def python(mirror: str, **fields: object) -> Config:
    return config(scanner="pip-audit", database={"mirror": mirror}, **fields)


HASHED = "{} --hash=sha256:" + 64 * "0" + "\n"


def test_pip_audit_asks_a_mirror(osv: str, context: StepContext, write: Write):
    """A requirements file with hashes and a lock: each finding names its file, purl, CVE and the version that mends."""
    write("requirements.txt", HASHED.format("django==2.2.0") + HASHED.format("six==1.16.0"))
    write("api/pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "django"\nversion = "2.2.1"\n')
    result = run(python(osv), context)
    assert result.state == "failed"
    found = {(one.path, one.package, one.rule_id, one.fixed_version) for one in result.scans[0].report.findings}
    assert found == {
        ("requirements.txt", "pkg:pypi/django@2.2.0", "CVE-2019-14234", "2.2.4"),
        ("api/pylock.toml", "pkg:pypi/django@2.2.1", "CVE-2019-14234", "2.2.4"),
    }
    assert result.verdict is not None
    assert (result.verdict.evidence["high"], result.verdict.evidence["packages"]) == (2, 3)


def test_pip_audit_without_findings_passes(osv: str, context: StepContext, write: Write):
    """Its report is SARIF all the same."""
    write("requirements.txt", HASHED.format("six==1.16.0"))
    result = run(python(osv), context)
    assert result.state == "succeeded", result.reason
    assert result.scans[0].tool == "pip-audit"
    assert result.verdict is not None
    assert result.verdict.evidence["packages"] == 1


def test_pip_audit_finds_what_would_be_installed(
    osv: str, context: StepContext, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A project that names no versions: pip resolves them, with the index that the user's pip.conf names."""
    if bubblewrap() is None:
        pytest.skip("without bubblewrap a job has no pip.conf")
    find_tool(context.settings, open_scanner("pip-audit"))  # before the user's folder is another
    # pip-audit brings pip, wheel and setuptools up to date before anything else.
    with running_index(tmp_path / "index", {OWN: "2.2.0", "wheel": "99.0", "setuptools": "999.0"}) as index:
        configuration = tmp_path / "user" / ".config" / "pip" / "pip.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(f"[global]\nindex-url = {index}\n")
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
        write("pyproject.toml", f'[project]\nname = "shop"\nversion = "1"\ndependencies = ["{OWN}<3"]\n')
        result = run(python(osv), context)
    assert result.state == "failed"
    assert result.reason == f"1 finding at or above high: {OWN}@2.2.0 CVE-2019-14234"


def test_scanner_does_not_run_in_the_pipelines_containers(trivy_knows: StepContext, write: Write):
    """Its environment lies on this machine: another engine is not asked, here one that is away."""
    away = attrs.evolve(trivy_knows.settings, engine="docker", docker_host="unix:///nowhere/docker.sock")
    write("requirements.txt", VULNERABLE)
    context = attrs.evolve(trivy_knows, settings=away, engine=open_engine(away))
    assert run(known(), context).state == "failed"


def test_pip_audit_without_its_service_is_no_clean_scan(
    context: StepContext, write: Write, monkeypatch: pytest.MonkeyPatch
):
    """Nobody answers: not the user's fault, in one line with a remedy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write("requirements.txt", HASHED.format("django==2.2.0"))
    with pytest.raises(PlatformError, match=r"cannot reach the service that knows the vulnerabilities at 127\.0\.0\.1"):
        run(python(f"http://{NOBODY_LISTENS}/v1/query"), context)


def test_pip_audit_says_which_file_is_wrong(osv: str, context: StepContext, write: Write):
    """A requirement that is none is the repository's fault."""
    write("requirements.txt", HASHED.format("six==1.16.0"))
    write("dev/requirements.txt", "six>>1\n")
    result = run(python(osv), context)
    assert result.state == "failed"
    assert str(result.reason).startswith("pip-audit cannot read dev/requirements.txt: ")


def test_pip_audit_without_manifests_is_not_clean(osv: str, context: StepContext, write: Write):
    """A pyproject.toml that only configures tools names no dependency; other locks are not pip-audit's."""
    write("pyproject.toml", "[tool.ruff]\nline-length = 120\n")
    write("uv.lock", "version = 1\n")
    result = run(python(osv), context)
    assert result.state == "failed"
    assert "found no requirements file" in str(result.reason)


def test_scanner_that_is_not_installed_says_how_to_get_it(
    context: StepContext, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Grype is no Python package: it comes from PATH, and it is not there."""
    write("requirements.txt", VULNERABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"grype is not installed.*PATH"):
        run(config(scanner="grype"), context)


def test_path_that_is_not_there_fails_before_the_scan(context: StepContext):
    """Nothing is installed or fetched for it."""
    with pytest.raises(StepFailure, match='no "srv" at this commit'):
        run(config(paths=["srv"]), context)


@pytest.mark.parametrize(
    "fields",
    [
        {"scanner": "semgrep"},
        {"scanner": "pip_audit"},
        {"fail_on_severity": "info"},
        {"ignore_unfixed": "sometimes"},
        {"paths": []},
        {"paths": ["a", "b"]},
        {"paths": ["../other"]},
        {"exclude": ["--config=x"]},
        {"look_for": []},
        {"look_for": ["bugs"]},
        {"scanner": "grype", "look_for": ["secrets"]},
        {"scanner": "pip-audit", "look_for": ["vulnerabilities", "misconfiguration"]},
        {"database": {"mirror": "--offline"}},
        {"scanner": "grype", "database": {"java": True}},
        {"database": {"mirror": "a b"}},
        {"database": {"url": "registry.example/db"}},
    ],
)
def test_wrong_words_are_refused(fields: dict[str, object]):
    """Scanners of other things, severities, several paths for a tool of one, options in disguise."""
    with pytest.raises(ValidationError):
        config(**fields)


def test_several_paths_are_one_audit(osv: str, context: StepContext, write: Write):
    """pip-audit takes as many as there are; a file is taken whatever its name."""
    write("a/prod.txt", HASHED.format("six==1.16.0"))
    write("b/requirements-dev.txt", HASHED.format("django==2.2.0"))
    write("c/requirements.txt", HASHED.format("django==2.2.0"))
    result = run(python(osv, paths=["a/prod.txt", "b"]), context)
    assert {one.path for one in result.scans[0].report.findings} == {"b/requirements-dev.txt"}
    assert result.verdict is not None
    assert result.verdict.evidence["packages"] == 2
