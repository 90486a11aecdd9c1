"""step.artifact_push: publish a file or folder under a key, for other runs and for people."""

from typing import ClassVar

from pydantic import Field

from penstock.pipeline.spec import ArtifactKey, Kind, StepFields, WorkspacePath
from penstock.steps.context import StepContext, StepResult
from penstock.steps.workspace import store_artifact


class Config(StepFields):
    """What to publish, and under which key."""

    kind: ClassVar[Kind] = "build"
    summary: ClassVar[str] = "Publish a file or folder of the workspace under a key."

    key: ArtifactKey = Field(description="The name under which any run of the project finds it.")
    path: WorkspacePath = Field(description="A file or folder in the workspace.")

    def artifact_keys(self) -> tuple[str, ...]:
        """Its one key."""
        return (self.key,)


def run(config: Config, context: StepContext) -> StepResult:
    """Store it and make its key known."""
    artifact = store_artifact(context, config.key, config.path, published=True)
    context.log.line(f"published {config.key}: {artifact.size_bytes} bytes, sha256 {artifact.digest}")
    return StepResult("succeeded", artifacts=(artifact,), outputs={"digest": artifact.digest})
