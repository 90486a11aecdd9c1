"""
What a plugin imports, and all that it needs to; the standard library only.

    from penstock import sdk

    with sdk.plugin() as plugin:
        with plugin.group("Counting lines"):
            plugin.metric("lines", 1234)
        plugin.finding("TODO", "Somebody meant to come back", path="app.py", line=3, severity="low")
        plugin.output("lines", 1234)

Leaving the block ends the process with the exit code that says how it went: `Failed` and whatever else is raised is 1,
`TryAgain` 75, `BadConfiguration` 78. The contract itself is told in docs/plugins.md; a plugin needs no SDK.
"""

from penstock.sdk.commands import run
from penstock.sdk.ending import BadConfiguration, Failed, TryAgain
from penstock.sdk.plugin import Plugin, plugin
from penstock.sdk.querying import QueryError

__all__ = ["BadConfiguration", "Failed", "Plugin", "QueryError", "TryAgain", "plugin", "run"]
