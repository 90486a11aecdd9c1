"""What the router saw of a service's requests, by the release that answered: read from the lines that Caddy writes."""

import bisect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
import msgspec
import sqlalchemy as sa

from penstock.deploy.analysis import LATENCY_PERCENTILE, Requests
from penstock.deploy.caddy import measured_log, set_measured
from penstock.settings import Settings
from penstock.state.tables import instances

SWITCHED = 101  # a websocket: it lasts as long as its people stay
MOST_BYTES = 32 * 1024**2  # of lines in one reading
_BOUNDS_S = tuple(0.0001 * 1.05**n for n in range(320))  # to ten minutes, each 5 % above the one before


class Line(msgspec.Struct, frozen=True):
    """One request. duration: seconds. upstream: the instance's address; empty when none was reached."""

    status: int = 0
    duration: float = 0.0
    upstream: str = ""


@attrs.define
class Tally:
    """Requests counted in constant memory; the latency is known to 5 per cent."""

    count: int = 0
    errors: int = 0
    _buckets: list[int] = attrs.field(factory=lambda: [0] * (len(_BOUNDS_S) + 1))

    def add(self, line: Line) -> None:
        """One more."""
        self.count += 1
        self.errors += line.status >= 500
        self._buckets[bisect.bisect_left(_BOUNDS_S, line.duration)] += 1

    def requests(self) -> Requests:
        """The figures."""
        return Requests(self.count, self.errors, self._percentile() if self.count else None)

    def _percentile(self) -> float:
        wanted, passed = self.count * LATENCY_PERCENTILE / 100, 0
        for bound_s, number in zip(_BOUNDS_S, self._buckets, strict=False):
            passed += number
            if passed >= wanted:
                return bound_s
        return _BOUNDS_S[-1]


class Meter:
    """
    The requests to one service port since the last reading. `read` may be called as often as one likes.

    Has Caddy write lines from `begin` to `end`; lines of before are none of it. Each reader has a place of its own.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings, self._port = settings, port
        self._path = measured_log(settings, port)
        self._node, self._offset = _end_of(self._path)
        self._began = False

    def begin(self) -> None:
        """From now on requests are counted. Harmless when they are already."""
        if not self._began:
            set_measured(self._settings, self._port, True)
            self._node, self._offset = _end_of(self._path)
            self._began = True

    def end(self) -> None:
        """Caddy writes no lines any more. Harmless when it does not."""
        set_measured(self._settings, self._port, False)
        self._began = False

    def read(self, releases: Mapping[int, str]) -> dict[str, Requests]:
        """
        Release → its requests since the last reading. releases: an instance's port → its release.

        A request whose instance is not known is counted for nobody.
        """
        tallies = {release_id: Tally() for release_id in releases.values()}
        for line in self._lines():
            port = line.upstream.rpartition(":")[2]
            release_id = releases.get(int(port)) if port.isdigit() else None
            if release_id is not None and line.status != SWITCHED:
                tallies[release_id].add(line)
        return {release_id: tally.requests() for release_id, tally in tallies.items()}

    def _lines(self) -> Iterator[Line]:
        """What was written since; of a file that was replaced meanwhile, what the one before still had too."""
        node, _ = _end_of(self._path)
        if node != self._node:
            if (before := self._found(self._node)) is not None:
                yield from self._from(before)
            self._node, self._offset = node, 0
        yield from self._from(self._path)

    def _found(self, node: int) -> Path | None:
        rolled = self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}")
        return next((path for path in rolled if _node(path) == node), None)

    def _from(self, path: Path) -> Iterator[Line]:
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                text = file.read(MOST_BYTES)
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from parse_lines(whole.splitlines())


def parse_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """Requests from Caddy's lines; what is none is passed over."""
    decoder = msgspec.json.Decoder(Line)
    for line in lines:
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:
            continue


def instance_releases(connection: sa.Connection, release_ids: Iterable[str]) -> dict[int, str]:
    """The port of each instance of these releases that runs → its release."""
    query = sa.select(instances.c.port, instances.c.release_id).where(instances.c.release_id.in_(list(release_ids)))
    rows = connection.execute(query.where(instances.c.desired != "stopped", instances.c.port.is_not(None)))
    return {row.port: row.release_id for row in rows}


def _node(path: Path) -> int:
    return _end_of(path)[0]


def _end_of(path: Path) -> tuple[int, int]:
    """The file's inode and size; 0 and 0 where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_size
