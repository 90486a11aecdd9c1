"""
One tree for every error that a user may see.

    PenstockError                 exit 3
    ├── InputError                exit 2   what somebody wrote is wrong: a file, a flag, a setting
    │   ├── SpecError             penstock.yaml
    │   ├── SettingsError         PENSTOCK_* and files under PENSTOCK_HOME
    │   ├── ReportError           SARIF and other reports that cannot be read
    │   └── EventError            a webhook body that is no event of its forge
    ├── NotFoundError             exit 2   a name that nothing answers to
    ├── ConflictError             exit 2   it changed meanwhile, or something lives on it
    ├── AccessError               exit 2   wrong or missing token, signature, permission
    │   └── ForbiddenError        we know who asks, and that person may not
    ├── StepFailure               exit 1   the work itself failed: a test, a gate, a command
    ├── StepTimeout               exit 4   the work took longer than its limit
    ├── Cancelled                 exit 130 somebody stopped it
    └── PlatformError             exit 3   not the user's work: a tool is missing, a server is away

A message says where, what and the remedy on one line.
"""

from typing import ClassVar


class PenstockError(Exception):
    """`where: what; remedy`, on one line. `where` and `remedy` may be absent."""

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return " ".join((f"{text}; {self.remedy}" if self.remedy else text).split())


class InputError(PenstockError):
    """What somebody wrote is wrong."""

    exit_code = 2


class SpecError(InputError):
    """A penstock.yaml that cannot be run."""


class SettingsError(InputError):
    """A setting that cannot be used."""


class ReportError(InputError):
    """A report that cannot be read."""


class EventError(InputError):
    """A body that is no event of its forge."""


class NotFoundError(PenstockError):
    """A name that nothing answers to."""

    exit_code = 2


class ConflictError(PenstockError):
    """The thing changed meanwhile, or something still lives on it."""

    exit_code = 2


class AccessError(PenstockError):
    """A token, signature or permission that is missing or wrong."""

    exit_code = 2


class ForbiddenError(AccessError):
    """It is known who asks, and that person or token may not."""


class StepFailure(PenstockError):
    """The work itself failed."""

    exit_code = 1


class StepTimeout(PenstockError):
    """The work took longer than its limit."""

    exit_code = 4


class Cancelled(PenstockError):
    """Somebody stopped the work."""

    exit_code = 130


class PlatformError(PenstockError):
    """Not the user's work: a tool is missing, a server is away."""
