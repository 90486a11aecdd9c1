"""Lines are taken one by one, typed and bounded; what was accepted is in PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import attrs
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock.errors import ConflictError, InputError
from penstock.plugins.data import DataLimits, PluginData, Scope, Taken, bounded_lines
from penstock.plugins.data.lines import Datum, Refused, datum_reader, metric_reader
from penstock.state.plugin_tables import plugin_intake, plugin_usage

LIMITS, NOW = DataLimits(), datetime.now(UTC)
GOOD = [b'{"name": "lines", "value": 1}', b'{"name": "lines", "value": 2.5}\n']
SHOP = Scope("default", "shop", "run-1", "scan", "c" * 40, "lint")


def rows_of(database: sa.Engine) -> int:
    """How many rows wait."""
    with database.connect() as connection:
        return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(plugin_intake.c.rows), 0))).scalar_one())


def test_what_was_accepted_is_in_the_database(store: PluginData, database: sa.Engine) -> None:
    """Whoever was told so can be killed then."""
    assert store.take_metrics(SHOP, GOOD) == Taken(accepted=2)
    assert rows_of(database) == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"name": "x", "value": NaN}', "invalid character"),
        (b'{"name": "x", "value": Infinity}', "invalid character"),
        (b'{"name": "x", "value": -Infinity}', "malformed"),
        (b'{"name": "x", "value": 1e999}', "out of range"),
        (b'{"name": "x", "value": ' + b"9" * 500 + b"}", "out of range"),
        (b'{"name": "x", "value": ' + b"9" * 10_000_000 + b"}", "longer than"),
        (b'{"name": "x", "value": "1"}', "Expected `float`"),
        (b'{"name": "x", "value": true}', "Expected `float`"),
        (b'{"name": "x", "value": null}', "Expected `float`"),
        (b'{"name": "x"}', "missing required field `value`"),
        (b'{"value": 1}', "missing required field `name`"),
        (b'{"name": "x", "value": 1, "tenant": "rival"}', "unknown field `tenant`"),
        (b'{"name": "x", "value": 1, "value": 2}', "stands there twice"),
        (b'{"name": "x", "value": 1, "labels": {"a": "1", "a": "2"}}', "stands there twice"),
        (b'{"name": "", "value": 1}', "matching regex"),
        (b'{"name": "a b", "value": 1}', "matching regex"),
        (b'{"name": "x", "value": 1, "unit": "\\u0000"}', "matching regex"),
        (b'{"name": "x", "value": 1, "unit": "\\ud800"}', "truncated"),
        (b'{"name": "x", "value": 1, "labels": {"a": "\\udc00\\ud800"}}', "malformed"),
        (b'{"name": "x", "value": 1, "kind": "sum"}', "Invalid enum value"),
        (b'{"name": "x", "value": 1, "at": "2026-01-01T00:00:00"}', "timezone"),
        (b'{"name": "x", "value": 1, "at": "yesterday"}', "Invalid RFC3339"),
        (b'{"name": "x", "value": 1, "at": "9999-01-01T00:00:00Z"}', "a day ahead"),
        (b'{"name": "x", "value": 1, "at": "1066-01-01T00:00:00Z"}', "before 1970"),
        (b'{"name": "\xff", "value": 1}', "not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD[0], "malformed"),
        (b"[" * 60_000, "Expected `object`"),
        (b'{"name": "x", "value": 1} {}', "trailing characters"),
        (b"not json", "malformed"),
        (b"1", "Expected `object`"),
    ],
)
def test_a_broken_metric_is_refused(line: bytes, why: str) -> None:
    """With the number of its line and the reason."""
    refused = metric_reader(LIMITS.line_bytes, LIMITS.depth).read(2, line, NOW)
    assert str(refused).startswith("line 2: ")
    assert why in str(refused)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"[" * 30_000 + b"]" * 30_000, "nested deeper than 32"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested deeper than 32"),
        (b"1e999", "out of range"),
        (b"-1e400", "out of range"),
        (b"9" * 60_000, "out of range"),
        (b'{"a": 1, "a": 2}', "stands there twice"),
        (b'["\\ud83d"]', "truncated"),
        (b'["\\udc00"]', "surrogate"),
        (b'{"\\ud83d": 1}', "escape"),
        (b'["\\u0000"]', "NUL"),
        (b'["\xc3\x28"]', "not UTF-8"),
        (b'["\xed\xa0\x80"]', "not UTF-8"),
        (b"NaN", "malformed"),
        (b"'x'", "malformed"),
        (b"", "malformed"),
    ],
)
def test_a_broken_value_is_refused(value: bytes, why: str) -> None:
    """What a reader of the warehouse could not read as JSON never gets there."""
    line = b'{"kind": "x", "value": ' + value + b"}"
    assert why in str(datum_reader(LIMITS.line_bytes, LIMITS.depth).read(1, line, NOW))


@pytest.mark.parametrize(
    "value", [b'{"id": "Apache-2.0"}', b"[1, 2.5e3, null, true]", b'"\\ud83d\\ude00"', b"1", b"[" * 31 + b"]" * 31]
)
def test_any_other_json_is_a_value(value: bytes) -> None:
    """As it was sent."""
    datum = datum_reader(LIMITS.line_bytes, LIMITS.depth).read(1, b'{"kind": "x", "value": ' + value + b"}", NOW)
    assert isinstance(datum, Datum)
    assert bytes(datum.value) == value


def test_broken_lines_are_left_out_and_told(store: PluginData, database: sa.Engine) -> None:
    """Their neighbours are taken."""
    taken = store.take_metrics(SHOP, [GOOD[0], b"x", b"", GOOD[1]])
    assert (taken.accepted, taken.rejected, rows_of(database)) == (2, 1, 2)
    assert taken.reasons[0].startswith("line 2: ")


def test_nothing_is_taken_of_lines_that_are_mostly_broken(store: PluginData, database: sa.Engine) -> None:
    """Whoever wrote them means something else; half of them is still believed."""
    with pytest.raises(InputError, match="2 of 3 lines are broken, so none was taken: line 2: "):
        store.take_metrics(SHOP, [GOOD[0], b"x", b"y"])
    assert rows_of(database) == 0
    assert store.take_metrics(SHOP, [GOOD[0], b"x"]).accepted == 1


def test_many_reasons_are_counted_and_few_told(store: PluginData) -> None:
    """A log is no place for a million lines."""
    taken = store.take_metrics(SHOP, [GOOD[0], b"x"] * 100)
    assert (taken.accepted, taken.rejected, len(taken.reasons)) == (100, 100, store.limits.reasons)


def test_no_lines_are_no_error(store: PluginData, database: sa.Engine) -> None:
    """A plugin may have nothing to tell."""
    assert store.take_metrics(SHOP, []) == store.take_data(SHOP, [b"", b"\n"]) == Taken(0)
    assert rows_of(database) == 0


def test_a_line_of_gigabytes_costs_no_memory() -> None:
    """Only its beginning is kept, which is still too long."""

    def pieces() -> Iterator[bytes]:
        yield b"first\nlo"
        for _ in range(2000):
            yield b"x" * 1_000_000
        yield b"\n\nlast"

    lines = list(bounded_lines(pieces(), 100))
    assert [len(line) for line in lines] == [5, 101, 0, 4]


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 50))
def test_bounded_lines_are_the_lines(text: bytes, size: int, longest: int) -> None:
    """However the stream is cut into pieces."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    whole = text.split(b"\n")
    expected = [line[: longest + 1] for line in (whole if whole[-1] else whole[:-1])]
    assert list(bounded_lines(pieces, longest)) == expected


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ud80e1-.NaI ', max_size=60).map(str.encode))
@hypothesis_settings(suppress_health_check=list(HealthCheck))
def test_no_bytes_crash_a_reader(line: bytes) -> None:
    """Whatever comes is a value or refused."""
    for reader in (metric_reader(1000, 8), datum_reader(1000, 8)):
        value = reader.read(1, b'{"kind": "x", "value": ' + line + b"}", NOW)
        assert isinstance(value, Refused) or value.kind == "x"


def test_a_step_may_send_so_much(store: PluginData, database: sa.Engine) -> None:
    """What fits is taken, the rest is not read; afterwards nothing is."""
    small = PluginData(database, store.settings, attrs.evolve(store.limits, step_lines=5))
    assert small.take_data(SHOP, [b'{"kind": "x", "value": 1}'] * 2).accepted == 2
    taken = small.take_metrics(SHOP, (line for line in GOOD * 1000))
    assert (taken.accepted, taken.is_cut) == (3, True)
    assert "line 4: this step has sent all that it may: 5 lines" in taken.reasons[-1]
    with pytest.raises(ConflictError, match="this step has sent all that it may"):
        small.take_metrics(SHOP, GOOD)
    assert small.take_metrics(attrs.evolve(SHOP, step="other"), GOOD).accepted == 2
    assert rows_of(database) == 7


def test_a_step_may_send_so_many_bytes(store: PluginData, database: sa.Engine) -> None:
    """Lines that are long count for more."""
    small = PluginData(database, store.settings, attrs.evolve(store.limits, step_bytes=100))
    assert small.take_metrics(SHOP, GOOD * 10).is_cut
    with database.connect() as connection:
        assert connection.execute(sa.select(plugin_usage.c.bytes)).scalar_one() <= 100


def test_requests_of_one_step_at_once_keep_its_limit(store: PluginData, database: sa.Engine) -> None:
    """Each looked before the others had written; who comes too late takes nothing."""
    small = PluginData(database, store.settings, attrs.evolve(store.limits, step_lines=10))

    def take(_: int) -> int:
        try:
            return small.take_metrics(SHOP, GOOD * 2).accepted
        except ConflictError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(take, range(8)))
    assert accepted == rows_of(database) <= 10


def test_lines_sent_again_under_their_key_are_there_once(store: PluginData, database: sa.Engine) -> None:
    """Who was not answered sends again, even while the first is at work; the answer is the same."""
    lines = [*GOOD, b"broken"]
    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(lambda _: store.take_metrics(SHOP, lines, "batch-1"), range(6)))
    assert len(answers) == 1
    assert rows_of(database) == 2
    store.take_metrics(SHOP, lines, "batch-2")
    store.take_metrics(attrs.evolve(SHOP, step="other"), lines, "batch-1")
    assert rows_of(database) == 6


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 401, "a\nb", "\ud800"])
def test_a_scope_has_names(name: str) -> None:
    """None that a database or an address could not hold."""
    with pytest.raises(InputError, match="this is no name"):
        Scope(name, "shop", "run-1", "scan", "c" * 40, "lint")
