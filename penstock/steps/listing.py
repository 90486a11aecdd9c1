"""What steps do with a list of components (SBOM) that one of their tools wrote: read it, keep it, hand it on."""

import attrs

from penstock.components import read_bill
from penstock.errors import ReportError
from penstock.steps.context import Artifact, BillOutcome, StepContext

REPORTS = ".penstock"  # where a step's reports lie in the workspaces of steps that need it
SUFFIX = ".cdx.json"


@attrs.frozen
class Listed:
    """A list that could be read, and where it is kept."""

    outcome: BillOutcome
    artifact: Artifact


def list_components(step: str, context: StepContext, data: bytes, source: str = "checkout") -> Listed | None:
    """
    Read a list and store it as the step's artifact `STEP.cdx.json`. Returns: None, said in the log, for a bad one.

    source: what it lists, as `BillOutcome` says.
    """
    try:
        bill = read_bill(data, f"{step}'s list of components")
    except ReportError as error:
        context.log.line(f"this list was not read: {error}")
        return None
    blob = context.store.put_bytes(data)
    left_out = f"; {bill.broken} could not be read" if bill.broken else ""
    context.log.line(f"{len(bill.components)} components listed{left_out}")
    name = f"{step}{SUFFIX}"
    artifact = Artifact(name, f"{REPORTS}/{name}", "file", blob.digest, blob.size_bytes)
    return Listed(BillOutcome(bill, blob.digest, source), artifact)
