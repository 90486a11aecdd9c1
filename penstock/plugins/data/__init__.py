"""What plugins tell each other: taken, moved to the warehouse, and read within one tenant and project only."""

from penstock.plugins.data.limits import DataLimits
from penstock.plugins.data.lines import bounded_lines
from penstock.plugins.data.scope import Scope, Taken
from penstock.plugins.data.store import PluginData

__all__ = ["DataLimits", "PluginData", "Scope", "Taken", "bounded_lines"]
