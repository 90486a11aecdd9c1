"""
A storm of webhooks: how fast are deliveries answered, is any lost, does any run twice?

    python bench/webhooks.py [--deliveries 2000] [--seconds 10] [--kill]

One API process (uvicorn) with a real PostgreSQL, both made here; a connected repository with as many branches as
there are pushes; a sender in a process of its own, over loopback. Half of the deliveries are repetitions, half of those
under another id. All are signed as GitHub does. With --kill the API is killed with -9 in the middle of the storm and
started again, and what was not answered is sent again, as forges do. The dispatcher is at work as always: it reads
every pipeline, and finds that Dagster is away.

Prints the answers' times in ms and HTTP statuses, and what was found in the inbox; exit code 1 when an event is missing
or there twice, or p99 is 250 ms or more (without --kill). What is not over in --limit seconds is stopped, and says what
was answered until then.
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa

from penstock.settings import load_settings
from penstock.sources.projects import add_project
from penstock.state.database import hosted_database
from penstock.state.tables import deliveries, inbox
from penstock.vault import open_vault
from penstock.webhooks.hooks import add_hook, new_secret

ACCEPTED = 202
P99_LIMIT_MS, SETTLE_LIMIT_S, UP_LIMIT_S, ANSWER_LIMIT_S = 250.0, 300.0, 120.0, 30.0
PIPELINE = "version: 1\nsteps: [{name: hello, type: step.shell_exec, commands: [echo hello]}]\n"
_IDENTITY = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")


def make_repository(folder: Path, count: int) -> list[str]:
    """A repository with a branch for each push. Returns: their commits."""
    git(folder.parent, "init", "--quiet", "--initial-branch=main", str(folder))
    (folder / "penstock.yaml").write_text(PIPELINE)
    git(folder, "add", ".")
    git(folder, *_IDENTITY, "commit", "--quiet", "-m", "First")
    who = "committer bench <bench@localhost> 1700000000 +0000"
    told = [f"commit refs/heads/b{n}\n{who}\ndata 2\n{n % 10}\nfrom refs/heads/main^0\n" for n in range(count)]
    for n in range(count):  # a commit's hash must differ
        told[n] = told[n].replace("1700000000", str(1_700_000_000 + n))
    git(folder, "fast-import", "--quiet", data="\n".join(told).encode())
    listing = git(folder, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads/b*")
    commits = dict(line.split() for line in listing.splitlines())
    return [commits[f"b{n}"] for n in range(count)]


def git(folder: Path, *words: str, data: bytes | None = None) -> str:
    """What git printed."""
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, input=data)
    return done.stdout.decode()


def body_of(number: int, commit: str) -> bytes:
    """A push as GitHub tells it, of a usual size (7 kB)."""
    listed = [{"id": commit, "message": "x" * 300, "added": [], "modified": ["app.py"], "removed": []}] * 14
    return json.dumps(
        {
            "ref": f"refs/heads/b{number}",
            "before": "0" * 40,
            "after": commit,
            "created": True,
            "deleted": False,
            "forced": False,
            "commits": listed,
            "head_commit": listed[0],
            "repository": {"id": 7, "full_name": "shop/api", "owner": {"login": "shop"}},
            "pusher": {"name": "ada"},
            "sender": {"login": "ada"},
        }
    ).encode()


def plan(commits: list[str], luck: random.Random) -> list[tuple[int, str]]:
    """(push, delivery id): each push, and its repetition a while later, every other one under another id."""
    pushes = [(float(n), n, f"d-{n}") for n in range(len(commits))]
    again = [(n + luck.uniform(0, 60), n, f"d-{n}" if n % 2 else f"e-{n}") for n in range(len(commits))]
    return [(number, delivery) for _, number, delivery in sorted(pushes + again)]


class Sender:
    """Connections to the API, as few as are free; plain asyncio, because a client library would be what is measured."""

    def __init__(self, url: str, secret: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path, self._secret = (
            str(parts.hostname),
            int(parts.port or 80),
            parts.path,
            secret,
        )
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.statuses: Counter[str] = Counter()

    async def send(self, body: bytes, delivery: str) -> int:
        """Returns: the answer's status. Raises: OSError, asyncio.IncompleteReadError when the API is away."""
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
        signature = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"X-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\nX-Hub-Signature-256: sha256={signature}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        status = int(answer.split(b" ", 2)[1])
        self.statuses[str(status)] += 1
        return status


async def storm(sender: Sender, bodies: list[bytes], sends: list[tuple[int, str]], seconds: float) -> list[float]:
    """
    Send at an even pace, whether answers come or not; what is not taken is sent again, as forges do.

    Returns: seconds from when each was due to its answer; of one that was sent again, of the last time.
    """

    async def send(due_s: float, number: int, delivery: str) -> float:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        while True:
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    if await sender.send(bodies[number], delivery) == ACCEPTED:
                        return time.monotonic() - due_s
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                sender.statuses[type(error).__name__] += 1
            await asyncio.sleep(0.5)
            due_s = time.monotonic()

    begun, pace = time.monotonic() + 0.2, seconds / len(sends)
    return await asyncio.gather(*(send(begun + n * pace, *one) for n, one in enumerate(sends)))


def start_api(env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """The API, up."""
    with (folder / "api.log").open("ab") as log:
        command = [sys.executable, "-m", "penstock.api"]
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log)
    deadline = time.monotonic() + UP_LIMIT_S
    health = f"http://127.0.0.1:{env['PENSTOCK_API_PORT']}/api/v1/health"
    while time.monotonic() < deadline:
        try:
            if httpx.get(health, trust_env=False).status_code == 200:
                return process
        except httpx.HTTPError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"the API did not come up: {(folder / 'api.log').read_text()[-2000:]}")


def send_all(seconds: float, limit_s: float) -> None:
    """The sender's own process: its work is not to stand in the way of its clock."""
    given = json.loads(sys.stdin.read())
    bodies = [body_of(number, commit) for number, commit in enumerate(given["commits"])]
    sender = Sender(given["url"], given["secret"])

    async def bounded() -> list[float]:
        async with asyncio.timeout(limit_s):
            return await storm(sender, bodies, given["sends"], seconds)

    try:
        times = asyncio.run(bounded())
    except TimeoutError:
        told = ", ".join(f"{count} × {status}" for status, count in sender.statuses.most_common()) or "nothing"
        sys.exit(f"webhooks: not every delivery was taken within {limit_s:.0f} s; answered: {told}")
    print(json.dumps({"times": times, "statuses": sender.statuses}))


def settle(database: sa.Engine) -> float:
    """Wait until nothing is waiting. Returns: seconds it took. Raises: SystemExit with what still waits, and why."""
    begun = time.monotonic()
    waiting = sa.select(sa.func.count()).select_from(deliveries).where(deliveries.c.state == "received")
    while time.monotonic() - begun < SETTLE_LIMIT_S:
        with database.connect() as connection:
            if not connection.execute(waiting).scalar_one():
                return time.monotonic() - begun
        time.sleep(0.05)
    why = sa.select(deliveries.c.reason, sa.func.count()).where(deliveries.c.state == "received")
    with database.connect() as connection:
        left = connection.execute(why.group_by(deliveries.c.reason)).all()
    told = "; ".join(f"{count} × {reason or 'not looked at'}" for reason, count in left)
    raise SystemExit(f"webhooks: deliveries still wait after {SETTLE_LIMIT_S:.0f} s: {told}")


def report(database: sa.Engine, times: list[float], commits: list[str], took_s: float) -> int:
    """Print the figures. Returns: the exit code for what is in the inbox."""
    with database.connect() as connection:
        found = Counter(connection.execute(sa.select(inbox.c.ref)).scalars())
        slowest = connection.execute(
            sa.select(sa.func.max(deliveries.c.finished_at - deliveries.c.received_at))
        ).scalar()
    lost = len(commits) - len(found)
    doubled = sum(count - 1 for count in found.values())
    cuts = statistics.quantiles([t * 1000 for t in times], n=1000)
    print(f"answers={len(times)} p50={cuts[499]:.1f} ms p90={cuts[899]:.1f} ms p99={cuts[989]:.1f} ms")
    print(
        f"slowest answer={max(times) * 1000:.1f} ms; from answer to inbox at most {slowest}; settled in {took_s:.2f} s"
    )
    print(f"pushes={len(commits)} events={sum(found.values())} lost={lost} doubled={doubled} p99_ms={cuts[989]:.1f}")
    return int(bool(lost or doubled))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """One storm."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    home, key = folder / "home", folder / "vault.key"
    own = {"PENSTOCK_HOME": str(home), "PENSTOCK_VAULT_KEY_FILE": str(key), "PENSTOCK_API_PORT": port}
    env = {**os.environ, **own}
    settings = load_settings(own)
    commits = make_repository(folder / "api", arguments.deliveries // 2)
    with hosted_database(settings) as database:
        add_project(database, "shop", str(folder / "api"))
        hook = add_hook(database, open_vault(settings), "shop", "github", secret=(secret := new_secret()))
        process = start_api(env, folder)
        try:
            url = f"http://127.0.0.1:{port}{hook.path}"
            given: dict[str, Any] = {"url": url, "secret": secret, "commits": commits}
            given["sends"] = plan(commits, random.Random(4))
            words = [sys.executable, __file__, "--send", "--seconds", str(arguments.seconds)]
            words += ["--limit", str(arguments.limit)]
            sender = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert sender.stdin is not None
            sender.stdin.write(json.dumps(given).encode())
            sender.stdin.close()
            sender.stdin = None
            if arguments.kill:
                time.sleep(arguments.seconds / 2)
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = start_api(env, folder)
            times = answered(sender, arguments.limit, folder)
            code = report(database, times, commits, settle(database))
        finally:
            process.terminate()
            process.wait()
    p99_ms = statistics.quantiles([t * 1000 for t in times], n=100)[98]
    return code or int(not arguments.kill and p99_ms >= P99_LIMIT_MS)


def answered(sender: subprocess.Popen[bytes], limit_s: float, folder: Path) -> list[float]:
    """The answers' seconds; prints their statuses. Raises: SystemExit with the API's last words when there are none."""
    try:
        said = sender.communicate(timeout=limit_s + UP_LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
        said = b""
    if not said:
        raise SystemExit(f"webhooks: the storm did not end; the API said: {(folder / 'api.log').read_text()[-2000:]}")
    told = json.loads(said)
    print("statuses: " + ", ".join(f"{count} × {status}" for status, count in told["statuses"].items()))
    return list(told["times"])


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for all answers")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--send", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        send_all(arguments.seconds, arguments.limit)
        return 0
    with tempfile.TemporaryDirectory(prefix="ps", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        return run(arguments, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
