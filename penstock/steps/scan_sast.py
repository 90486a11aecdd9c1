"""step.scan_sast: read the source for weaknesses; findings at or above a severity stop the pipeline."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.pipeline.spec import WorkspacePath
from penstock.scanners import ScanRequest, open_scanner, scanner_names
from penstock.steps.context import StepContext, StepResult
from penstock.steps.scanning import (
    ALWAYS_EXCLUDED,
    Exclusion,
    Scan,
    ScanFields,
    check_paths,
    run_scan,
    scan_folder,
    tool_files,
)

if TYPE_CHECKING:
    SourceScanner = str
else:
    SourceScanner = Literal[scanner_names("source")]

TESTS_AND_DEPENDENCIES = ("tests", "test", "test_*.py", "conftest.py", "node_modules", "vendor", ".venv", "venv")


class Config(ScanFields):
    """What to scan, by what, and from which severity on it fails."""

    summary: ClassVar[str] = "Scan the source for weaknesses (Semgrep, Bandit)."

    scanner: SourceScanner = Field(
        "semgrep", description="semgrep: Python, JavaScript, TypeScript, Dockerfiles, secrets. bandit: Python."
    )
    paths: tuple[WorkspacePath, ...] = Field((".",), min_length=1, description="Files and folders to look at.")
    exclude: tuple[Exclusion, ...] = Field(
        TESTS_AND_DEPENDENCIES, description="Names, paths or globs not to look at; default: tests and dependencies."
    )


def run(config: Config, context: StepContext) -> StepResult:
    """
    Scan the workspace.

    Raises: StepFailure for a path that is not there, PlatformError when the scanner itself failed.
    """
    # Imported here: `penstock check` reads this file's model and installs nothing.
    from penstock.scanners.tools import find_tool

    check_paths(config.name, config.paths, context.workspace)
    scanner = open_scanner(config.scanner)
    tool = find_tool(context.settings, scanner, token=context.token, say=context.log.line)
    with scan_folder(context.workspace) as output:
        request = ScanRequest(
            bin=tool.bin,
            workspace=context.workspace,
            paths=config.paths,
            exclude=(*config.exclude, *ALWAYS_EXCLUDED),
            output=output.name,
        )
        return run_scan(config, context, Scan(scanner, request, tool_files(tool, scanner), scanner.network))
