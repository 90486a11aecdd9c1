"""What changed between two commits. Pure: the sources come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from penstock.findings.finding import Finding
from penstock.findings.matching import Source, carry_identity, match_findings


@frozen
class Diff:
    """
    Two commits compared. unchanged are findings of the newer commit with the fingerprints of the older one.

    tiers: how many of the unchanged each tier of matching found.
    """

    introduced: tuple[Finding, ...]
    fixed: tuple[Finding, ...]
    unchanged: tuple[Finding, ...]
    tiers: Mapping[str, int]


def diff_findings(
    old: Sequence[Finding],
    new: Sequence[Finding],
    source_old: Source | None = None,
    source_new: Source | None = None,
) -> Diff:
    """
    What the newer commit introduced, fixed and left.

    source_old, source_new: see `match_findings`. Suppressed findings are compared like the others.
    """
    matching = match_findings(old, new, source_old, source_new)
    carried = carry_identity(old, new, matching)
    tiers: dict[str, int] = {}
    for pair in matching.pairs:
        tiers[pair.tier] = tiers.get(pair.tier, 0) + 1
    return Diff(
        introduced=tuple(carried[at] for at in matching.introduced),
        fixed=tuple(old[at] for at in matching.fixed),
        unchanged=tuple(carried[pair.new] for pair in matching.pairs),
        tiers=tiers,
    )
