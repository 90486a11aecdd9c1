"""Commits pipelines and runs them in this process, for tests."""

import json

import attrs
from git_builder import GitRepository

from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.local import run_graph
from penstock.pipeline.log import log_path, read_log
from penstock.pipeline.plan import read_graph
from penstock.pipeline.session import RunSession, Services, new_run_id
from penstock.sources.git import WorkTree
from penstock.steps.context import RunInfo

HEAD = "version: 1\nsteps:\n"


def step(name: str, *commands: str, needs: str = "", more: str = "") -> str:
    """A step.shell_exec in YAML; `more` is further fields, one per line."""
    lines = [f"  - name: {name}", "    type: step.shell_exec", f"    needs: [{needs}]", "    commands:"]
    lines += [f"      - {json.dumps(command)}" for command in commands]
    return "\n".join([*lines, *(f"    {line}" for line in more.splitlines())]) + "\n"


@attrs.frozen
class Runner:
    """Commits pipelines and runs them. facts: what the run's event says."""

    repository: GitRepository
    services: Services

    def start(
        self,
        pipeline: str | None = None,
        only: set[str] | None = None,
        facts: dict[str, object] | None = None,
        **files: str,
    ) -> RunSession:
        if pipeline is not None:
            self.repository.commit({"penstock.yaml": HEAD + pipeline, **files})
        tree = WorkTree(self.repository.root)
        commit = tree.snapshot()
        graph = read_graph(tree.repository, commit)
        info = RunInfo(new_run_id(), "shop", commit, tree.branch(), graph.hash, graph.structure_hash)
        return RunSession.start(
            self.services,
            attrs.evolve(info, **(facts or {})),
            graph,
            tree.repository,
            on_line=lambda _step, _line: None,
            only=only,
        )

    def run(
        self,
        pipeline: str | None = None,
        only: set[str] | None = None,
        facts: dict[str, object] | None = None,
        **files: str,
    ) -> tuple[records.RunRecord, dict[str, records.StepRecord]]:
        """The run and its steps, as recorded."""
        session = self.start(pipeline, only, facts, **files)
        run_graph(session, CancelToken(), on_step=lambda _step, _result: None, only=only)
        session.finish()
        return self.recorded(session)

    def recorded(self, session: RunSession) -> tuple[records.RunRecord, dict[str, records.StepRecord]]:
        database = self.services.database
        steps = {found.step: found for found in records.list_steps(database, session.info.id)}
        return records.load_run(database, session.info.id), steps

    def log(self, run: records.RunRecord, name: str, *, own: bool = False) -> list[str]:
        """What a step printed, or what Penstock said of it."""
        path = log_path(self.services.settings.home, run.info.id, name)
        return [line.text for line in read_log(path)[0] if line.own == own]
