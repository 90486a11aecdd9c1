"""How much plugins may tell and ask."""

from datetime import timedelta

import attrs

MIB = 1024 * 1024


@attrs.frozen(kw_only=True)
class DataLimits:
    """
    line_bytes: of one line. step_lines, step_bytes: that one step may send in all, metrics and data together.
    reasons: how many refusals are told in words; the rest is counted.
    depth: how deep values may be nested.
    lines_per_s, burst_lines: of one token; a KiB counts as a line when that is more. asks_per_s, burst_asks: likewise.
    sql_chars: of a query. answer_rows, answer_bytes, answer_time, answer_memory_bytes: of what it may cost.
    rows_kept: of one project in each table; the oldest go first.
    """

    line_bytes: int = 64 * 1024
    step_lines: int = 2_000_000
    step_bytes: int = 256 * MIB
    reasons: int = 20
    depth: int = 32
    lines_per_s: float = 10_000.0
    burst_lines: float = 100_000.0
    asks_per_s: float = 5.0
    burst_asks: float = 40.0
    sql_chars: int = 20_000
    answer_rows: int = 10_000
    answer_bytes: int = 16 * MIB
    answer_time: timedelta = timedelta(seconds=15)
    answer_memory_bytes: int = 1024 * MIB
    rows_kept: int = 100_000_000
