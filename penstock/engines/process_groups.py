"""
Control groups: limits that the kernel holds for all processes of a job together, and a way to end all of them.

Both versions: v1 has a tree of folders for each controller, v2 one for all. Where no child group may be made (a
container without the right to, a session that systemd has not delegated), `find_groups` says None, and jobs are
watched instead (`process_watch`).
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

import attrs

from penstock.errors import PlatformError

PREFIX = "penstock-"
PERIOD_US = 100_000
OWN_PROCESSES = 8  # bubblewrap's two and the one that starts sidecars, with its threads
_REMOVAL_LIMIT_S = 5.0
_NEEDED = ("memory", "pids")
_USED = (*_NEEDED, "cpu", "cpuacct")
_numbers = count(1)


@attrs.frozen
class Group:
    """One job's group. folders: controller → its folder; with v2 the same for each."""

    folders: Mapping[str, Path]
    version: int

    def joining(self, argv: Sequence[str]) -> list[str]:
        """`argv`, which makes itself a member before it does anything: a shell that execs costs less than a fork."""
        joins = [f"echo 0 >'{path}'" for path in self._join_files()]
        return ["/bin/sh", "-c", " && ".join([*joins, 'exec "$@"']), "sh", *argv]

    def limit(self, *, memory_bytes: int | None, pids: int | None, cpus: float | None) -> None:
        """Set what is given. Raises: OSError."""
        if pids is not None:
            self._write("pids", "pids.max", pids + OWN_PROCESSES)
        if memory_bytes is not None:
            self._limit_memory(memory_bytes)
        if cpus is not None and "cpu" in self.folders:
            self._limit_cpus(max(1000, int(cpus * PERIOD_US)))

    def members(self) -> set[int]:
        """Process ids."""
        return {pid for folder in self._distinct() for pid in _pids(folder / "cgroup.procs")}

    def kill(self) -> int:
        """Kill all members, the forking ones too. Returns: how many there were."""
        found: set[int] = set()
        deadline = time.monotonic() + _REMOVAL_LIMIT_S
        with suppress(OSError):
            self._write("pids", "pids.max", 0)  # from here on nothing can fork
        while (alive := self.members()) and time.monotonic() < deadline:
            found |= alive
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.0003)
        return len(found)

    def out_of_memory(self) -> int:
        """How many processes the kernel killed because the group's memory was used up."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        with suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", (self.folders["memory"] / name).read_text(), re.MULTILINE):
                return int(found[1])
        return 0

    def cpu_s(self) -> float | None:
        """Seconds of processor time of all its processes, those that have ended too; None where it is not counted."""
        with suppress(OSError):
            if self.version == 1 and "cpuacct" in self.folders:
                return int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
            if found := re.search(r"^usage_usec (\d+)$", (self.folders["pids"] / "cpu.stat").read_text(), re.MULTILINE):
                return int(found[1]) / 1e6
        return None

    def memory_peak_bytes(self) -> int | None:
        """The most that all of them had at once, with the files that the kernel kept for them; None if unknown."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        with suppress(OSError):
            return int((self.folders["memory"] / name).read_text())
        return None

    def remove(self) -> None:
        """Take the folders away; the kernel lets go of a group a moment after its last process."""
        deadline = time.monotonic() + _REMOVAL_LIMIT_S
        for folder in self._distinct():
            while not _removed(folder) and time.monotonic() < deadline:
                time.sleep(0.005)

    def _distinct(self) -> list[Path]:
        return list(dict.fromkeys(self.folders.values()))

    def _join_files(self) -> list[Path]:
        # A thread that moves itself needs no lock of the whole machine, so `tasks` where there is one.
        return [folder / ("tasks" if self.version == 1 else "cgroup.procs") for folder in self._distinct()]

    def _write(self, controller: str, name: str, value: int | str) -> None:
        (self.folders[controller] / name).write_text(f"{value}\n")

    def _limit_memory(self, limit: int) -> None:
        if self.version == 1:
            self._write("memory", "memory.limit_in_bytes", limit)
            with suppress(OSError):  # a kernel that does not count swap
                self._write("memory", "memory.memsw.limit_in_bytes", limit)
            return
        self._write("memory", "memory.max", limit)
        for name, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
            with suppress(OSError):  # a kernel without swap, or before 4.19
                self._write("memory", name, value)

    def _limit_cpus(self, quota: int) -> None:
        if self.version == 1:
            self._write("cpu", "cpu.cfs_period_us", PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", quota)
        else:
            self._write("cpu", "cpu.max", f"{quota} {PERIOD_US}")


@attrs.frozen
class Groups:
    """
    Where groups can be made.

    folders: controller → a folder in which this process may make children. roots: where each tree begins.
    """

    folders: Mapping[str, Path]
    version: int
    roots: tuple[Path, ...] = ()

    def make(self, name: str) -> Group:
        """
        A new, empty group whose name begins with `name`.

        Raises: PlatformError when the kernel refuses.
        """
        full = f"{PREFIX}{name}-{os.getpid()}-{next(_numbers)}"
        group = Group({controller: folder / full for controller, folder in self.folders.items()}, self.version)
        try:
            for folder in dict.fromkeys(group.folders.values()):
                folder.mkdir()
        except OSError as error:
            group.remove()
            raise PlatformError(f"cannot make a control group: {error.strerror}") from error
        return group

    def named(self, name: str) -> list[Group]:
        """Groups whose name begins with `name`, whoever made them and wherever in the trees."""
        found: dict[str, dict[str, Path]] = {}
        for root in self.roots:
            for folder in _below(root, f"{PREFIX}{name}"):
                found.setdefault(folder.name, {})[root.name if self.version == 1 else "pids"] = folder
        complete = [folders for folders in found.values() if "pids" in folders]
        return [Group(folders, self.version) for folders in complete]


@cache
def find_groups() -> Groups | None:
    """The groups that this process can make and join, tried out; None where it cannot."""
    try:
        own = Path("/proc/self/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    return next((groups for groups in candidates(own, mounts) if _works(groups)), None)


def candidates(own: str, mounts: str) -> Iterator[Groups]:
    """
    Places to try, likeliest first.

    own, mounts: the text of /proc/self/cgroup and /proc/self/mountinfo.
    Source: cgroups(7); with v2 a group with processes can have no children with controllers, so siblings are tried too.
    """
    places = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines())}
    mounted = list(_cgroup_mounts(mounts))
    first = {}
    for kind, root, point, options in mounted:
        for controller in options if kind == "cgroup" else ():
            path = next((path for names, path in places.items() if controller in names.split(",")), None)
            if controller in _USED and path is not None:
                first[controller] = (point, _inside(point, root, path))
    if set(_NEEDED) <= set(first):
        roots = tuple(dict.fromkeys(point for point, _ in first.values()))
        yield Groups({name: folder for name, (_, folder) in first.items()}, 1, roots)
    for kind, root, point, _ in mounted:
        if kind == "cgroup2" and "" in places:
            here = _inside(point, root, places[""])
            for folder in (here, here.parent) if here != point else (here,):
                yield Groups(dict.fromkeys((*_NEEDED, "cpu"), folder), 2, (point,))


def _cgroup_mounts(mounts: str) -> Iterator[tuple[str, str, Path, list[str]]]:
    """(cgroup or cgroup2, root within the file system, mount point, its options) of each."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            yield kind, before.split(" ")[3], Path(before.split(" ")[4]), options.split(",")


def _inside(point: Path, root: str, path: str) -> Path:
    """In a container the mount shows a part of the tree, and the path may be told from the whole tree's root."""
    below = path.removeprefix(root) if root != "/" else path
    return point / below.lstrip("/")


def _works(groups: Groups) -> bool:
    try:
        group = groups.make("trial")
    except PlatformError:
        return False
    try:
        if groups.version == 2:
            _turn_on(groups.folders["pids"])
        group.limit(memory_bytes=1 << 30, pids=64, cpus=1.0)
        done = subprocess.run(group.joining(["true"]), check=False, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        group.remove()
    return done.returncode == 0


def _turn_on(folder: Path) -> None:
    """Hand the controllers to the children, when they have not got them; the kernel refuses when it may not be."""
    control = folder / "cgroup.subtree_control"
    missing = {*_NEEDED, "cpu"} - set(control.read_text().split())
    if missing:
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))


def _below(root: Path, prefix: str) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        for name in list(names):
            if name.startswith(prefix):
                names.remove(name)
                yield Path(folder, name)


def _pids(file: Path) -> list[int]:
    with suppress(OSError):  # the group is gone
        return [pid for pid in map(int, file.read_text().split()) if pid]
    return []


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True
