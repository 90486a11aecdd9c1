"""
What software is made of: lists of components (SBOM) as they are read, and versions as their ecosystems order them.
"""

from penstock.components.component import Bill, Component
from penstock.components.cyclonedx import read_bill
from penstock.components.ranges import Question, VersionRange, parse_question

__all__ = ["Bill", "Component", "Question", "VersionRange", "parse_question", "read_bill"]
