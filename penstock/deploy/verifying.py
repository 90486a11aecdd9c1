"""Asks a release what its verification and its smoke tests ask."""

from collections.abc import Sequence

import msgspec

from penstock.deploy.health import HealthCheck
from penstock.deploy.releases import Instance
from penstock.deploy.targets import Target
from penstock.deploy.verification import Check, Checked, ask_all
from penstock.errors import PenstockError


def ask_instance(questions: Sequence[Check], target: Target, check: HealthCheck, instance: Instance) -> Checked:
    """Ask one instance itself, which may have no traffic yet."""
    return _ask(questions, f"http://127.0.0.1:{instance.port}", target, check, instance)


def ask_service(
    questions: Sequence[Check], target: Target, check: HealthCheck, instance: Instance, url: str | None
) -> Checked:
    """Ask at the service's own address, as everybody does; commands run in the instance."""
    if url is None:
        return Checked(False, "the service has no address")
    return _ask(questions, url, target, check, instance)


def _ask(questions: Sequence[Check], address: str, target: Target, check: HealthCheck, instance: Instance) -> Checked:
    def run(question: Check) -> Checked:
        command = msgspec.structs.replace(check, kind="exec", command=question.command, timeout_s=question.timeout_s)
        answer = target.probe(command, instance)
        return Checked(answer.good, answer.text)

    try:
        return ask_all(questions, address, run)
    except PenstockError as error:  # an engine that is away answers no question
        return Checked(False, str(error))
