"""History that nobody lived through, for trying dashboards, notebooks and queries: made up, and marked as such."""

from penstock.demo.history import Scale
from penstock.demo.writing import PREFIX, Written, write_demo

__all__ = ["PREFIX", "Scale", "Written", "write_demo"]
