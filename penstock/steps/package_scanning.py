"""What the scans of packages share: what they look for, and the database that they look it up in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, StringConstraints, model_validator

from penstock.pipeline.spec import Model, OneOrMany
from penstock.scanners import (
    VULNERABILITIES,
    DatabaseRequest,
    KeepsDatabase,
    PackageScanner,
    open_scanner,
)
from penstock.scanners.tools import Tool
from penstock.steps.context import StepContext
from penstock.steps.scanning import ScanFields, sandbox

Place = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][!-~]*$", max_length=500)]


class Database(Model):
    """Where the knowledge of vulnerabilities comes from, for a site that cannot reach the tool's own place."""

    mirror: Place | None = Field(
        None,
        description="trivy: an OCI repository, such as registry.example/trivy-db:2. grype: the address of a listing. "
        "pip-audit: the address of an OSV service, such as https://osv.example/v1/query.",
    )
    java: bool = Field(False, description="trivy: fetch its index of Java archives too (about 1 GB); .jar needs it.")
    java_mirror: Place | None = Field(None, description="trivy: an OCI repository for that index.")
    update: bool = Field(
        True, description="Whether to fetch it; otherwise it is used as it lies under PENSTOCK_HOME/tools."
    )


class PackageScanFields(ScanFields):
    """What the scans of packages may say besides."""

    scanner: str
    look_for: Annotated[tuple[Literal["vulnerabilities", "secrets", "misconfiguration"], ...], OneOrMany()] = Field(
        VULNERABILITIES, min_length=1, description="What to look for; all but vulnerabilities with trivy alone."
    )
    database: Database = Field(Database(), description="Where the knowledge of vulnerabilities comes from.")

    @model_validator(mode="after")
    def _can_look_for_it(self) -> Self:
        able = package_scanner(self.scanner).looks_for
        if unable := [word for word in self.look_for if word not in able]:
            raise ValueError(f"{self.scanner} does not look for {unable[0]}; use trivy")
        if self.scanner != "trivy" and (self.database.java or self.database.java_mirror):
            raise ValueError(f"{self.scanner} needs no index of Java archives; remove `java` from `database`")
        return self


def package_scanner(name: str) -> PackageScanner:
    """
    A scanner that finds packages.

    Raises: NotFoundError when there is none of that name.
    """
    return cast(PackageScanner, open_scanner(name))


@contextmanager
def open_database(
    config: PackageScanFields, context: StepContext, scanner: PackageScanner, tool: Tool
) -> Iterator[Path | None]:
    """
    The scanner's database, up to date; None for a scanner that has none, or is not asked for vulnerabilities.

    Raises: PlatformError when it cannot be had.
    """
    from penstock.scanners.databases import DatabaseKeeper

    if "vulnerabilities" not in config.look_for or not isinstance(scanner, KeepsDatabase):
        yield None
        return
    keeper = DatabaseKeeper(
        context.settings,
        sandbox(context),
        context.run.id,
        config.name,
        context.log,
        context.token,
        float(config.timeout),
    )
    wanted = DatabaseRequest(tool.bin, config.database.mirror, config.database.java, config.database.java_mirror)
    with keeper.opened(scanner.name, scanner, tool, wanted, update=config.database.update) as folder:
        yield folder


def in_common(config: PackageScanFields, tool: Tool, database: Path | None) -> Mapping[str, Any]:
    """Those fields of a ScanRequest that do not depend on what is scanned."""
    return {"bin": tool.bin, "look_for": config.look_for, "database": database, "mirror": config.database.mirror}


def seen_files(database: Path | None) -> tuple[Path, ...]:
    """What of the database the scan's job must see."""
    return () if database is None else (database,)
