"""/artifacts: written whole or not at all, read whole or in part, listed, and taken away when nobody needs them."""

import base64
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import psutil
import pytest
import sqlalchemy as sa
from api_calls import API, MAIN, graph, problem_of
from git_builder import GitRepository

from penstock.artifacts import open_store
from penstock.pipeline import records
from penstock.processes import wait_until
from penstock.settings import Settings
from penstock.state.tables import artifacts, audit, releases
from penstock.steps.context import Artifact, RunInfo, StepResult

DATA = os.urandom(3000)
DIGEST = hashlib.sha256(DATA).hexdigest()
BASE64 = base64.b64encode(bytes.fromhex(DIGEST)).decode()
OTHER = base64.b64encode(b"\1" * 32).decode()


@pytest.fixture
def named(shop: GitRepository) -> dict[str, str]:
    """What an artifact that is sent has to be called."""
    return {"project": "shop", "key": "dist", "commit": shop.git("rev-parse", "HEAD")}


@pytest.fixture
def stored(api: httpx.Client, named: dict[str, str]) -> str:
    """The address of an artifact that was sent."""
    answer = api.post(f"{API}/artifacts", params=named, content=DATA)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def blobs(settings: Settings) -> list[str]:
    return [blob.digest for blob in open_store(settings.artifacts_path).blobs()]


def left_behind(settings: Settings) -> list[Path]:
    """What is half written in the store."""
    return list(Path(settings.artifacts_path, "incoming").iterdir())


def test_artifact_that_is_sent_can_be_read_and_found(
    api: httpx.Client, named: dict[str, str], database: sa.Engine, run: RunInfo
) -> None:
    """As `step.artifact_pull` finds it too: published under its key, at its place in the workspace."""
    answer = api.post(f"{API}/artifacts", params={**named, "path": "/workspace/out/app.bin"}, content=DATA)
    made = answer.json()
    assert (answer.status_code, made["digest"], made["size_bytes"], made["ref"]) == (201, DIGEST, len(DATA), MAIN)
    assert (made["path"], made["run_id"], made["step"], made["published"]) == ("out/app.bin", None, None, True)
    read = api.get(answer.headers["location"])
    assert (read.status_code, read.content, read.headers["etag"]) == (200, DATA, f'"{DIGEST}"')
    assert read.headers["repr-digest"] == f"sha-256=:{BASE64}:"
    found = records.find_published(database, run, "dist", None)
    assert found == Artifact("dist", "out/app.bin", "file", DIGEST, len(DATA), published=True)
    assert api.get(f"{API}/artifacts").json() == [made]


def test_artifact_sent_again_is_the_one_that_is_there(
    api: httpx.Client, named: dict[str, str], stored: str, database: sa.Engine
) -> None:
    """200 instead of 201, for POST and PUT alike; one record, one row in the audit."""
    again = api.post(f"{API}/artifacts", params=named, content=DATA)
    put = api.put(stored, params=named, content=DATA)
    assert (again.status_code, put.status_code) == (200, 200)
    assert again.json() == put.json() == api.get(f"{API}/artifacts").json()[0]
    with database.connect() as connection:
        written = connection.execute(sa.select(audit.c.subject).where(audit.c.action == "artifact.write")).all()
    assert written == [(DIGEST,)]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Checksum-SHA256": DIGEST},
        {"X-Checksum-SHA256": DIGEST.upper()},
        {"Repr-Digest": f"sha-256=:{BASE64}:"},
        {"Repr-Digest": f"md5=:AAAA:, sha-256=:{BASE64}:, unixsum=:x:"},
        {"Content-Digest": f"sha-256=:{BASE64}:"},
        {"Digest": f"SHA-256={BASE64}"},
        {"Digest": "md5=AAAA"},
        {"X-Checksum-SHA256": DIGEST, "Digest": f"SHA-256={BASE64}"},
    ],
)
def test_right_checksums_are_taken(api: httpx.Client, named: dict[str, str], headers: dict[str, str]) -> None:
    """In every form that clients send."""
    assert api.post(f"{API}/artifacts", params=named, content=DATA, headers=headers).status_code == 201


WRONG = (
    ({"X-Checksum-SHA256": "0" * 64}, f"SHA-256 is {DIGEST[:12]}"),
    ({"Repr-Digest": f"sha-256=:{OTHER}:"}, f"SHA-256 is {DIGEST[:12]}"),
    ({"Digest": f"SHA-256={OTHER}"}, f"SHA-256 is {DIGEST[:12]}"),
    ({"X-Checksum-SHA256": "abc"}, "no SHA-256"),
    ({"Repr-Digest": "sha-256=:AAAA:"}, "no SHA-256"),
    ({"Repr-Digest": "sha-256=:not base64!:"}, "no SHA-256"),
    ({"Digest": "SHA-256"}, "no SHA-256"),
    ({"X-Checksum-SHA256": DIGEST, "Repr-Digest": f"sha-256=:{OTHER}:"}, "different hashes"),
)


def test_wrong_checksums_are_refused(api: httpx.Client, named: dict[str, str], settings: Settings) -> None:
    """422, and nothing is stored or on record."""
    for headers, told in WRONG:
        answer = api.post(f"{API}/artifacts", params=named, content=DATA, headers=headers)
        assert told in problem_of(answer, 422), headers
    assert "SHA-256 is" in problem_of(api.put(f"{API}/artifacts/{'0' * 64}", params=named, content=DATA), 422)
    right = {"X-Checksum-SHA256": DIGEST}
    answer = api.put(f"{API}/artifacts/{'0' * 64}", params=named, content=DATA, headers=right)
    assert "different hashes" in problem_of(answer, 422)
    assert (api.get(f"{API}/artifacts").json(), blobs(settings), left_behind(settings)) == ([], [], [])


BAD_NAMES = (
    ({"key": "../../etc/passwd"}, "query.key"),
    ({"key": "a/b"}, "query.key"),
    ({"key": ".."}, "query.key"),
    ({"key": "a\0"}, "query.key"),
    ({"key": "x" * 129}, "query.key"),
    ({"key": ""}, "query.key"),
    ({"path": "../out"}, "query.path"),
    ({"path": "/etc/passwd"}, "query.path"),
    ({"path": "a/../../b"}, "query.path"),
    ({"path": "a\0b"}, "query.path"),
    ({"commit": "HEAD"}, "query.commit"),
    ({"commit": "A" * 40}, "query.commit"),
    ({"ref": "\0"}, "query.ref"),
    ({"more": "1"}, "query.more"),
)


def test_bad_names_are_refused(api: httpx.Client, named: dict[str, str], settings: Settings) -> None:
    """Keys that are paths, paths that leave the workspace, commits that are none: 422 before a byte is stored."""
    for wrong, told in BAD_NAMES:
        assert told in problem_of(api.post(f"{API}/artifacts", params={**named, **wrong}, content=DATA), 422), wrong
    for wrong in ({"project": "other"}, {"commit": "a" * 40}):
        problem_of(api.post(f"{API}/artifacts", params={**named, **wrong}, content=DATA), 404)
    for name in ("..%2F..%2Ftoken", "x", "%00", "A" * 64, "a" * 63, "%FF"):
        for method in ("GET", "DELETE"):
            answer = api.request(method, f"{API}/artifacts/{name}")
            problem_of(answer, 404 if "%2F" in name else 422)
    assert blobs(settings) == []


def test_too_large_artifact_is_refused(api: httpx.Client, named: dict[str, str], settings: Settings) -> None:
    """413, whether its length is told or found out; nothing is left."""
    piece = bytes(1024 * 1024)
    for content in (iter([piece] * 49), piece * 49):
        try:
            answer = api.post(f"{API}/artifacts", params=named, content=content)
        except httpx.TransportError:  # refused while it was being sent
            continue
        assert "larger than 50331648 bytes" in problem_of(answer, 413)
    assert wait_until(lambda: not left_behind(settings), limit_s=60)
    assert (api.get(f"{API}/artifacts").json(), blobs(settings)) == ([], [])


def test_encoded_artifact_is_refused(api: httpx.Client, named: dict[str, str]) -> None:
    """415: its digest would be that of the encoding."""
    answer = api.post(f"{API}/artifacts", params=named, content=DATA, headers={"Content-Encoding": "gzip"})
    assert "as they are sent" in problem_of(answer, 415)


def test_upload_that_is_cut_off_leaves_nothing(api: httpx.Client, named: dict[str, str], settings: Settings) -> None:
    """The client went away in the middle."""
    query = str(httpx.QueryParams(named))
    head = f"POST {API}/artifacts?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: {api.headers['Authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", api.base_url.port or 0)) as connection:
        connection.sendall(f"{head}Content-Length: 2000000\r\n\r\n".encode() + b"x" * 1_500_000)
        assert wait_until(lambda: bool(left_behind(settings)), limit_s=60)
    assert wait_until(lambda: not left_behind(settings), limit_s=60)
    assert (api.get(f"{API}/artifacts").json(), blobs(settings)) == ([], [])


def test_artifacts_pass_through_in_constant_memory(api: httpx.Client, named: dict[str, str]) -> None:
    """Forty MiB there and back; neither side of the test holds them, so what grows is the API's."""
    piece, count = os.urandom(1024 * 1024), 40
    expected = hashlib.sha256(piece * count).hexdigest()

    def pieces() -> Iterator[bytes]:
        for _ in range(count):
            yield piece

    before = psutil.Process().memory_info().rss
    answer = api.post(f"{API}/artifacts", params=named, content=pieces())
    assert answer.json()["digest"] == expected
    found = hashlib.sha256()
    with api.stream("GET", answer.headers["location"]) as read:
        for chunk in read.iter_raw():
            found.update(chunk)
    assert found.hexdigest() == expected
    assert psutil.Process().memory_info().rss - before < 30 * 1024**2


def test_empty_artifact_is_one(api: httpx.Client, named: dict[str, str]) -> None:
    """Nothing is something; no range of it can be had."""
    answer = api.post(f"{API}/artifacts", params=named, content=b"")
    assert (answer.status_code, answer.json()["size_bytes"]) == (201, 0)
    location = answer.headers["location"]
    assert (api.get(location).status_code, api.get(location).content) == (200, b"")
    assert "0 bytes" in problem_of(api.get(location, headers={"Range": "bytes=0-0"}), 416)


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=0-": (0, 3000),
    "bytes=10-19": (10, 20),
    "Bytes=10-19": (10, 20),
    "bytes=2999-": (2999, 3000),
    "bytes=2990-99999999": (2990, 3000),
    "bytes=-1": (2999, 3000),
    "bytes=-99999": (0, 3000),
}
IGNORED = (
    "bytes=20-10",
    "bytes=-",
    "bytes=a-b",
    "lines=1-2",
    "bytes=0-1,5-6",
    "bytes",
    "",
    "bytes=1-2-3",
    f"bytes={'9' * 30}-",
)


def test_ranges_are_read(api: httpx.Client, stored: str) -> None:
    """206 with exactly these bytes; what is no single range is ignored, as the standard allows."""
    for header, (start, end) in RANGES.items():
        answer = api.get(stored, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, DATA[start:end]), header
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/3000"
    for header in IGNORED:
        answer = api.get(stored, headers={"Range": header})
        assert (answer.status_code, answer.content) == (200, DATA), header


def test_ranges_beyond_the_end_are_refused(api: httpx.Client, stored: str) -> None:
    """416 with the size."""
    for header in ("bytes=3000-", "bytes=99999999999-", "bytes=-0"):
        answer = api.get(stored, headers={"Range": header})
        assert "3000 bytes" in problem_of(answer, 416), header
        assert answer.headers["content-range"] == "bytes */3000"


def test_interrupted_download_is_resumed(api: httpx.Client, stored: str) -> None:
    """A part while the ETag is still the same, all of it when it is not."""
    rest = {"Range": "bytes=1000-"}
    assert api.get(stored, headers={**rest, "If-Range": f'"{DIGEST}"'}).content == DATA[1000:]
    assert api.get(stored, headers={**rest, "If-Range": '"other"'}).content == DATA


def test_what_the_client_has_is_not_sent_again(api: httpx.Client, stored: str) -> None:
    """304, for GET and HEAD; HEAD tells size and digest without the bytes."""
    for known in (f'"{DIGEST}"', f'"x", W/"{DIGEST}"', "*"):
        for method in ("GET", "HEAD"):
            answer = api.request(method, stored, headers={"If-None-Match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{DIGEST}"')
    assert api.get(stored, headers={"If-None-Match": '"other"'}).status_code == 200
    head = api.head(stored)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "3000", b"")
    assert head.headers["accept-ranges"] == "bytes"


@pytest.fixture
def put_out(run: RunInfo, database: sa.Engine, settings: Settings) -> str:
    """The digest of what the step of the run put out."""
    blob = open_store(settings.artifacts_path).put_bytes(b"made by the step")
    made = Artifact("app", "dist/app", "file", blob.digest, blob.size_bytes)
    records.finish_step(database, run, "hello", StepResult("succeeded", artifacts=(made,), exit_code=0))
    return blob.digest


def test_artifact_is_read_by_run_step_and_key(api: httpx.Client, put_out: str) -> None:
    """The same bytes as under its digest, ranges too; a wrong name says what there is."""
    url = f"{API}/runs/run-1/steps/hello/artifacts"
    assert api.get(f"{url}/app").content == api.get(f"{API}/artifacts/{put_out}").content == b"made by the step"
    assert api.get(f"{url}/app", headers={"Range": "bytes=0-3"}).content == b"made"
    assert api.head(f"{url}/app").headers["etag"] == f'"{put_out}"'
    assert '"app"' in problem_of(api.get(f"{url}/apq"), 404)
    problem_of(api.get(f"{API}/runs/other/steps/hello/artifacts/app"), 404)
    problem_of(api.get(f"{url}/..%2Fapp"), 404)
    problem_of(api.get(f"{url}/.hidden"), 422)


def test_artifacts_are_listed_by_what_is_asked_for(api: httpx.Client, put_out: str, stored: str) -> None:
    """Newest first, page by page; every filter holds."""
    queries = {
        "": 2,
        "project=shop": 2,
        "project=other": 0,
        "run=run-1": 1,
        "step=hello": 1,
        "key=dist": 1,
        f"digest={put_out}": 1,
        "published=true": 1,
        "published=false": 1,
        "ref=refs/heads/main&key=app": 1,
        "commit=0000": 0,
    }
    for query, count in queries.items():
        assert len(api.get(f"{API}/artifacts?{query}").json()) == count, query
    first = api.get(f"{API}/artifacts?limit=1")
    second = api.get(first.links["next"]["url"])
    assert [made["key"] for made in first.json() + second.json()] == ["dist", "app"]
    assert "next" not in second.links
    for query in ("digest=x", "commit=HEAD", "limit=0", "published=2", "cursor=x", "project=%00", "more=1"):
        assert query.partition("=")[0] in problem_of(api.get(f"{API}/artifacts?{query}"), 422)


def test_artifact_is_deleted_when_nobody_needs_it(
    api: httpx.Client, put_out: str, run: RunInfo, database: sa.Engine
) -> None:
    """Refused while its run is not over; then it is gone from every list, and the audit says who did it."""
    url = f"{API}/artifacts/{put_out}"
    assert "run run-1 is not over" in problem_of(api.delete(url), 409)
    records.finish_run(database, run.id)
    assert api.delete(url).json() == {"digest": put_out, "records": 1, "bytes_removed": False}
    for method in ("GET", "HEAD", "DELETE"):
        assert api.request(method, url).status_code == 404
    assert api.get(f"{API}/artifacts").json() == []
    with database.connect() as connection:
        rows = connection.execute(sa.select(audit.c.actor, audit.c.subject).where(audit.c.action == "artifact.delete"))
        assert rows.all() == [("local", put_out)]


def test_bytes_that_are_older_than_a_day_go_at_once(
    api: httpx.Client, put_out: str, run: RunInfo, database: sa.Engine, settings: Settings
) -> None:
    """No run can be about to record them."""
    records.finish_run(database, run.id)
    path = Path(settings.artifacts_path, "sha256", put_out[:2], put_out[2:])
    os.utime(path, (path.stat().st_mtime - 90_000,) * 2)
    assert api.delete(f"{API}/artifacts/{put_out}").json()["bytes_removed"] is True
    assert put_out not in blobs(settings)


def test_artifact_of_a_release_is_not_deleted(
    api: httpx.Client, put_out: str, run: RunInfo, database: sa.Engine
) -> None:
    """That serves, is about to, or may come back: 409, and it is still there."""
    records.finish_run(database, run.id)
    release = {"id": "r1", "project": "shop", "environment": "staging", "service": "web", "number": 1, "state": "live"}
    made = {"commit": run.commit, "digest": put_out, "graph_hash": "", "run_id": run.id, "configuration": {}}
    with database.begin() as connection:
        connection.execute(sa.insert(releases).values(**release, **made, live_at=sa.func.now()))
    told = {
        "live": "live release 1 of shop/web in staging",
        "pending": "pending release",
        "superseded": "may come back",
    }
    for state, words in told.items():
        with database.begin() as connection:
            connection.execute(sa.update(releases).values(state=state))
        assert words in problem_of(api.delete(f"{API}/artifacts/{put_out}"), 409)
        assert api.get(f"{API}/artifacts/{put_out}").status_code == 200


def test_artifact_that_another_run_of_its_commit_may_take_over_stays(
    api: httpx.Client, put_out: str, run: RunInfo, database: sa.Engine
) -> None:
    """A rerun of its commit is under way."""
    records.finish_run(database, run.id)
    records.create_run(database, attrs.evolve(run, id="run-2"), graph())
    assert "run run-2 is not over" in problem_of(api.delete(f"{API}/artifacts/{put_out}"), 409)


def test_lost_and_damaged_bytes_are_never_given(
    api: httpx.Client, stored: str, settings: Settings, database: sa.Engine
) -> None:
    """What is damaged is an error, not the bytes; what the store has lost is not found."""
    path = Path(settings.artifacts_path, "sha256", DIGEST[:2], DIGEST[2:])
    path.write_bytes(b"x" + DATA[1:])
    assert "damaged" in problem_of(api.get(stored), 503)
    path.unlink()
    assert "lost" in problem_of(api.get(stored), 404)
    assert api.head(stored).status_code == 404


def test_damage_behind_the_first_chunk_ends_the_connection_early(
    api: httpx.Client, named: dict[str, str], settings: Settings
) -> None:
    """The client sees that bytes are missing, and never a whole answer that is wrong."""
    data = os.urandom(12 * 1024 * 1024)
    made = api.post(f"{API}/artifacts", params=named, content=data).json()
    path = Path(settings.artifacts_path, "sha256", made["digest"][:2], made["digest"][2:])
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([data[-1] ^ 1]))
    with pytest.raises(httpx.RemoteProtocolError):
        api.get(f"{API}/artifacts/{made['digest']}")


def test_records_of_runs_are_not_taken_for_sent_ones(api: httpx.Client, put_out: str, database: sa.Engine) -> None:
    """What was sent is of no run and no step, and looks so."""
    with database.connect() as connection:
        assert connection.execute(sa.select(artifacts.c.run_id)).scalars().all() == ["run-1"]
    (made,) = api.get(f"{API}/artifacts").json()
    assert (made["run_id"], made["step"]) == ("run-1", "hello")
