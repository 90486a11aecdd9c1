"""step.scan_deps: look up the dependencies that the repository names; known vulnerabilities stop the pipeline."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.pipeline.spec import WorkspacePath
from penstock.scanners import PackageScanner, ScanRequest, scanner_names
from penstock.steps.context import StepContext, StepResult
from penstock.steps.package_scanning import (
    PackageScanFields,
    in_common,
    open_database,
    package_scanner,
    seen_files,
)
from penstock.steps.scanning import (
    ALWAYS_EXCLUDED,
    Exclusion,
    Scan,
    check_paths,
    run_scan,
    scan_folder,
    tool_files,
)

if TYPE_CHECKING:
    DependencyScanner = str
else:
    DependencyScanner = Literal[scanner_names("dependencies")]

INSTALLED = ("node_modules", ".venv", "venv")


class Config(PackageScanFields):
    """Which dependencies to look up, by what, and from which severity on it fails."""

    summary: ClassVar[str] = "Scan dependencies for known vulnerabilities (Trivy, Grype, pip-audit)."

    scanner: DependencyScanner = Field(
        "trivy", description="trivy, grype: lock files of many languages. pip-audit: Python."
    )
    paths: tuple[WorkspacePath, ...] = Field(
        (".",), min_length=1, description="Where to look for lock files and manifests; one path for trivy and grype."
    )
    exclude: tuple[Exclusion, ...] = Field(
        INSTALLED, description="Names, paths or globs not to look at; default: folders of installed packages."
    )

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if len(self.paths) > 1 and package_scanner(self.scanner).one_path:
            raise ValueError(f"{self.scanner} looks at one path; write a step for each")
        return self


def run(config: Config, context: StepContext) -> StepResult:
    """
    Scan the workspace's lock files and manifests.

    Raises: StepFailure for a path that is not there, PlatformError when the scanner could not look.
    """
    # Imported here: `penstock check` reads this file's model and installs nothing.
    from penstock.scanners.manifests import find_manifests
    from penstock.scanners.tools import find_tool

    check_paths(config.name, config.paths, context.workspace)
    scanner = package_scanner(config.scanner)
    tool = find_tool(context.settings, scanner, token=context.token, say=context.log.line)
    exclude = (*config.exclude, *ALWAYS_EXCLUDED)
    manifests = find_manifests(context.workspace, config.paths, exclude, scanner.reads)
    with open_database(config, context, scanner, tool) as database, scan_folder(context.workspace) as output:
        request = ScanRequest(
            workspace=context.workspace,
            paths=config.paths,
            exclude=exclude,
            output=output.name,
            manifests=manifests,
            **in_common(config, tool, database),
        )
        visible = (*tool_files(tool, scanner), *seen_files(database))
        return run_scan(config, context, Scan(scanner, request, visible, scanner.network, _seen(request, scanner)))


def _seen(request: ScanRequest, scanner: PackageScanner) -> tuple[str, ...]:
    """The manifests as a scanner of one path names them: from there on."""
    if not scanner.one_path:
        return request.manifests
    top = request.paths[0]
    start = PurePosixPath(top).parent if Path(request.workspace, top).is_file() else PurePosixPath(top)
    return tuple(str(PurePosixPath(one).relative_to(start)) for one in request.manifests)
