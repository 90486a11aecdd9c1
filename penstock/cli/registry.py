"""
The commands of `penstock`: one line each. A command's module is imported when it is asked for.

What a command imports (SQLAlchemy, DuckDB, rich) costs more than `penstock check` takes; so the list of
commands with their summaries is here, and the rest comes with the one command that is called.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import attrs
import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from penstock.errors import Cancelled, InputError, PenstockError

MARKUP: Final = "rich"  # keeps the lines of the examples apart


@attrs.frozen
class Command:
    """Where a command is: `file` in this folder, the function or Typer app called `name` in it."""

    file: str
    name: str
    summary: str

    def load(self, called: str) -> Any:
        """The command itself, under the name by which it was called."""
        found = getattr(import_module(f"{__package__}.{self.file}"), self.name)
        shell = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
        if isinstance(found, typer.Typer):
            shell.add_typer(found, name=called)
        else:
            shell.command(called)(found)
        return get_group(shell).commands[called]


COMMANDS: Mapping[str, Command] = {
    "up": Command("up", "up", "Start Penstock: database, Dagster, API, dashboards, router."),
    "init": Command("init", "init", "Write a penstock.yaml that fits the repository."),
    "check": Command("check", "check", "Validate a pipeline."),
    "run": Command("run", "run", "Run a repository's pipeline without a server."),
    "runs": Command("runs", "runs", "List runs, newest first, or show the steps of one."),
    "logs": Command("runs", "logs", "Print what the steps of a run printed."),
    "approvals": Command("approve", "approvals", "List the gates that wait for people."),
    "approve": Command("approve", "approve", "Open a gate."),
    "reject": Command("approve", "reject", "Keep a gate shut."),
    "withdraw": Command("approve", "withdraw", "Take back your approval."),
    "user": Command("people", "users", "People: who they are, and what commits call them."),
    "group": Command("people", "groups", "Groups of people."),
    "token": Command("people", "tokens", "Tokens for the API, with what they let do."),
    "release": Command("release", "app", "What is live where, and what was: look, go back, go forward, hold."),
    "rollout": Command("release", "rollout_app", "Rollouts: watch how a release takes over."),
    "environment": Command("environment", "app", "Where releases go, and the rules for getting there."),
    "shell": Command("shell", "shell", "Open a shell in the workspace that a failed step left."),
    "template": Command("template", "app", "The platform's library of pipeline templates."),
    "artifacts": Command("artifacts", "app", "What steps put out: list, fetch, remove, and how long it is kept."),
    "sql": Command("sql", "sql", "Ask the warehouse in DuckDB's SQL."),
    "warehouse": Command("warehouse", "app", "Rebuild, compact and export the warehouse."),
    "project": Command("project", "app", "Connect repositories."),
    "hook": Command("hook", "app", "Let forges tell of pushes, tags, pull requests and releases."),
    "answers": Command("answers", "app", "Let forges show how runs stand."),
    "secret": Command("secret", "app", "Keep the secrets that steps are granted."),
    "plugin": Command("plugin", "app", "Write, check and test plugins; look for others, and install them."),
    "registry": Command("plugin_registry", "app", "Where plugins come from, and whose signatures count."),
    "findings": Command("findings", "app", "Read, compare, list and suppress what scanners found."),
    "events": Command("events", "app", "Git events of the connected forges."),
    "demo-data": Command("demo", "demo_data", "Make up history for trying dashboards, notebooks and SQL."),
}


class _Group(TyperGroup):
    """Knows every command by its summary, and loads the one that is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name, help=command.summary, rich_markup_mode=MARKUP))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command's name, the command, and the words that are left for it."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, COMMANDS[name].load(name) if name and known else known, rest


app = typer.Typer(
    name="penstock",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def penstock() -> None:
    """
    CI/CD whose every output is a data asset.

    Examples:

        penstock init && penstock check && penstock run
        penstock up
        penstock run --help
    """


def call() -> int:
    """
    Do what the command line asks. Returns: the exit code.

    An error is one line on standard error, never a traceback.
    """
    try:
        code = get_command(app)(prog_name="penstock", standalone_mode=False)
    except PenstockError as error:
        return _say(error)
    except typer.Abort:
        return Cancelled.exit_code
    except typer.TyperException as error:
        # Without words, the help has been printed in their place.
        return _say(_wrong_usage(error)) if error.format_message() else InputError.exit_code
    return code if isinstance(code, int) else 0


def _say(error: PenstockError) -> int:
    typer.echo(f"penstock: {error}", err=True)
    return error.exit_code


def _wrong_usage(error: typer.TyperException) -> InputError:
    """`no such option: --quick; see penstock run --help`."""
    words = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "penstock"
    return InputError(words[:1].lower() + words[1:], remedy=f"see `{path} --help`")
