"""Which ignored events are rightly left out: the triggers or the author's own word keep them from running."""

import re

_BY_RULE = re.compile(
    r"the commit's message says \[skip ci\]"
    r"|\[skip ci\] is asked for"
    r"|the pipeline has no trigger `on: "
    r"|(branch|tag) .* is not among "
    r"|no changed file is among ",
    re.DOTALL,
)


def is_left_out_by_rule(reason: str) -> bool:
    """
    Whether an ignored event may count as a success; everything else that was ignored may not.

    A commit that cannot be fetched, or that a newer one overtook in its group, was not looked at: no success is told.
    """
    return _BY_RULE.match(reason) is not None
