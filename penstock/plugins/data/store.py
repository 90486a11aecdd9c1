"""
What plugins told, taken: parsed line by line, and committed to PostgreSQL before anybody is told that it was.

Rows lie there in chunks (Arrow, one row of PostgreSQL for up to 10,000 of them) until the mover brings them to the
warehouse. A chunk belongs to one scope, so whose rows they are is said once, by the token, and never by a line.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, InputError
from penstock.plugins.data import tokens
from penstock.plugins.data.chunks import ROWS, Kind, packed
from penstock.plugins.data.limits import DataLimits
from penstock.plugins.data.lines import Datum, Metric, Reader, Refused, datum_reader, metric_reader
from penstock.plugins.data.scope import Scope, Taken
from penstock.settings import Settings
from penstock.state.plugin_tables import plugin_intake, plugin_sent, plugin_usage

_Reader = Reader[Metric] | Reader[Datum]


class PluginData:
    """The door through which plugins tell; threads and processes may share what is behind it."""

    def __init__(self, engine: sa.Engine, settings: Settings, limits: DataLimits | None = None) -> None:
        self.database, self.settings, self.limits = engine, settings, limits or DataLimits()

    def mint(self, scope: Scope, lives: timedelta) -> str:
        """A token for `scope`. Raises: InputError when `lives` is nothing or more than two days."""
        return tokens.mint(self.database, scope, lives)

    def revoke(self, token: str) -> None:
        """The step is over."""
        tokens.revoke(self.database, token)

    def scope_of(self, token: str) -> Scope | None:
        """Whose token it is; None when nobody's, or no longer."""
        return tokens.scope_of(self.database, token)

    def take_metrics(self, scope: Scope, lines: Iterable[bytes], key: str | None = None) -> Taken:
        """
        Metrics, one JSON object a line; blank lines count for nothing. Bound the lines of a stranger's file with
        `bounded_lines`.

        key: names these lines among those of the step; sent again under the same key, they are there once.
        Returns: when what was accepted is on disk.
        Raises: InputError when more than half of the lines are broken; nothing is stored then. ConflictError when the
        step has sent all that it may.
        """
        return self._take(Kind.METRICS, scope, lines, metric_reader(self.limits.line_bytes, self.limits.depth), key)

    def take_data(self, scope: Scope, lines: Iterable[bytes], key: str | None = None) -> Taken:
        """Data, one JSON object a line; as `take_metrics`."""
        return self._take(Kind.DATA, scope, lines, datum_reader(self.limits.line_bytes, self.limits.depth), key)

    def _take(self, kind: Kind, scope: Scope, lines: Iterable[bytes], reader: _Reader, key: str | None) -> Taken:
        if key is not None and (known := self._known(scope, key)):
            return known
        count = _Count(self.limits, *self._used(scope))
        now = datetime.now(UTC)
        chunks = list(_chunks(kind, count.read(lines, reader, now), now))
        count.check()
        if not count.seen:
            return count.taken()
        try:
            self._store(kind, scope, chunks, count, key)
        except _SentBefore:
            assert key is not None  # only a key can be known
            return self._known(scope, key) or count.taken()
        return count.taken()

    def _known(self, scope: Scope, key: str) -> Taken | None:
        table = plugin_sent.c
        wanted = sa.select(table.accepted, table.rejected, table.reasons, table.is_cut).where(
            *_same(plugin_sent, scope), table.key == key
        )
        with self.database.connect() as connection:
            row = connection.execute(wanted).first()
        return Taken(row.accepted, row.rejected, tuple(row.reasons), row.is_cut) if row else None

    def _used(self, scope: Scope) -> tuple[int, int]:
        wanted = sa.select(plugin_usage.c.lines, plugin_usage.c.bytes).where(*_same(plugin_usage, scope))
        with self.database.connect() as connection:
            row = connection.execute(wanted).first()
        return (row.lines, row.bytes) if row else (0, 0)

    def _store(
        self, kind: Kind, scope: Scope, chunks: "list[tuple[int, bytes]]", count: "_Count", key: str | None
    ) -> None:
        about = {**attrs.asdict(scope), "kind": kind.value}
        with self.database.begin() as connection:
            if key is not None:
                _remember(connection, scope, key, count.taken())
            if chunks:
                rows = [{**about, "rows": rows, "body": body} for rows, body in chunks]
                connection.execute(sa.insert(plugin_intake), rows)
            used = connection.execute(_charged(scope, count)).one()
            # Others of the same step may have sent as much meanwhile.
            if used.lines > self.limits.step_lines or used.bytes > self.limits.step_bytes:
                raise full(self.limits)


class _SentBefore(Exception):
    """Somebody else's request with the same key was quicker."""


_WHOSE = ("run_id", "step", "plugin")


def _same(table: sa.Table, scope: Scope) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(table.c[name] == getattr(scope, name) for name in _WHOSE)


def _remember(connection: sa.Connection, scope: Scope, key: str, taken: Taken) -> None:
    values = {**{name: getattr(scope, name) for name in _WHOSE}, **attrs.asdict(taken), "key": key}
    row = insert(plugin_sent).values({**values, "reasons": list(taken.reasons)}).on_conflict_do_nothing()
    if connection.execute(row.returning(plugin_sent.c.key)).first() is None:
        raise _SentBefore


def _charged(scope: Scope, count: "_Count") -> "sa.sql.dml.ReturningInsert[tuple[int, int]]":
    names = {name: getattr(scope, name) for name in _WHOSE}
    row = insert(plugin_usage).values(**names, lines=count.seen, bytes=count.bytes, rejected=count.rejected)
    more = {name: plugin_usage.c[name] + row.excluded[name] for name in ("lines", "bytes", "rejected")}
    return row.on_conflict_do_update(index_elements=[*names], set_={**more, "told_at": sa.func.now()}).returning(
        plugin_usage.c.lines, plugin_usage.c.bytes
    )


def full(limits: DataLimits) -> ConflictError:
    """The error of a step that has sent all that it may."""
    return ConflictError(
        f"this step has sent all that it may: {limits.step_lines} lines, {limits.step_bytes} bytes",
        where="plugin data",
        remedy="send sums instead of single measurements",
    )


class _Count:
    """How a take goes: lines seen and refused, and what the step may still send."""

    def __init__(self, limits: DataLimits, lines: int, size: int) -> None:
        self._limits, self._left = limits, limits.step_lines - lines
        self._bytes_left = limits.step_bytes - size
        self.seen = self.bytes = self.rejected = 0
        self.reasons: list[str] = []
        self.is_cut = False
        if self._left <= 0 or self._bytes_left <= 0:
            raise full(limits)

    def read(self, lines: Iterable[bytes], reader: _Reader, now: datetime) -> Iterator[Metric | Datum]:
        """What can be read of the lines, up to the step's limits."""
        for number, line in enumerate(lines, start=1):
            if not (text := line.strip()):
                continue
            if self.seen >= self._left or self.bytes + len(line) > self._bytes_left:
                self._cut(number)
                return
            self.seen += 1
            self.bytes += len(line) + 1
            value = reader.read(number, text, now)
            if isinstance(value, Refused):
                self._refuse(value)
            else:
                yield value

    def _refuse(self, refused: Refused) -> None:
        self.rejected += 1
        if len(self.reasons) < self._limits.reasons:
            self.reasons.append(str(refused))

    def _cut(self, number: int) -> None:
        self.is_cut = True
        self.reasons.append(f"line {number}: {full(self._limits).what}; this line and what follows was not read")

    def check(self) -> None:
        """Raises: InputError when more than half is broken: whoever wrote that means something else."""
        if self.rejected * 2 > self.seen:
            raise InputError(
                f"{self.rejected} of {self.seen} lines are broken, so none was taken: {self.reasons[0]}",
                where="plugin data",
                remedy="send one JSON object a line",
            )

    def taken(self) -> Taken:
        """What became of it."""
        return Taken(self.seen - self.rejected, self.rejected, tuple(self.reasons), self.is_cut)


def _chunks(kind: Kind, values: Iterator[Metric | Datum], now: datetime) -> Iterator[tuple[int, bytes]]:
    rows: list[Metric | Datum] = []
    for value in values:
        rows.append(value)
        if len(rows) >= ROWS:
            yield len(rows), packed(kind, rows, now)
            rows = []
    if rows:
        yield len(rows), packed(kind, rows, now)
