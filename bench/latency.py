"""
How long after `git push` does a command run, and what does a step cost: Penstock beside Buildbot.

    python bench/latency.py [--rounds 7] [--skip-buildbot]

and how long after a forge's webhook, which both get byte by byte the same: signed as GitHub signs, to Penstock's
`/api/v1/hooks/…` and to Buildbot's `/change_hook/github`.

Both run here and now, on defaults: Penstock whole (`penstock up`), Buildbot as one master (SQLite) and one
local worker. Each has a bare repository with a hook and ten chained steps of `sh -c date`; pushes
alternate, so that both meet the same machine. The steps' own time stamps are what is measured, from the moment
before `git push`, or before the webhook is sent. Prints medians; the last line is the ratios Penstock / Buildbot. Exit
code 1 when one is not below 1.

Buildbot does less for it: it checks nothing out and isolates nothing, while each of Penstock's steps has a
fresh checkout of the commit and, where bubblewrap is there, a sandbox.
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import httpx

from penstock.engines.process import bubblewrap
from penstock.processes import spawn, stop_group

STEPS = 10
ENDS = ("s0", f"s{STEPS - 1}")
WARM_UPS = 2
LIMIT_S = 600
RUN_LIMIT_S = 60.0
PAUSE_S = 1.0  # what a run leaves to do at its end is no part of its neighbour's round
STAMP = "date +%s.%N"
SECRET = "the-secret-of-the-bench-hooks"
LOCK = Path(__file__).with_name("buildbot.lock")

MASTER_CFG = """
from buildbot.plugins import changes, schedulers, steps, util, worker
BuildmasterConfig = {{
    "workers": [worker.Worker("local", "secret")],
    "protocols": {{"pb": {{"port": "tcp:{pb}:interface=127.0.0.1"}}}},
    "change_source": [changes.PBChangeSource(user="change", passwd="secret")],
    "schedulers": [schedulers.AnyBranchScheduler(name="push", treeStableTimer=None, builderNames=["ten"])],
    "builders": [util.BuilderConfig(name="ten", workernames=["local"], factory=util.BuildFactory(
        [steps.ShellCommand(name=f"s{{n}}", command=["sh", "-c", "{stamp}"]) for n in range({steps})]))],
    "www": {{"port": "tcp:{www}:interface=127.0.0.1", "change_hook_dialects": {{"base": True,
            "github": {{"secret": "{secret}", "strict": True}}}}}},
    "buildbotNetUsageData": None,
    "db": {{"db_url": "sqlite:///state.sqlite"}},
}}
"""


@attrs.frozen
class Measure:
    """One push. first_s: from before `git push` to the first command; step_s: from command to command; by stage."""

    first_s: float
    step_s: float
    stages: Mapping[str, float] = attrs.field(factory=dict)

    @classmethod
    def of(cls, pushed_at: float, stamps: Sequence[float], stages: Mapping[str, float] | None = None) -> "Measure":
        """stamps: of the first and the last step's command, seconds since the epoch."""
        return cls(stamps[0] - pushed_at, (stamps[1] - stamps[0]) / (STEPS - 1), stages or {})


@attrs.frozen
class Side:
    """One of the two. push: pushes a commit, waits until its steps have run, and says what it measured."""

    name: str
    push: Callable[[], Measure]


@attrs.frozen
class Origin:
    """A bare repository and a clone to push from."""

    bare: Path
    tree: Path

    @classmethod
    def make(cls, folder: Path, files: Mapping[str, str]) -> "Origin":
        """With one commit, pushed before there is a hook."""
        origin = cls(folder / "origin.git", folder / "tree")
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin.bare)])
        run(["git", "clone", "--quiet", str(origin.bare), str(origin.tree)], quiet=True)
        for name, text in files.items():
            (origin.tree / name).write_text(text)
        origin.commit()
        run(["git", "-C", str(origin.tree), "push", "--quiet", "origin", "HEAD:main"])
        return origin

    def commit(self) -> str:
        """Returns: the hash of a commit that changes a file."""
        (self.tree / "counter").write_text(f"{time.time_ns()}\n")
        author = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        run(["git", "-C", str(self.tree), "add", "--all"])
        run(["git", "-C", str(self.tree), *author, "commit", "--quiet", "-m", "Count"])
        return run(["git", "-C", str(self.tree), "rev-parse", "HEAD"]).strip()

    def head(self) -> str:
        """The commit that was made last."""
        return run(["git", "-C", str(self.tree), "rev-parse", "HEAD"]).strip()

    def push(self) -> float:
        """Returns: when it began, seconds since the epoch."""
        began = time.time()
        run(["git", "-C", str(self.tree), "push", "--quiet", "origin", "HEAD:main"], quiet=True)
        return began


def delivery(commit: str, before: str) -> bytes:
    """A push as GitHub tells it."""
    who: dict[str, Any] = {"name": "bench", "email": "bench@localhost", "username": "bench", "login": "bench"}
    head: dict[str, Any] = {
        "id": commit,
        "message": "Count",
        "timestamp": "2025-03-01T10:00:00Z",
        "url": "https://github.test/c",
    }
    head |= {"author": who, "committer": who, "added": [], "removed": [], "modified": ["counter"], "distinct": True}
    repository: dict[str, Any] = {"id": 7, "name": "bench", "full_name": "bench/bench", "owner": who}
    repository |= {"html_url": "https://github.test/bench/bench", "url": "https://github.test/bench/bench"}
    told: dict[str, Any] = {
        "ref": "refs/heads/main",
        "before": before,
        "after": commit,
        "created": False,
        "deleted": False,
    }
    told |= {"forced": False, "commits": [head], "head_commit": head, "repository": repository}
    return json.dumps({**told, "pusher": who, "sender": who, "compare": "https://github.test/d"}).encode()


def send(url: str, body: bytes) -> float:
    """Post a webhook, signed. Returns: when it began, seconds since the epoch. Raises: SystemExit when refused."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256)
    sha1 = hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()  # Buildbot checks GitHub's older header
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature.hexdigest()}",
        "X-Hub-Signature": f"sha1={sha1}",
    }
    with httpx.Client(trust_env=False, timeout=RUN_LIMIT_S) as client:
        began = time.time()
        answer = client.post(url, content=body, headers=headers)
    if not answer.is_success:
        sys.exit(f"latency: {url} answers {answer.status_code}: {answer.text[:300]}")
    return began


def run(argv: Sequence[str], *, quiet: bool = False, env: Mapping[str, str] | None = None) -> str:
    """A command's output; its end of the story on standard error, unless quiet. Raises: SystemExit when it fails."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=240, env=env)
    if done.returncode:
        sys.exit(f"latency: {shlex.join(argv)[:200]} failed: {done.stderr.strip()[-600:]}")
    if done.stderr.strip() and not quiet:
        print(done.stderr.strip(), file=sys.stderr)
    return done.stdout


def until(found: Callable[[], Any], what: str, limit_s: float = RUN_LIMIT_S, every_s: float = 0.2) -> Any:
    """The first true answer of `found`. Raises: SystemExit when there is none in time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if answer := found():
                return answer
        time.sleep(every_s)
    sys.exit(f"latency: {what} within {limit_s:.0f} s: no")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def child(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[Callable[[], str]]:
    """A process for as long as the block runs; it ends with this one, however this one ends. Yields: what it said."""

    def said() -> str:
        if process.poll() is not None:
            sys.exit(f"latency: {argv[0]} ended")
        return log.read_text(errors="replace")

    with log.open("ab") as output:
        process = spawn(argv, output=output, env=env)
    try:
        yield said
    except SystemExit:
        sys.stderr.write(log.read_text(errors="replace")[-2000:])
        raise
    finally:
        stop_group(process, grace_s=40.0)


# Penstock


@contextlib.contextmanager
def penstock(folder: Path) -> Iterator[tuple[Side, Side]]:
    """A whole Penstock with a home of its own, and two projects of ten chained steps: one pushed to, one told of."""
    folder.mkdir()
    (folder / "told").mkdir()
    origin = Origin.make(folder, {"penstock.yaml": pipeline()})
    told = Origin.make(folder / "told", {"penstock.yaml": pipeline()})
    names = ("API", "DAGSTER", "DASHBOARDS", "CODE", "APPS")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "DAGSTER_"))}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env |= {"PENSTOCK_HOME": str(folder / "home"), **{f"PENSTOCK_{name}_PORT": str(ports[name]) for name in names}}
    command = Path(sys.executable).with_name("penstock")
    env["PENSTOCK_VAULT_KEY_FILE"] = str(folder / "vault.key")
    run([str(command), "project", "add", str(origin.bare), "--name", "bench"], env=env)
    run([str(command), "project", "add", str(told.bare), "--name", "told", "--no-hook"], quiet=True, env=env)
    run([str(command), "project", "edit", "told", "--not-polled"], quiet=True, env=env)
    (folder / "secret").write_text(SECRET)
    given = ("--repository", "bench/bench", "--secret-file", str(folder / "secret"))
    made = run([str(command), "hook", "add", "told", "github", *given], quiet=True, env=env)
    hook = next(line.split()[1] for line in made.splitlines() if line.startswith("address"))
    with child([str(command), "up", "--no-example"], folder / "up.log", env) as said:
        until(lambda: "Ctrl-C" in said(), "penstock up", limit_s=150)
        token = (folder / "home" / "token").read_text()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{ports['API']}/api/v1", headers=headers, trust_env=False) as api:
            yield (
                Side("Penstock", lambda: penstock_push(origin, api)),
                Side("Penstock, webhook", lambda: penstock_told(told, api, hook)),
            )


def pipeline() -> str:
    """Ten steps, each after the one before."""
    lines = ["version: 1", "steps:"]
    for number in range(STEPS):
        lines += [f"  - name: s{number}", "    type: step.shell_exec", f"    commands: ['{STAMP}']"]
        lines += [f"    needs: [s{number - 1}]"] if number else []
    return "\n".join(lines) + "\n"


def penstock_push(origin: Origin, api: httpx.Client) -> Measure:
    """Push, and read the stamps from the steps' logs."""
    commit = origin.commit()
    return penstock_measure(api, commit, origin.push(), "push and hook")


def penstock_told(origin: Origin, api: httpx.Client, hook: str) -> Measure:
    """Push to where no hook is, tell of it as a forge does, and read the stamps from the steps' logs."""
    before, commit = origin.head(), origin.commit()
    origin.push()
    return penstock_measure(api, commit, send(hook, delivery(commit, before)), "webhook")


def penstock_measure(api: httpx.Client, commit: str, begun_at: float, first_stage: str) -> Measure:
    """What a run of a commit took from `begun_at`, seconds since the epoch."""
    time.sleep(PAUSE_S)

    def ended() -> Any:
        found = api.get("/runs", params={"commit": commit}).raise_for_status().json()
        return found[0] if found and found[0]["state"] not in ("queued", "running") else None

    found = until(ended, "Penstock ran the commit")
    if found["state"] != "succeeded":
        sys.exit(f"latency: Penstock's run {found['state']}: {found['reason']}")
    stamps = [penstock_stamp(api, found["id"], step) for step in ENDS]
    first = api.get(f"/runs/{found['id']}").raise_for_status().json()["steps"][0]
    event = next(event for event in api.get("/events").json() if event["commit"] == commit)
    marks = [begun_at, *map(epoch, (event["received_at"], found["started_at"], first["started_at"])), stamps[0]]
    stages = (first_stage, "read, launch, fork, open", "to the first step", "checkout and sandbox")
    return Measure.of(begun_at, stamps, {name: marks[place + 1] - marks[place] for place, name in enumerate(stages)})


def penstock_stamp(api: httpx.Client, run_id: str, step: str) -> float:
    """What the step's command printed."""
    log = api.get(f"/runs/{run_id}/steps/{step}/log").raise_for_status().json()
    return float(log["lines"][-1]["text"])


def epoch(text: str) -> float:
    """ISO 8601 → seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


# Buildbot


def buildbot_environment() -> Path:
    """The `bin` folder of Buildbot's own environment, kept from run to run under the user's cache folder."""
    mark = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / f"buildbot-{mark}"
    if not (folder / "ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        print(f"installing Buildbot in {folder}", flush=True)
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        install = ("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode")
        run([uv, *install, "--python", str(folder / "bin" / "python"), str(LOCK)])
        (folder / "ready").touch()
    return folder / "bin"


@contextlib.contextmanager
def buildbot(folder: Path) -> Iterator[tuple[Side, Side, Side]]:
    """A master with a local worker; told of pushes by its HTTP hook, by `buildbot sendchange`, and by a forge."""
    bin_dir = buildbot_environment()
    folder.mkdir()
    pb, www = free_ports(2)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PATH": f"{bin_dir}:{env['PATH']}"}
    master, worker = str(folder / "master"), str(folder / "worker")
    (folder / "master").mkdir()
    (folder / "master" / "master.cfg").write_text(
        MASTER_CFG.format(pb=pb, www=www, stamp=STAMP, steps=STEPS, secret=SECRET)
    )
    run([f"{bin_dir}/buildbot", "create-master", "--quiet", master], quiet=True, env=env)
    create = ("create-worker", worker, f"127.0.0.1:{pb}", "local", "secret")
    run([f"{bin_dir}/buildbot-worker", *create], quiet=True, env=env)
    web = f"http://127.0.0.1:{www}"
    with (
        child([f"{bin_dir}/buildbot", "start", "--nodaemon", master], folder / "master.log", env),
        child([f"{bin_dir}/buildbot-worker", "start", "--nodaemon", worker], folder / "worker.log", env),
        httpx.Client(base_url=f"{web}/api/v2", trust_env=False) as api,
    ):
        until(lambda: worker_is_there(api), "Buildbot's worker connected")
        yield (
            _buildbot_side("Buildbot", folder / "http", http_hook(f"{web}/change_hook/base"), api),
            _buildbot_side("Buildbot (sendchange)", folder / "pb", sendchange_hook(bin_dir, pb), api),
            _told_side(folder / "told", f"{web}/change_hook/github", api),
        )


def worker_is_there(api: httpx.Client) -> bool:
    """Whether the worker is connected; the master knows none at first."""
    return any(one["connected_to"] for one in api.get("/workers").json().get("workers", ()))


def _buildbot_side(name: str, folder: Path, hook: str, api: httpx.Client) -> Side:
    folder.mkdir()
    origin = Origin.make(folder, {})
    path = origin.bare / "hooks" / "post-receive"
    path.write_text(f"#!/bin/sh\nread before after ref\n{hook}\n")
    path.chmod(0o755)
    return Side(name, lambda: buildbot_push(origin, api))


def _told_side(folder: Path, url: str, api: httpx.Client) -> Side:
    folder.mkdir()
    origin = Origin.make(folder, {})

    def tell() -> Measure:
        before, commit = origin.head(), origin.commit()
        origin.push()
        return buildbot_measure(api, commit, send(url, delivery(commit, before)))

    return Side("Buildbot, webhook", tell)


def http_hook(url: str) -> str:
    """The fastest way to tell Buildbot of a push: curl where it is there."""
    fields = "author=bench&comments=push&project=bench&revision=$after&branch=${ref#refs/heads/}"
    if shutil.which("curl"):
        return f'exec curl --silent --fail --output /dev/null --data "{fields}" {url}'
    post = "import sys, urllib.request as r; r.urlopen(sys.argv[1], sys.argv[2].encode()).read()"
    return f'exec {shlex.quote(sys.executable)} -IS -c {shlex.quote(post)} {url} "{fields}"'


def sendchange_hook(bin_dir: Path, port: int) -> str:
    """As Buildbot's manual has it."""
    words = f"--master 127.0.0.1:{port} --auth change:secret --who bench --vc git --project bench"
    return f'exec {bin_dir}/buildbot sendchange {words} --branch "${{ref#refs/heads/}}" --revision "$after" >/dev/null'


def buildbot_push(origin: Origin, api: httpx.Client) -> Measure:
    """Push, and read the stamps from the steps' logs."""
    commit = origin.commit()
    return buildbot_measure(api, commit, origin.push())


def buildbot_measure(api: httpx.Client, commit: str, begun_at: float) -> Measure:
    """What a build of a commit took from `begun_at`, seconds since the epoch."""
    time.sleep(PAUSE_S)

    def ended() -> Any:
        builds = api.get("/builds", params={"order": "-buildid", "limit": 1, "property": "revision"})
        last = builds.raise_for_status().json()["builds"]
        mine = last and last[0]["properties"].get("revision", [None])[0] == commit
        return last[0] if mine and last[0]["complete"] else None

    build = until(ended, "Buildbot built the commit")
    if build["results"] != 0:
        sys.exit(f"latency: Buildbot's build ended with {build['state_string']}")
    steps = api.get(f"/builds/{build['buildid']}/steps").raise_for_status().json()["steps"]
    own = {step["name"]: step["stepid"] for step in steps}
    return Measure.of(begun_at, [buildbot_stamp(api, own[step]) for step in ENDS])


def buildbot_stamp(api: httpx.Client, step_id: int) -> float:
    """What the step's command printed."""
    logs = api.get(f"/steps/{step_id}/logs/stdio/contents").raise_for_status().json()
    printed = [line[1:] for line in logs["logchunks"][0]["content"].splitlines() if line.startswith("o")]
    return float(printed[0])


# The measurement


def measure(sides: Sequence[Side], rounds: int) -> dict[str, list[Measure]]:
    """Every side in turn, round after round; warm-up rounds do not count."""
    found: dict[str, list[Measure]] = {side.name: [] for side in sides}
    for number in range(WARM_UPS + rounds):
        for side in sides:
            one = side.push()
            counts = number >= WARM_UPS
            label = f"round {number - WARM_UPS + 1}" if counts else "warm-up"
            print(f"{label:<9} {side.name:<22} {one.first_s:6.3f} s {one.step_s:6.3f} s", flush=True)
            if counts:
                found[side.name].append(one)
    return found


def median(measures: Sequence[Measure]) -> tuple[float, float]:
    """Of both figures."""
    return statistics.median(one.first_s for one in measures), statistics.median(one.step_s for one in measures)


def show(found: Mapping[str, Sequence[Measure]]) -> None:
    """The table: medians with the smallest and largest."""
    print(f"\n{'medians (from … to)':<22} {'begin → first command':>26} {'per step':>26}")
    for name, measures in found.items():
        first, step = median(measures)
        firsts, steps = sorted(one.first_s for one in measures), sorted(one.step_s for one in measures)
        told = (
            f"{first:.3f} s ({firsts[0]:.3f} … {firsts[-1]:.3f})",
            f"{step:.3f} s ({steps[0]:.3f} … {steps[-1]:.3f})",
        )
        print(f"{name:<22} {told[0]:>26} {told[1]:>26}")
    for side in ("Penstock", "Penstock, webhook"):
        for name in found[side][0].stages:
            took = statistics.median(one.stages[name] for one in found[side])
            print(f"  of {side:<22} {name:<26} {took:.3f} s")
    print(
        f"isolation: Penstock {'bubblewrap' if bubblewrap() else 'none'}, Buildbot none; load {os.getloadavg()[0]:.1f}"
    )


def main() -> int:
    """Returns: 0 when all ratios are below 1 (or Buildbot was left out), else 1."""
    parser = argparse.ArgumentParser(description="push → first command and per-step cost, beside Buildbot")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skip-buildbot", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"latency: not done within {LIMIT_S} s"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("latency: stopped"))
    signal.alarm(LIMIT_S)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        folder.chmod(0o711)  # as root, PostgreSQL's own user passes through
        sides = [*stack.enter_context(penstock(folder / "penstock"))]
        if not options.skip_buildbot:
            sides += stack.enter_context(buildbot(folder / "buildbot"))
        found = measure(sides, options.rounds)
        signal.alarm(0)
    show(found)
    if options.skip_buildbot:
        return 0
    (our_first, our_step), (their_first, their_step) = median(found["Penstock"]), median(found["Buildbot"])
    first, step = our_first / their_first, our_step / their_step
    webhook = median(found["Penstock, webhook"])[0] / median(found["Buildbot, webhook"])[0]
    print(f"first_command_ratio={first:.2f} per_step_ratio={step:.2f} webhook_first_command_ratio={webhook:.2f}")
    return 0 if max(first, step, webhook) < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
