"""A run that waits at a gate, and people who may answer, for tests."""

import attrs
import sqlalchemy as sa

from penstock.people import groups, users
from penstock.people.users import User
from penstock.pipeline import records
from penstock.pipeline.approval_rows import Request
from penstock.pipeline.approval_rules import Answer, ApprovalRule
from penstock.pipeline.approvals import Question, ask, list_requests
from penstock.pipeline.load import load_spec
from penstock.pipeline.log import utc_now
from penstock.pipeline.plan import compile_graph
from penstock.pipeline.session import new_run_id
from penstock.steps.context import RunInfo, StepResult

PIPELINE = """
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: ["true"]}
  - {name: release, type: step.gate, needs: [build], approval: {}}
  - {name: go, type: step.shell_exec, needs: [release], commands: ["true"]}
"""
PASSED = StepResult("succeeded")
ADA = User("ada", "ada@example.org", ("Ada Lovelace",))
GRACE = User("grace", "grace@example.org", ("Grace Hopper",))
MARY = User("mary", "mary@example.org")
BY_ADA = "Ada Lovelace <ada@example.org>"


@attrs.frozen
class Gate:
    """Runs of one commit that come to the gate `release`."""

    database: sa.Engine
    commit: str = "c" * 40
    project: str = "shop"
    pipeline: str = PIPELINE
    built: StepResult = PASSED

    def people(self, *known: User, **members: tuple[str, ...]) -> None:
        """Make users known; keywords are groups."""
        with self.database.begin() as connection:
            for user in known or (ADA, GRACE, MARY):
                users.add_user(connection, user)
            for group, names in members.items():
                groups.add_group(connection, group, names)

    def run(self, author: str | None = BY_ADA, actor: str | None = None) -> RunInfo:
        """A run whose steps before the gate have passed."""
        graph = compile_graph(load_spec(self.pipeline.encode()))
        about = {"actor": actor} if actor else {}
        info = RunInfo(
            new_run_id(), self.project, self.commit, "refs/heads/main", graph.hash, graph.structure_hash, author=author,
            about=about, title="Sell more",
        )  # fmt: skip
        records.create_run(self.database, info, graph, begun=True)
        records.finish_step(self.database, info, "build", self.built)
        return info

    def comes(self, info: RunInfo, rule: ApprovalRule | None = None, digest: str = "d1") -> Answer:
        """The run comes to the gate; when it has to wait, the run ends as waiting."""
        answer = ask(self.database, Question(info, "release", rule or ApprovalRule(), digest), utc_now())
        if answer.state == "waiting":
            records.finish_step(self.database, info, "release", StepResult("waiting", reason="waits"))
            records.finish_run(self.database, info.id)
        return answer

    def waits(self, rule: ApprovalRule | None = None, digest: str = "d1", **options: str | None) -> Request:
        """A new run that waits, and what it asks."""
        info = self.run(**options)
        assert self.comes(info, rule, digest).state == "waiting"
        return self.newest()

    def newest(self) -> Request:
        return list_requests(self.database, limit=1)[0]

    def run_state(self, run_id: str) -> str:
        return records.load_run(self.database, run_id).state
