"""The labels that tell where an image comes from."""

import re
from typing import TYPE_CHECKING

from penstock.errors import NotFoundError, StepFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

    from penstock.steps.context import RunInfo

REVISION, SOURCE = "org.opencontainers.image.revision", "org.opencontainers.image.source"
CREATED = "org.opencontainers.image.created"
PROJECT = "io.penstock.project"
_ADDRESS = re.compile(r"(https?|ssh|git)://|[\w.-]+@[\w.-]+:")


def image_labels(run: "RunInfo", database: "sa.Engine") -> dict[str, str]:
    """
    Commit, repository and time, so that the same commit gives the same labels: `created` is the commit's time.

    Source: https://github.com/opencontainers/image-spec/blob/main/annotations.md
    """
    labels = {REVISION: run.commit, PROJECT: run.project}
    if source := _source(run.project, database):
        labels[SOURCE] = source
    if run.committed_at:
        labels[CREATED] = run.committed_at.isoformat(timespec="seconds")
    return labels


def _source(project: str, database: "sa.Engine") -> str | None:
    """The repository's address, without credentials as all of them; a folder of this machine says nothing elsewhere."""
    from penstock.sources.projects import get_project

    try:
        url = get_project(database, project).url
    except NotFoundError:
        return None
    return url if _ADDRESS.match(url) else None


def check_origin(image: str, labels: "Mapping[str, str] | None", run: "RunInfo") -> None:
    """
    See that a local name still stands for what this commit built: another run may have built the same name since.

    labels: of the image; one that Penstock did not build for this project is not judged.
    Raises: StepFailure.
    """
    found = labels or {}
    if found.get(PROJECT) == run.project and found.get(REVISION) != run.commit:
        raise StepFailure(
            f"{image} is of commit {found.get(REVISION, '')[:12]} by now, not of {run.partition}",
            remedy="put ${{ commit }} into the tag, so that runs do not take each other's images",
        )
