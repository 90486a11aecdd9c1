"""
How fast reports are read, beside other readers, in one run on one generated report.

    python bench/findings.py --results 100000

Every contestant runs alone in a process of its own, several times in turn with the others, and its best run
counts. Ratios are of processor time, which a busy machine disturbs less than the clock; both are printed.
Peak memory is that of the process, interpreter included.

    reading     penstock: findings with severity, path, rule, package and fingerprint, from the file
    streaming   the same, block by block, nothing kept
    table       the same as `reading`, then an Arrow table
    msgspec     bare msgspec: the file's bytes decoded into dicts and lists, nothing understood
    typed       bare msgspec with penstock's own types: the least that any typed reader must do
    load        sarif-tools: a file loaded, nothing understood
    records     sarif-tools: a file loaded and its records made
    duckdb      DuckDB: rule, level, message, path and line of every result by read_json

The last line holds each ratio of speeds; the exit code is 1 where a goal is missed. The goals: `reading` at
least 0.8 times as fast as `msgspec` and 5 times as fast as `records`, below 2 GB, `streaming` below 300 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SEED = 20261121
STREAMING_PEAK_MB = 300
READING_PEAK_MB = 2000


class Measured(NamedTuple):
    """What one run of a contestant took."""

    processor_s: float
    elapsed_s: float
    results: int
    peak_mb: float


# What is measured, each in a process of its own: imports first, then the clock.


def _reading(path: Path) -> Callable[[], int]:
    from penstock.findings import read_report

    return lambda: read_report(path).summary.results


def _streaming(path: Path) -> Callable[[], int]:
    from penstock.findings import open_report

    def run() -> int:
        stream = open_report(path)
        for _ in stream.batches():
            pass
        return stream.summary.results

    return run


def _table(path: Path) -> Callable[[], int]:
    import pyarrow as pa
    import pyarrow.compute

    from penstock.findings import open_report, to_arrow

    pa.array([1])  # with its first array, pyarrow imports pandas where it is installed

    def run() -> int:
        stream = open_report(path)
        pa.concat_tables([to_arrow(portion) for portion in stream.portions()])
        return stream.summary.results

    return run


def _msgspec(path: Path) -> Callable[[], int]:
    import msgspec

    return lambda: sum(len(run["results"]) for run in msgspec.json.decode(path.read_bytes())["runs"])


def _typed(path: Path) -> Callable[[], int]:
    import msgspec

    from penstock.findings.model import Result

    run = msgspec.defstruct("Run", [("results", list[Result])], gc=False)
    log = msgspec.defstruct("Log", [("runs", list[run])], gc=False)  # type: ignore[valid-type]
    decoder = msgspec.json.Decoder(log)
    return lambda: sum(len(run.results) for run in decoder.decode(path.read_bytes()).runs)


def _load(path: Path) -> Callable[[], int]:
    from sarif import loader

    return lambda: loader.load_sarif_file(str(path)).get_result_count()


def _records(path: Path) -> Callable[[], int]:
    from sarif import loader

    return lambda: len(loader.load_sarif_file(str(path)).get_records())


def _duckdb(path: Path) -> Callable[[], int]:
    import duckdb

    query = f"""
        SELECT r.ruleId, r.level, r.message.text, r.locations[1].physicalLocation.artifactLocation.uri,
            r.locations[1].physicalLocation.region.startLine
        FROM (SELECT unnest(run.results) AS r FROM (
            SELECT unnest(runs) AS run FROM read_json('{path}', maximum_object_size = {path.stat().st_size + 1})))
    """
    return lambda: duckdb.sql(query).to_arrow_table().num_rows


CONTESTANTS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "reading": _reading,
    "streaming": _streaming,
    "table": _table,
    "msgspec": _msgspec,
    "typed": _typed,
    "load": _load,
    "records": _records,
    "duckdb": _duckdb,
}
ELSEWHERE = frozenset(("load", "records"))
"""Contestants that run with the interpreter of the other environment."""


def measure(name: str, path: Path) -> None:
    """Run a contestant once in this process and print what it took."""
    run = CONTESTANTS[name](path)
    start, clock = time.process_time(), time.perf_counter()
    results = run()
    took = {"processor_s": time.process_time() - start, "elapsed_s": time.perf_counter() - clock}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**took, "results": results, "peak_mb": peak_mb}))


# The report.


def _place(generator: random.Random, line: int, text: str | None = None) -> dict[str, Any]:
    uri = f"src/package{generator.randrange(60)}/module_{generator.randrange(200)}.py"
    region: dict[str, Any] = {"startLine": line, "startColumn": 5, "endLine": line, "endColumn": 40}
    if text is not None:
        region["snippet"] = {"text": text}
    return {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": region}


def _codeql(generator: random.Random, number: int) -> dict[str, Any]:
    rule, line = generator.randrange(150), generator.randrange(1, 3000)
    place = _place(generator, line)
    step = {"location": {"physicalLocation": place, "message": {"text": "ControlFlowNode for request"}}}
    result = {
        "ruleId": f"py/rule-{rule}",
        "ruleIndex": rule,
        "rule": {"id": f"py/rule-{rule}", "index": rule},
        "message": {"text": f"This path {number} depends on a [user-provided value](1)."},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "primaryLocationLineHash": f"{generator.getrandbits(64):016x}:1",
            "primaryLocationStartColumnFingerprint": "4",
        },
        "relatedLocations": [{"id": 1, "physicalLocation": place, "message": {"text": "user-provided value"}}],
    }
    if generator.random() < 0.1:
        result["codeFlows"] = [{"threadFlows": [{"locations": [step] * 4}]}]
    return result


def _semgrep(generator: random.Random, number: int) -> dict[str, Any]:
    line = generator.randrange(1, 3000)
    return {
        "fingerprints": {"matchBasedId/v1": "requires login"},
        "locations": [{"physicalLocation": _place(generator, line, f"    run(request.args['q{number}'], shell=True)")}],
        "message": {"text": "subprocess call with shell=True on request data; use a list of arguments instead"},
        "properties": {},
        "ruleId": f"shell-{generator.randrange(80)}",
    }


def _trivy(generator: random.Random, number: int) -> dict[str, Any]:
    library = generator.randrange(300)
    rule, name, version = (library * 7 + number % 3) % 400, f"library-{library}", f"{library % 7}.{number % 3}.1"
    return {
        "ruleId": f"CVE-2024-{rule + 1000}",
        "ruleIndex": rule,
        "level": "error",
        "message": {
            "text": f"Package: {name}\nInstalled Version: {version}\nVulnerability CVE-2024-{rule + 1000}\n"
            f"Severity: HIGH\nFixed Version: 9.9.9\nLink: [CVE](https://avd.aquasec.com/nvd/cve-2024-{rule + 1000})"
        },
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": f"services/{number % 50}/package-lock.json", "uriBaseId": "ROOTPATH"},
                    "region": {"startLine": number % 5000 + 1, "startColumn": 1, "endLine": number % 5000 + 9},
                },
                "message": {"text": f"package-lock.json: {name}@{version}"},
            }
        ],
    }


def _policy(generator: random.Random, number: int) -> dict[str, Any]:
    return {
        "kind": "pass",
        "ruleId": f"control-{generator.randrange(90)}",
        "level": "none",
        "message": {"text": f"Control passed on resource {number}."},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": f"deployment/service-{number % 400}"}]}],
    }


def _rule(name: str, score: float, cwe: int) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "shortDescription": {"text": f"What {name} is about"},
        "defaultConfiguration": {"level": "warning"},
        "helpUri": f"https://example.com/{name}",
        "properties": {"tags": ["security", f"external/cwe/cwe-{cwe:03}"], "security-severity": f"{score:.1f}"},
    }


TOOLS = (  # the tool, its share of the results, how it writes one, and its rules
    ("CodeQL", 0.45, _codeql, [_rule(f"py/rule-{n}", n % 10, n + 20) for n in range(150)]),
    ("Semgrep OSS", 0.23, _semgrep, [_rule(f"shell-{n}", 0, n + 70) for n in range(80)]),
    ("Trivy", 0.2, _trivy, [_rule(f"CVE-2024-{n + 1000}", n % 10, n + 100) for n in range(400)]),
    ("controls", 0.12, _policy, []),
)


def generate(path: Path, results: int) -> None:
    """Write a report with this many results: four tools, as they write, some results no findings."""
    generator = random.Random(SEED)
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with path.open("w") as file:
        file.write('{"version":"2.1.0","runs":[')
        left = results
        for place, (name, share, make, rules) in enumerate(TOOLS):
            count = left if place == len(TOOLS) - 1 else int(results * share)
            left -= count
            driver = encode({"driver": {"name": name, "semanticVersion": "1.2.3", "rules": rules}})
            file.write(("," if place else "") + f'{{"tool":{driver},"results":[')
            file.writelines(("," if n else "") + encode(make(generator, n)) for n in range(count))
            file.write("]}")
        file.write("]}")


# The comparison.


def _run(name: str, path: Path, elsewhere: Path) -> Measured:
    interpreter = elsewhere if name in ELSEWHERE else Path(sys.executable)
    command = [str(interpreter), str(Path(__file__).resolve()), "--measure", name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    if done.returncode != 0:
        raise SystemExit(f"{name} failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _environment(folder: Path) -> Path:
    """The interpreter of an environment with sarif-tools in it, made for this run."""
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    subprocess.run(
        [str(interpreter), "-m", "pip", "-q", "install", "sarif-tools"], check=True, stderr=subprocess.DEVNULL
    )
    return interpreter


def compare(path: Path, elsewhere: Path, rounds: int) -> dict[str, Measured]:
    """The best run of each contestant, and its highest peak."""
    runs: dict[str, list[Measured]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name in CONTESTANTS:
            runs[name].append(_run(name, path, elsewhere))
    return {name: min(some)._replace(peak_mb=max(one.peak_mb for one in some)) for name, some in runs.items()}


def report(best: dict[str, Measured], results: int) -> Iterator[str]:
    """The measurements as lines, the ratios of speeds last."""
    for name, one in best.items():
        speed = results / one.processor_s
        times = f"{one.processor_s:8.2f} s of processor {one.elapsed_s:8.2f} s elapsed"
        yield f"{name:10} {times} {speed:10,.0f} results/s {one.peak_mb:7.0f} MB"
    ratios = [f"reading_vs_{label}={_times(best, 'reading', name):.2f}" for name, label in LABELS.items()]
    ratios += [f"table_vs_{label}={_times(best, 'table', name):.2f}" for name, label in LABELS.items()]
    ratios += [f"streaming_mb={best['streaming'].peak_mb:.0f}", f"reading_mb={best['reading'].peak_mb:.0f}"]
    yield " ".join(ratios)


LABELS = {
    "msgspec": "msgspec",
    "typed": "msgspec_typed",
    "records": "sarif_tools",
    "load": "sarif_tools_load",
    "duckdb": "duckdb",
}


def _times(best: dict[str, Measured], name: str, other: str) -> float:
    """How many times as fast one contestant is as another."""
    return best[other].processor_s / best[name].processor_s


def missed(best: dict[str, Measured], results: int) -> list[str]:
    """The goals that were missed, in words."""
    goals = {
        "reading is at least 0.8 times as fast as bare msgspec": _times(best, "reading", "msgspec") >= 0.8,
        "reading is at least 5 times as fast as sarif-tools": _times(best, "reading", "records") >= 5,
        f"streaming stays below {STREAMING_PEAK_MB} MB": best["streaming"].peak_mb < STREAMING_PEAK_MB,
        f"reading stays below {READING_PEAK_MB} MB": best["reading"].peak_mb < READING_PEAK_MB,
        "every reader saw every result": all(one.results == results for one in best.values()),
    }
    return [goal for goal, met in goals.items() if not met]


def main() -> int:
    """Generate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument(
        "--rounds", type=int, help="how often each contestant runs; by default 3, above 300,000 results 1"
    )
    parser.add_argument("--sarif-tools", type=Path, metavar="PYTHON", help="an interpreter that has sarif-tools")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], Path(given.measure[1]))
        return 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        path = Path(folder) / "report.sarif"
        generate(path, given.results)
        elsewhere = given.sarif_tools or _environment(Path(folder) / "sarif-tools")
        print(f"{given.results:,} results, {path.stat().st_size / 1e6:.0f} MB, seed {SEED}")
        best = compare(path, elsewhere, given.rounds or (1 if given.results > 300_000 else 3))
    failures = missed(best, given.results)
    for failure in failures:
        print(f"missed: {failure}")
    for line in report(best, given.results):
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
