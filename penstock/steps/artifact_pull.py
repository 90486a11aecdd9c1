"""step.artifact_pull: fetch a published artifact into the workspace, and hand it on."""

from typing import ClassVar

import attrs
from pydantic import Field

from penstock.errors import StepFailure
from penstock.pipeline.spec import ArtifactKey, Kind, StepFields, WorkspacePath
from penstock.steps.context import Artifact, StepContext, StepResult
from penstock.steps.workspace import place_artifact


class Config(StepFields):
    """Which artifact to fetch, and where to put it."""

    kind: ClassVar[Kind] = "build"
    summary: ClassVar[str] = "Fetch a published artifact into the workspace."

    key: ArtifactKey = Field(description="The key under which it was published.")
    path: WorkspacePath | None = Field(None, description="Where to put it; default: where it was.")
    ref: str | None = Field(
        None, description="Take the newest of this branch, or of refs/tags/NAME; default: this commit's."
    )

    def artifact_keys(self) -> tuple[str, ...]:
        """Its one key."""
        return (self.key,)


def run(config: Config, context: StepContext) -> StepResult:
    """Fetch it; what it fetched is there for the steps that need this one."""
    ref = config.ref and (config.ref if config.ref.startswith("refs/") else f"refs/heads/{config.ref}")
    found = context.find_published(config.key, ref)
    if found is None:
        of = f"branch {config.ref}" if config.ref else f"commit {context.run.partition}"
        raise StepFailure(
            f'no artifact "{config.key}" was published by {of}', remedy="publish it by step.artifact_push"
        )
    artifact: Artifact = attrs.evolve(found, path=config.path or found.path, published=False)
    place_artifact(context, artifact)
    context.log.line(f"fetched {config.key}: {artifact.size_bytes} bytes, sha256 {artifact.digest}")
    return StepResult("succeeded", artifacts=(artifact,), outputs={"digest": artifact.digest})
