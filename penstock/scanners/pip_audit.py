"""
pip-audit: known vulnerabilities of Python packages, asked of the Python package index or of an OSV service.

It exits 0 when it found nothing, 1 when it found something or when it failed. **A dependency that it skipped is exit 0
and "no known vulnerabilities"**, and only a `skip_reason` in its JSON. It writes no SARIF: we do, from its JSON. It
knows no severities: every known vulnerability counts as high.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
import msgspec

from penstock.findings.finding import Finding
from penstock.findings.packages import purl_of
from penstock.scanners import (
    VULNERABILITIES,
    Looked,
    Refused,
    ScanRequest,
    ToolRun,
    Weakness,
    last_line,
    own_environment,
)

RUNNER = Path(__file__).with_name("pip_audit_run.py")
SEVERITY = "high"
_LONGEST = 1000
_UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError|HTTPError|Could not connect|Tip: your"
)
_NO_INDEX = re.compile(r"Failed to upgrade `pip`|after connection broken by")
_HOST = re.compile(r"host='([^']+)'")
_REPOSITORY = re.compile(
    r"ERROR:pip_audit\S*?:(?P<said>requirement file .+|.*invalid TOML.+|.*missing (?:lock-version|packages).+"
    r"|.*is not supported.*|.*does not contain .+|.*not pinned.+|.*does not contain a hash.+)"
    r"|ERROR: (?P<pip>No matching distribution found .+|Cannot install .+|Invalid requirement: .+)"
)


class _Advisory(msgspec.Struct, frozen=True):
    id: str
    fix_versions: list[str] = []
    aliases: list[str] = []
    description: str = ""


class _Dependency(msgspec.Struct, frozen=True):
    name: str
    version: str | None = None
    vulns: list[_Advisory] = []
    skip_reason: str | None = None


class _Dependencies(msgspec.Struct, frozen=True):
    dependencies: list[_Dependency]


class _Audit(msgspec.Struct, frozen=True):
    manifest: str
    code: int
    said: str
    report: _Dependencies | None


class _Audits(msgspec.Struct, frozen=True):
    audits: list[_Audit]


@attrs.frozen
class PipAudit:
    """The Python Packaging Authority's pip-audit."""

    name: str = "pip-audit"
    read_only: tuple[Path, ...] = (RUNNER,)
    network: bool = True
    one_path: bool = False
    looks_for: tuple[Weakness, ...] = VULNERABILITIES
    reads: tuple[str, ...] = ("requirements*.txt", "pylock.toml", "pylock.*.toml", "pyproject.toml")

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """`-I` keeps the repository's modules out of the tool."""
        manifests = chosen(request.workspace, request.manifests)
        return (str(request.bin / "python"), "-I", str(RUNNER), request.detail, request.mirror or "", *manifests)

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """Nothing of its own."""
        return own_environment(request)

    def look(self, run: ToolRun) -> Looked | Refused:
        """See `Scanner.look`."""
        try:
            audits = msgspec.json.decode(run.detail or b"", type=_Audits).audits
        except msgspec.DecodeError as error:
            said = last_line(run.output) if run.code or run.detail is None else str(error)
            return Refused(f"pip-audit exited with {run.code} and no report: {said or 'it said nothing'}")
        if not audits:
            reason = (
                "pip-audit found no requirements file, pylock.toml or pyproject.toml with dependencies; "
                "name them in `paths` (of uv.lock or poetry.lock, export one), or use trivy or grype"
            )
            return Refused(reason, fault="repository")
        return next((why for one in audits if (why := _refused(one))), None) or _looked(audits)


def chosen(workspace: Path, manifests: Iterable[str]) -> tuple[str, ...]:
    """Those to audit: the locks of a folder are one to pip-audit, and where they are, pyproject.toml adds nothing."""
    names = tuple(manifests)
    locked = {Path(name).parent: name for name in sorted(names, reverse=True) if _is_lock(name)}
    projects = {name for name in names if Path(name).name == "pyproject.toml"}
    wanted = {name for name in projects if Path(name).parent not in locked and _has_dependencies(workspace / name)}
    lists = {name for name in names if name not in projects and not _is_lock(name)}
    return tuple(sorted({*locked.values(), *wanted, *lists}))


def _is_lock(name: str) -> bool:
    return Path(name).name.startswith("pylock.")


def _has_dependencies(path: Path) -> bool:
    """False for a pyproject.toml that only configures tools. One that cannot be read is pip-audit's to refuse."""
    try:
        return bool(tomllib.loads(path.read_text()).get("project", {}).get("dependencies"))
    except (OSError, ValueError, AttributeError):
        return True


def _refused(audit: _Audit) -> Refused | None:
    """Why one manifest's audit must not be believed."""
    report = audit.report
    found = [one for one in report.dependencies if one.vulns] if report else []
    if report is None or audit.code not in (0, 1) or bool(found) != (audit.code == 1):
        return _failed(audit)
    skipped = [one for one in report.dependencies if one.skip_reason]
    if skipped and len(skipped) == len(report.dependencies):
        why = " ".join((skipped[0].skip_reason or "").split())[:200]
        return Refused(f"pip-audit skipped every dependency of {audit.manifest}: {why}")
    if not report.dependencies:
        return Refused(f"pip-audit found no dependency in {audit.manifest}; mend or exclude it", fault="repository")
    return None


def _failed(audit: _Audit) -> Refused:
    """Who could not be reached comes first: pip then says that there is no such package, too."""
    if _NO_INDEX.search(audit.said):
        return Refused(
            f"pip-audit cannot find out what {audit.manifest} would install: pip reaches no package index; "
            "let this machine reach one, or commit a requirements file with hashes or a pylock.toml"
        )
    if _UNREACHABLE.search(audit.said):
        host = _HOST.search(audit.said)
        where = f" at {host[1]}" if host else ""
        return Refused(
            f"pip-audit cannot reach the service that knows the vulnerabilities{where}; "
            "let this machine reach it, or name a mirror in `database`"
        )
    if mistake := _REPOSITORY.search(audit.said):
        said = " ".join((mistake["said"] or mistake["pip"]).split())[:300]
        return Refused(f"pip-audit cannot read {audit.manifest}: {said}", fault="repository")
    return Refused(f"pip-audit exited with {audit.code} for {audit.manifest}: {last_line(audit.said) or 'no word'}")


def _looked(audits: list[_Audit]) -> Looked:
    read = [(audit.manifest, one) for audit in audits for one in (audit.report or _Dependencies([])).dependencies]
    skipped = {f"{one.name} ({manifest})" for manifest, one in read if one.skip_reason}
    audited = sum(1 for _, one in read if not one.skip_reason)
    findings = [finding for manifest, one in read for finding in _findings(manifest, one)]
    return Looked(audited, tuple(sorted(skipped)), unit="package", sarif=_sarif(findings))


def _findings(manifest: str, dependency: _Dependency) -> Iterator[Finding]:
    for advisory in dependency.vulns:
        names = [advisory.id, *sorted(advisory.aliases)]
        rule = next((name for name in names if name.startswith("CVE-")), advisory.id)
        others = ", ".join(name for name in names if name != rule)
        text = " ".join(advisory.description.split())[:_LONGEST] or "a known vulnerability"
        yield Finding(
            tool="pip-audit",
            rule_id=rule,
            severity=SEVERITY,
            message=f"{dependency.name} {dependency.version}: {text}" + (f" ({others})" if others else ""),
            path=manifest,
            package=purl_of("pypi", dependency.name, dependency.version),
            fixed_version=", ".join(advisory.fix_versions) or None,
            help_uri=f"https://osv.dev/vulnerability/{rule}",
        )


def _sarif(findings: list[Finding]) -> bytes:
    from penstock.findings.write import SCHEMA_URI, to_sarif

    if findings:
        return to_sarif(findings)
    run = {"tool": {"driver": {"name": "pip-audit"}}, "results": []}
    return msgspec.json.encode({"version": "2.1.0", "$schema": SCHEMA_URI, "runs": [run]})


SCANNER = PipAudit()
