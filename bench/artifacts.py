"""
What does the artifact store cost beside `cp` + `sha256sum`, and beside `rclone copy`?

    python bench/artifacts.py [--gib 2] [--s3-gib 0.25] [--rounds 3] [--folder DIR] [--skip-s3]

A file of random bytes goes into a local store and out of it again, as the store does it for a step: hashed, verified,
flushed to the disk on the way in. The peers do the same by hand, once for each direction: `cp` and then `sha256sum` of
the copy; and as a second, harder peer `cp` and Python's SHA-256 (OpenSSL, which uses the processor's instructions where
coreutils may not). Rounds alternate; medians; then the same against `rclone serve s3` beside `rclone copy`, which
compares MD5 sums. The last lines are ratios Penstock / peer and the peak memory of the process that stores.
Exit code 1 when the ratio to `cp` + `sha256sum` is above 1.2 or the memory is 200 MB or more.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 1024**3
PIECE = 16 * 1024 * 1024
GOAL_RATIO, GOAL_BYTES = 1.2, 200 * 1000**2
KEY, SECRET, BUCKET = "BENCHKEY", "bench-secret-key", "bench"
RCLONE = Path(sys.executable).with_name("rclone")

WORKER = """
import resource, sys, time
from pathlib import Path
from penstock.artifacts import open_store
store, source, target = open_store(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
first = time.perf_counter()
blob = store.put_file(source)
second = time.perf_counter()
store.fetch_file(blob.digest, target)
third = time.perf_counter()
print(second - first, third - second, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> int:
    """Returns: the exit code."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=options.folder))
    try:
        _make(folder / "source", int(options.gib * GIB))
        good = local(folder, options.rounds)
        if not options.skip_s3:
            _make(folder / "source", int(options.s3_gib * GIB))
            s3(folder, options.rounds)
        return 0 if good else 1
    finally:
        shutil.rmtree(folder)


def local(folder: Path, rounds: int) -> bool:
    """Prints the figures of the local store. Returns: whether they reach the goal."""
    source, copy = folder / "source", folder / "copy"
    put, get, peak, cp, fast = [], [], 0, [], []
    for _ in range(rounds):
        stored = _stored(str(folder / "store"), source, copy, {})
        shutil.rmtree(folder / "store")
        put.append(stored[0])
        get.append(stored[1])
        peak = max(peak, int(stored[2]))
        copy.unlink()
        cp.append(_both_ways(source, copy, ["sha256sum"]))
        fast.append(_both_ways(source, copy, [sys.executable, "-c", _HASH]))
    both = statistics.median(a + b for a, b in zip(put, get, strict=True))
    size = source.stat().st_size / GIB
    print(f"local, {size:g} GiB: put {statistics.median(put):.2f} s, get {statistics.median(get):.2f} s")
    peers = (statistics.median(cp), statistics.median(fast))
    print(f"both ways by cp + sha256sum: {peers[0]:.2f} s; by cp + Python's SHA-256: {peers[1]:.2f} s")
    ratio, harder = both / peers[0], both / peers[1]
    print(f"local_ratio={ratio:.2f} local_ratio_fast_hash={harder:.2f} peak_mb={peak / 1e6:.0f}")
    return ratio <= GOAL_RATIO and peak < GOAL_BYTES


def s3(folder: Path, rounds: int) -> None:
    """Prints the figures of a bucket."""
    source, copy = folder / "source", folder / "copy"
    put, get, up, down, peak = [], [], [], [], 0
    with _serving(folder / "s3") as port:
        env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        env["PENSTOCK_ARTIFACTS_ENDPOINT"] = f"http://127.0.0.1:{port}"
        for _ in range(rounds):
            stored = _stored(f"s3://{BUCKET}/store", source, copy, env)
            copy.unlink()
            put.append(stored[0])
            get.append(stored[1])
            peak = max(peak, int(stored[2]))
            _empty(folder / "s3" / BUCKET)
            remote = f":s3:{BUCKET}/peer"
            up.append(_seconds(lambda to=remote: _rclone(port, str(source), to)))  # type: ignore[misc]
            down.append(_seconds(lambda at=remote: _rclone(port, f"{at}/source", str(folder / "down"))))  # type: ignore[misc]
            shutil.rmtree(folder / "down")
            _empty(folder / "s3" / BUCKET)
    size = source.stat().st_size / GIB
    print(f"s3, {size:g} GiB: put {statistics.median(put):.2f} s, get {statistics.median(get):.2f} s")
    print(f"rclone copy: up {statistics.median(up):.2f} s, down {statistics.median(down):.2f} s")
    ratios = (statistics.median(put) / statistics.median(up), statistics.median(get) / statistics.median(down))
    print(f"s3_put_ratio={ratios[0]:.2f} s3_get_ratio={ratios[1]:.2f} s3_peak_mb={peak / 1e6:.0f}")


_HASH = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())"


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--gib", type=float, default=2.0, help="size of the file; the goal is set for 10")
    words.add_argument("--s3-gib", type=float, default=0.25, help="size of the file for the bucket")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--folder", help="where to work; default: the system's temporary folder")
    words.add_argument("--skip-s3", action="store_true")
    return words.parse_args()


def _make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size > 0:
            file.write(os.urandom(min(PIECE, size)))
            size -= PIECE
        os.fsync(file.fileno())


def _stored(location: str, source: Path, target: Path, env: dict[str, str]) -> tuple[float, ...]:
    """Seconds of put and get, and peak memory in bytes, of a process of its own."""
    words = [sys.executable, "-c", WORKER, location, str(source), str(target)]
    done = subprocess.run(words, env={**os.environ, **env}, check=True, capture_output=True, text=True)
    return tuple(float(word) for word in done.stdout.split())


def _both_ways(source: Path, copy: Path, words: list[str]) -> float:
    """In and out again by hand: both copies stay until the end, as they do in a store."""
    first = time.perf_counter()
    again = copy.with_name("copy-again")
    for origin, target in ((source, copy), (copy, again)):
        subprocess.run(["cp", str(origin), str(target)], check=True)
        subprocess.run([*words, str(target)], check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - first
    for target in (copy, again):
        target.unlink()
    return taken


def _seconds(work: Callable[[], None]) -> float:
    first = time.perf_counter()
    work()
    return time.perf_counter() - first


def _rclone(port: int, source: str, target: str) -> None:
    env = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_S3_PROVIDER": "Rclone",
        "RCLONE_S3_ENDPOINT": f"http://127.0.0.1:{port}",
        "RCLONE_S3_ACCESS_KEY_ID": KEY,
        "RCLONE_S3_SECRET_ACCESS_KEY": SECRET,
    }
    subprocess.run(
        [str(RCLONE), "copy", source, target], env={**os.environ, **env}, check=True, stderr=subprocess.DEVNULL
    )


def _empty(bucket: Path) -> None:
    for found in bucket.iterdir():
        shutil.rmtree(found)


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    words = [str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    words += ["--config", "/dev/null", "--dir-cache-time", "1ms", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        yield port
    finally:
        server.kill()
        server.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
