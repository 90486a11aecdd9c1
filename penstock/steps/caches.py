"""The `cache:` of a step: folders of earlier runs put in place before its commands, and kept after them."""

from collections.abc import Mapping, Sequence

from penstock.errors import PenstockError
from penstock.pipeline.spec import ContainedFields
from penstock.steps.context import StepContext


def restore_caches(config: ContainedFields, context: StepContext) -> Mapping[str, str | None]:
    """Put in place what is known. Returns: key → the key that was found, None when there was none."""
    from penstock.artifacts.caching import restore

    found: dict[str, str | None] = {}
    for entry in config.cache:
        found[entry.key] = restore(
            context.database,
            context.store,
            project=context.run.project,
            scopes=scopes(context),
            key=entry.key,
            prefixes=entry.restore,
            workspace=context.workspace,
            paths=entry.paths,
            log=context.log.line,
        )
    return found


def save_caches(config: ContainedFields, context: StepContext, found: Mapping[str, str | None]) -> None:
    """
    Keep what was not there under its very key. A pull request from a fork writes no cache that others read.

    A cache that cannot be kept is told, and fails nothing.
    """
    from penstock.artifacts.caching import save

    if context.run.from_fork:
        return
    for entry in config.cache:
        if found.get(entry.key) == entry.key:
            continue
        try:
            save(
                context.database,
                context.store,
                project=context.run.project,
                scope=context.run.ref,
                key=entry.key,
                workspace=context.workspace,
                paths=entry.paths,
            )
        except PenstockError as error:
            context.log.line(f"the cache {entry.key} was not kept: {error}")


def scopes(context: StepContext) -> Sequence[str]:
    """Whose caches a run may read: its own ref's, then the default branch's."""
    return tuple(dict.fromkeys((context.run.ref, f"refs/heads/{context.default_branch}")))
