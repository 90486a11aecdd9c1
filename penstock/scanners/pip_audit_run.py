"""
Runs pip-audit once for each manifest, in the tool's own environment: the standard library only.

    python -I pip_audit_run.py OUTPUT MIRROR MANIFEST...

OUTPUT: the file that takes, as JSON, each manifest's exit code, what was said, and the report (null: none).
MIRROR: the address of an OSV service, or empty for the Python package index.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_KEPT = 4000


def main(output: str, mirror: str, *manifests: str) -> None:
    """Audit each and write what came of it; what pip-audit says goes to our output too."""
    audits = [{"manifest": manifest, **_audit(manifest, mirror)} for manifest in manifests]
    Path(output).write_text(json.dumps({"audits": audits}))


def _audit(manifest: str, mirror: str) -> dict[str, object]:
    print(f"auditing {manifest}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = command_of(manifest, mirror, str(report))
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        said = done.stdout.decode(errors="replace")
        print(said, end="", flush=True)
        return {"code": done.returncode, "said": said[-_KEPT:], "report": _read(report)}


def command_of(manifest: str, mirror: str, report: str) -> list[str]:
    """A file of hashes is complete and taken as it is; of any other, pip finds out what would be installed."""
    command = [sys.executable, "-I", "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"]
    command += ["--output", report]
    if mirror:
        command += ["--vulnerability-service", "osv", "--osv-url", mirror]
    path = Path(manifest)
    if path.suffix == ".toml":
        return [*command, *(["--locked"] if path.name.startswith("pylock.") else []), "--", str(path.parent)]
    hashed = "--hash=" in path.read_text(errors="replace")
    return [*command, *(["--require-hashes", "--disable-pip"] if hashed else []), f"--requirement={manifest}"]


def _read(report: Path) -> object:
    try:
        return json.loads(report.read_text())
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main(*sys.argv[1:])
