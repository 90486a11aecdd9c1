"""What Trivy's, Grype's and pip-audit's reports mean: as the tools write them, without running them."""

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from jsonschema import Draft4Validator

from penstock.errors import PlatformError
from penstock.findings import Scope, read_report
from penstock.scanners import (
    DatabaseRequest,
    ImageInput,
    Looked,
    Refused,
    ScanRequest,
    ToolRun,
    open_scanner,
    scanner_names,
)
from penstock.scanners.grype import Grype
from penstock.scanners.manifests import find_manifests
from penstock.scanners.pip_audit import PipAudit, chosen
from penstock.scanners.trivy import Trivy
from penstock.steps.context import StepContext, StepResult
from penstock.steps.scan_deps import Config, run

TRIVY, GRYPE, PIP_AUDIT = Trivy(), Grype(), PipAudit()
SARIF = b'{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": []}]}'
WRITTEN = Path(__file__).parents[1] / "findings" / "written.schema.json"
CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "sarif" / "anchore+grype"
REQUEST = ScanRequest(Path("/t/bin"), Path("/w"), (".",), ("old", "a b"), "out")


def refused(found: Looked | Refused, fault: str = "tool") -> str:
    assert isinstance(found, Refused), found
    assert found.fault == fault
    return found.reason


def looked(found: Looked | Refused) -> Looked:
    assert isinstance(found, Looked), found
    return found


# --- pip-audit ---------------------------------------------------------------------------------------------------

DJANGO = {
    "name": "django",
    "version": "2.2.0",
    "vulns": [
        {
            "id": "PYSEC-2019-13",
            "fix_versions": ["1.11.23", "2.2.4"],
            "aliases": ["GHSA-6r97-cj55-9hrq", "CVE-2019-14234"],
            "description": "SQL injection\nin key transforms",
        },
        {"id": "GHSA-aaaa-bbbb-cccc", "fix_versions": [], "aliases": [], "description": ""},
    ],
}
CLEAN = {"name": "six", "version": "1.16.0", "vulns": []}
SKIPPED = {
    "name": "own-package",
    "skip_reason": "Dependency not found on PyPI and could not be audited: own-package (1.0)",
}
UNREACHABLE = (
    "Traceback (most recent call last):\n  File pip_audit/_cli.py, line 554, in audit\n"
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev', port=443): Max retries exceeded with "
    "url: /v1/query (Caused by NameResolutionError('Failed to resolve'))\n"
)


def audit(*dependencies: object, code: int = 0, said: str = "", report: object = "as given") -> dict[str, object]:
    found = {"dependencies": list(dependencies), "fixes": []} if report == "as given" else report
    return {"manifest": "requirements.txt", "code": code, "said": said, "report": found}


def pip_audit(*audits: dict[str, object], code: int = 0, output: str = "") -> Looked | Refused:
    return PIP_AUDIT.look(ToolRun(code, output, None, json.dumps({"audits": audits}).encode()))


def test_pip_audit_finding_is_a_package_and_a_cve():
    """purl, CVE before other names, the versions that mend it, severity high; the SARIF is valid."""
    found = looked(pip_audit(audit(DJANGO, CLEAN, code=1)))
    assert (found.files, found.unit, found.unreadable) == (2, "package", ())
    assert found.sarif is not None
    Draft4Validator(json.loads(WRITTEN.read_text())).validate(json.loads(found.sarif))
    first, second = read_report(found.sarif, scope=Scope(category="deps")).findings
    assert (first.tool, first.rule_id, first.severity) == ("pip-audit", "CVE-2019-14234", "high")
    assert (first.package, first.fixed_version) == ("pkg:pypi/django@2.2.0", "1.11.23, 2.2.4")
    assert (first.path, first.identity) == ("requirements.txt", "package")
    assert first.message == "django 2.2.0: SQL injection in key transforms (PYSEC-2019-13, GHSA-6r97-cj55-9hrq)"
    assert (second.rule_id, second.fixed_version) == ("GHSA-aaaa-bbbb-cccc", None)


def test_pip_audit_without_findings_writes_a_report():
    """A SARIF with a run and no result: a clean scan is on record too."""
    found = looked(pip_audit(audit(CLEAN)))
    assert found.sarif is not None
    report = read_report(found.sarif)
    assert ([run.tool for run in report.runs], report.findings) == (["pip-audit"], ())


def test_pip_audit_that_skipped_everything_has_not_looked():
    """It exits 0 and prints "No known vulnerabilities found"."""
    said = "No known vulnerabilities found\n"
    reason = refused(pip_audit(audit(SKIPPED, {**SKIPPED, "name": "other"}, said=said)))
    assert reason.startswith("pip-audit skipped every dependency of requirements.txt: Dependency not found on PyPI")


def test_pip_audit_that_skipped_everything_of_one_file_has_not_looked():
    """Another file that could be audited does not make up for it."""
    refused(pip_audit(audit(CLEAN), {**audit(SKIPPED), "manifest": "b.txt"}))


def test_pip_audit_says_what_it_skipped():
    """Some of many: they are named, and the others count."""
    found = looked(pip_audit(audit(CLEAN, SKIPPED)))
    assert (found.files, found.unreadable) == (1, ("own-package (requirements.txt)",))


def test_pip_audit_without_its_service_has_not_looked():
    """The reason names the host, not a traceback."""
    reason = refused(pip_audit(audit(code=1, said=UNREACHABLE, report=None)))
    assert reason.startswith("pip-audit cannot reach the service that knows the vulnerabilities at api.osv.dev")


@pytest.mark.parametrize(
    "said",
    [
        "ERROR:pip_audit._cli:requirement file r.txt contains invalid specifier at line 1: Invalid requirement\n",
        "ERROR:pip_audit._cli:/w/pylock.toml: invalid TOML in lockfile\n",
        "ERROR:pip_audit._cli:pylock.toml: missing packages in lockfile\n",
        "ERROR:pip_audit._virtual_env:internal pip failure: ERROR: No matching distribution found for six==99\n",
    ],
)
def test_pip_audit_tells_a_wrong_file_from_a_failed_tool(said: str):
    """What a commit must mend is the repository's fault."""
    assert "cannot read requirements.txt" in refused(pip_audit(audit(code=1, said=said, report=None)), "repository")


@pytest.mark.parametrize(
    "said",
    [
        "ERROR:pip_audit._cli:Failed to upgrade `pip`: ['/tmp/x/bin/python', '-m', 'pip', 'install', '--upgrade']\n",
        "ERROR:pip_audit._virtual_env:internal pip failure: WARNING: Retrying after connection broken by "
        "'NewConnectionError()': /simple/six/\nERROR: No matching distribution found for six\n",
    ],
)
def test_pip_audit_without_an_index_is_not_the_repositorys_fault(said: str):
    """pip also says that there is no such package then."""
    assert "pip reaches no package index" in refused(pip_audit(audit(code=1, said=said, report=None)))


@pytest.mark.parametrize(
    "broken",
    [
        audit(code=1, said="Segmentation fault", report=None),
        audit(DJANGO, code=0),
        audit(CLEAN, code=1),
        audit(CLEAN, code=2),
        audit(CLEAN, code=137),
        audit(code=1, report=None),
    ],
)
def test_pip_audit_whose_code_and_report_disagree_has_not_looked(broken: dict[str, object]):
    """Findings with 0, none with 1, other codes, no report."""
    assert "requirements.txt" in refused(pip_audit(broken))


@pytest.mark.parametrize(
    "detail", [None, b"", b"{", b"[]", b'{"audits": [{}]}', b'{"audits": [{"report": 1}]}', b"\xff"]
)
def test_pip_audit_report_that_is_none_is_refused(detail: bytes | None):
    """Missing, cut off, of another form."""
    assert "no report" in refused(PIP_AUDIT.look(ToolRun(1, "Killed", None, detail)))


def test_pip_audit_file_without_dependencies_is_not_clean():
    """Nothing was looked up."""
    refused(pip_audit(audit()), "repository")
    refused(pip_audit(), "repository")


def test_pip_audit_chooses_one_source_per_project(tmp_path: Path):
    """A lock before pyproject.toml, which counts only with dependencies; each requirements file by itself."""
    files = {
        "a/pyproject.toml": '[project]\ndependencies = ["six"]\n',
        "a/pylock.toml": "",
        "a/pylock.dev.toml": "",
        "b/pyproject.toml": "[tool.ruff]\n",
        "c/pyproject.toml": '[project]\ndependencies = ["six"]\n',
        "c/requirements-dev.txt": "six\n",
        "d/pyproject.toml": "[project\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert chosen(tmp_path, files) == (
        "a/pylock.dev.toml",
        "c/pyproject.toml",
        "c/requirements-dev.txt",
        "d/pyproject.toml",
    )


# --- Trivy -------------------------------------------------------------------------------------------------------

PACKAGES = {"Target": "poetry.lock", "Class": "lang-pkgs", "Type": "poetry", "Packages": [{"Name": "six"}]}
CONFIGURED = {"Target": "Dockerfile", "Class": "config", "Type": "dockerfile"}
NO_DATABASE = (
    "2026-11-21T06:00:00Z\tINFO\t[vulndb] Need to update DB\n"
    "2026-11-21T06:00:00Z\tFATAL\tFatal error\trun error: init error: DB error: failed to download vulnerability DB: "
    'OCI repository error: 1 error occurred:\n\t* Get "https://mirror.gcr.io/v2/": dial tcp: no such host\n\n'
)


def trivy(*results: object, code: int = 0, output: str = "", **fields: object) -> Looked | Refused:
    detail = {"SchemaVersion": 2, "ArtifactName": ".", "ArtifactType": "filesystem", "Results": results}
    return TRIVY.look(ToolRun(code, output, SARIF, json.dumps(detail).encode(), **fields))  # type: ignore[arg-type]


def test_trivy_that_read_packages_has_looked():
    """How many; the lock file that gave none is named."""
    found = looked(trivy(PACKAGES, manifests=("poetry.lock", "web/yarn.lock")))
    assert (found.files, found.unit, found.unreadable) == (1, "package", ("web/yarn.lock",))


@pytest.mark.parametrize(
    "results", [(), (CONFIGURED,), ({**PACKAGES, "Packages": []},), ({**PACKAGES, "Packages": None},)]
)
def test_trivy_that_read_no_package_has_not_looked(results: tuple[object, ...]):
    """Exit 0, and nothing or only configuration in the report."""
    assert "found no package" in refused(trivy(*results), "repository")


def test_trivy_without_results_has_not_looked():
    """`Results` is missing altogether when there was nothing to read."""
    detail = b'{"SchemaVersion": 2, "ArtifactName": ".", "ArtifactType": "filesystem"}'
    refused(TRIVY.look(ToolRun(0, "", SARIF, detail)), "repository")


def test_trivy_without_a_database_says_so_in_one_line():
    """The fatal line and what follows it, without time stamp and the words around the reason."""
    reason = refused(trivy(code=1, output=NO_DATABASE))
    assert reason == 'trivy exited with 1: Get "https://mirror.gcr.io/v2/": dial tcp: no such host'
    assert TRIVY.why_not(ToolRun(1, NO_DATABASE, None)).startswith('Get "https://mirror.gcr.io/v2/"')


@pytest.mark.parametrize("code", [1, 2, 137, 139])
def test_trivy_that_failed_is_refused_whatever_it_wrote(code: int):
    """A report beside a bad exit code is not believed."""
    assert f"exited with {code}" in refused(trivy(PACKAGES, code=code))


@pytest.mark.parametrize(
    "detail", [None, b"", b"{", b"[]", b"{}", b'{"SchemaVersion": "x"}', b'{"Results": 1}', b"\xff"]
)
def test_trivy_report_that_is_none_is_refused(detail: bytes | None):
    """Missing, cut off, of another form."""
    refused(TRIVY.look(ToolRun(0, "", SARIF, detail)))


def test_trivy_without_sarif_is_refused():
    """The conversion failed."""
    detail = json.dumps({"SchemaVersion": 2, "Results": [PACKAGES]}).encode()
    refused(TRIVY.look(ToolRun(0, "", None, detail)))


def test_trivy_for_secrets_alone_does_not_tell_how_much_it_read():
    """It says so by saying nothing; configuration it counts."""
    assert looked(trivy(look_for=("secrets",))).files is None
    assert looked(trivy(CONFIGURED, look_for=("misconfiguration",))).files == 1
    refused(trivy(look_for=("misconfiguration",)), "repository")


def test_trivy_command_line_asks_nobody():
    """The scan fetches no database, no rules, no versions, and obeys no configuration of the repository's."""
    (_, _, words) = TRIVY.argv(attrs.evolve(REQUEST, database=Path("/db")))
    for option in ("--skip-db-update", "--skip-java-db-update", "--skip-check-update", "--skip-version-check"):
        assert option in words
    assert "--config /dev/null" in words
    assert "'--skip-dirs=**/a b'" in words


def test_trivy_login_stands_in_the_environment_alone():
    """A command line can be read by every user of the machine."""
    image = ImageInput("registry", "registry.example/shop:1", "ci", "s3cret")
    request = attrs.evolve(REQUEST, image=image)
    assert "s3cret" not in " ".join(TRIVY.argv(request)) + repr(request)
    assert TRIVY.env(request)["TRIVY_PASSWORD"] == "s3cret"


def test_trivy_fetches_the_java_index_only_when_asked():
    """It is large, and only .jar files need it."""
    one = DatabaseRequest(Path("/t/bin"), "registry.example/db:2")
    assert "--download-java-db-only" not in " ".join(TRIVY.fetch(one))
    both = " ".join(TRIVY.fetch(attrs.evolve(one, java=True, java_mirror="registry.example/java:1")))
    assert "--java-db-repository registry.example/java:1" in both
    assert "--db-repository registry.example/db:2" in both


# --- Grype -------------------------------------------------------------------------------------------------------


def component(path: str, kind: str = "library") -> dict[str, object]:
    place = {"name": "syft:location:0:path", "value": path}
    return {"type": kind, "name": "six", "properties": [{"name": "syft:package:type", "value": "python"}, place]}


def bill(*components: object) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}).encode()


def grype(*components: object, code: int = 0, output: str = "", manifests: tuple[str, ...] = ()) -> Looked | Refused:
    return GRYPE.look(ToolRun(code, output, SARIF, bill(*components), manifests))


def test_grype_that_read_packages_has_looked():
    """Every package that it lists, whether vulnerable or not; the lock file that gave none is named."""
    found = looked(grype(component("/poetry.lock"), component("/a/go.mod"), manifests=("a/go.mod", "yarn.lock")))
    assert (found.files, found.unit, found.unreadable) == (2, "package", ("yarn.lock",))


@pytest.mark.parametrize("components", [(), ({"type": "operating-system"},), ({"type": "file", "name": "x"},)])
def test_grype_that_read_no_package_has_not_looked(components: tuple[object, ...]):
    """Exit 0 and an empty report."""
    assert "found no package" in refused(grype(*components), "repository")


def test_grype_without_a_database_says_so():
    """It exits 1; its last line is the reason."""
    said = (
        "[0000] ERROR failed to load vulnerability db: the vulnerability database was built 6 weeks ago "
        "(max allowed age is 5 days)\n"
    )
    assert "max allowed age is 5 days" in refused(GRYPE.look(ToolRun(1, said, None, None)))


@pytest.mark.parametrize("code", [1, 2, 137])
def test_grype_that_failed_is_refused_whatever_it_wrote(code: int):
    """A report beside a bad exit code is not believed."""
    refused(grype(component("/poetry.lock"), code=code))


@pytest.mark.parametrize("detail", [None, b"", b"{", b"[]", b"{}", b'{"bomFormat": 1}', b'{"components": {}}', b"\xff"])
def test_grype_list_that_is_none_is_refused(detail: bytes | None):
    """Missing, cut off, of another form."""
    refused(GRYPE.look(ToolRun(0, "", SARIF, detail)))


def test_grype_never_fetches_while_it_scans():
    """And asks nobody for a newer version of itself."""
    env = GRYPE.env(attrs.evolve(REQUEST, database=Path("/db")))
    assert (env["GRYPE_DB_AUTO_UPDATE"], env["GRYPE_CHECK_FOR_APP_UPDATE"]) == ("false", "false")
    assert env["GRYPE_DB_CACHE_DIR"] == "/db"
    fetch = GRYPE.fetch_env(DatabaseRequest(Path("/t/bin"), "https://grype.example/latest.json"))
    assert fetch["GRYPE_DB_UPDATE_URL"] == "https://grype.example/latest.json"


# What Grype writes for a checkout with one package, in the form of its own golden files.
GRYPE_SARIF = {
    "version": "2.1.0",
    "runs": [
        {
            "tool": {
                "driver": {
                    "name": "grype",
                    "version": "0.95.0",
                    "rules": [
                        {
                            "id": "CVE-2019-14234-django",
                            "name": "PythonMatcherExactDirectMatch",
                            "shortDescription": {"text": "CVE-2019-14234 critical vulnerability for django package"},
                            "help": {
                                "text": "Vulnerability CVE-2019-14234\nSeverity: critical\nPackage: django\n"
                                "Version: 2.2.0\nFix Version: 2.2.4\nType: python\nLocation: requirements.txt"
                            },
                            "properties": {"purls": ["pkg:pypi/django@2.2.0"], "security-severity": "9.8"},
                        },
                        {
                            "id": "CVE-2030-0001-django",
                            "name": "PythonMatcherExactDirectMatch",
                            "help": {"text": "Vulnerability CVE-2030-0001\nFix Version: \nType: python"},
                            "properties": {"purls": ["pkg:pypi/django@2.2.0"], "security-severity": "7.5"},
                        },
                    ],
                }
            },
            "results": [
                {
                    "ruleId": rule,
                    "level": "error",
                    "message": {"text": "A high vulnerability in python package: django, version 2.2.0 was found"},
                    "locations": [{"physicalLocation": {"artifactLocation": {"uri": "/workspace/requirements.txt"}}}],
                }
                for rule in ("CVE-2019-14234-django", "CVE-2030-0001-django")
            ],
        }
    ],
}

InstallGrype = Callable[[str], None]


@pytest.fixture
def install_grype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallGrype:
    """install_grype(script): a command `grype` on PATH that replays a recording."""

    def install(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "grype").write_text(f"#!/bin/sh\nset -e\n{script}\n")
        (folder / "grype").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/local/bin:/usr/bin:/bin")

    return install


def grype_step(context: StepContext, **fields: object) -> StepResult:
    (context.workspace / "requirements.txt").write_text("django==2.2.0\n")
    return run(Config.model_validate({"name": "deps", "type": "step.scan_deps", "scanner": "grype", **fields}), context)


# A recording: it writes what Grype writes, into the folder that it is started in.
REPLAY = f"""
if [ "$1" = db ]; then touch vulnerability.db; exit 0; fi
test -f "$GRYPE_DB_CACHE_DIR/vulnerability.db"
cat > report.sarif <<'END'
{json.dumps(GRYPE_SARIF)}
END
cat > detail.json <<'END'
{bill(component("/requirements.txt")).decode()}
END
"""


def test_grype_from_path_scans(context: StepContext, install_grype: InstallGrype):
    """Its database is fetched first, its report becomes findings with purl, CVE and what mends them."""
    install_grype(REPLAY)
    result = grype_step(context, ignore_unfixed=True)
    assert result.state == "failed"
    assert result.verdict is not None
    assert (result.verdict.evidence["critical"], result.verdict.evidence["unfixed"]) == (1, 1)
    first, second = result.scans[0].report.findings
    assert (first.package, first.path, first.fixed_version) == ("pkg:pypi/django@2.2.0", "requirements.txt", "2.2.4")
    assert second.fixed_version is None


def test_grype_whose_database_cannot_be_had_is_a_platform_error(context: StepContext, install_grype: InstallGrype):
    """One line, with the tool's own last one and the remedy."""
    install_grype('echo "unable to update vulnerability database: no such host" >&2; exit 1')
    with pytest.raises(PlatformError, match=r"grype has no database of vulnerabilities: unable to update.*mirror"):
        grype_step(context, database={"mirror": "https://nobody.example/latest.json"})


def test_real_grype_reports_are_read():
    """Golden files of Grype's own, where they lie beside this repository."""
    files = sorted(CORPUS.glob("*.golden")) if CORPUS.is_dir() else []
    if not files:
        pytest.skip("no corpus of reports lies beside this repository")
    for file in files:
        shown = looked(GRYPE.look(ToolRun(0, "", file.read_bytes(), bill(component("/x")))))
        assert shown.files == 1
        findings = read_report(file.read_bytes()).findings
        assert findings
        assert all(one.package for one in findings)


# --- what they share ---------------------------------------------------------------------------------------------


def test_manifests_are_found_below_paths_and_not_where_excluded(tmp_path: Path):
    """Whole names and globs, at any depth; a file named as a path counts whatever its name."""
    names = ("go.mod", "a/go.mod", "node_modules/x/go.mod", "a/old/go.mod", "contest/go.mod", "b/deps.in", "c/go.modx")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_manifests(tmp_path, (".", "b/deps.in"), ("node_modules", "test", "a/old"), ("go.mod",))
    assert found == ("a/go.mod", "b/deps.in", "contest/go.mod", "go.mod")
    assert find_manifests(tmp_path, ("a",), ("o*d",), ("go.mod",)) == ("a/go.mod",)


def test_manifests_of_linked_folders_are_not_followed(tmp_path: Path):
    """A link to a folder above would have no end."""
    (tmp_path / "go.mod").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert find_manifests(tmp_path, (".",), (), ("go.mod",)) == ("go.mod",)


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        ("source", ("semgrep", "bandit")),
        ("dependencies", ("trivy", "grype", "pip-audit")),
        ("image", ("trivy", "grype")),
    ],
)
def test_registry_says_which_scanner_is_for_what(subject: str, names: tuple[str, ...]):
    """The first is the step's default, and each can be opened by its name."""
    assert scanner_names(subject) == names  # type: ignore[arg-type]
    assert [open_scanner(name).name for name in names] == list(names)
