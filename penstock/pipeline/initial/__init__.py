"""
A first `penstock.yaml` for a repository, by what lies in it: pure, from a listing to text.

One file for each kind of project (`python.py`, `node.py`), each `Listing -> steps`, put together here.
"""

from collections.abc import Callable, Sequence

from penstock.errors import InputError
from penstock.pipeline.initial import node, python
from penstock.pipeline.initial.proposal import Listing, ProposedStep, render

__all__ = ["Listing", "propose", "proposed_steps"]

_KINDS: Sequence[Callable[[Listing], Sequence[ProposedStep]]] = (python.steps, node.steps)
_HEAD = """\
# The pipeline of this repository, written by `penstock init`: change it as you like.
# `penstock check` validates it, `penstock run` runs it. Every step starts in a fresh copy of the commit;
# steps that do not wait for each other by `needs` run at the same time.
version: 1

steps:
"""


def propose(files: Listing) -> str:
    """
    The text of a penstock.yaml that fits.

    Raises: InputError when there are no files.
    """
    return _HEAD + "\n".join(render(step) for step in proposed_steps(files))


def proposed_steps(files: Listing) -> tuple[ProposedStep, ...]:
    """
    The steps that fit: tests of each kind of project, and a scan of the source.

    Raises: InputError when there are no files.
    """
    if not files.paths:
        raise InputError("there is nothing here yet", remedy="add some files, then write the pipeline")
    found = [step for kind in _KINDS for step in kind(files)] or _by_make(files)
    return (*found, _scan(files))


def _by_make(files: Listing) -> list[ProposedStep]:
    makefile = files.first("Makefile", "makefile", "GNUmakefile")
    if makefile is None or not any(line.startswith("test:") for line in files.read(makefile).splitlines()):
        return []
    return [ProposedStep("test", ("The tests.",), ("type: step.shell_exec", "commands:", "  - make test"))]


def _scan(files: Listing) -> ProposedStep:
    says = ["Read the source for weaknesses. Findings are kept for every commit; one of severity high or worse"]
    says.append("fails the step (fail_on_severity: critical, high, medium, low or none).")
    if files.with_suffix(".py"):
        says.append("A second scanner for Python: another step with `scanner: bandit`.")
    says.append("Tests and dependencies are left out unless `exclude` says otherwise.")
    lines = ("type: step.scan_sast", "scanner: semgrep", "fail_on_severity: high")
    return ProposedStep("scan", tuple(says), lines)
