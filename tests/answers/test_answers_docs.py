"""docs/answers.md says what the clients do."""

import re
from importlib import import_module
from pathlib import Path
from typing import get_args

from penstock.forges.clients.values import State

DOCS = (Path(__file__).parents[2] / "docs" / "answers.md").read_text()
# The table's columns after the first, by the module that says these words.
COLUMNS = (("github", "_CONCLUSIONS"), *((name, "_STATES") for name in ("gitea", "gitlab", "bitbucket_cloud")))
COLUMNS += (("bitbucket_server", "_STATES"), ("azure_devops", "_STATES"))


def test_the_table_of_states_is_the_clients_own() -> None:
    """Each state in each forge's words, and GitHub's statuses as Gitea's."""
    rows = dict(re.findall(r"^\| (\w+)(?: \(.*?\))? \| (.+) \|$", DOCS, re.MULTILINE))
    for state in get_args(State):
        for told, (module, name) in zip(rows[state].split(" | "), COLUMNS, strict=True):
            words = getattr(import_module(f"penstock.forges.clients.{module}"), name)
            assert told == words.get(state, "queued" if state == "queued" else "in_progress")
    github, gitea = (import_module(f"penstock.forges.clients.{name}") for name in ("github", "gitea"))
    assert github._STATUSES == gitea._STATES
