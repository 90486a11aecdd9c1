"""
A small Kubernetes API server for the engine's tests, at the wire: HTTP and WebSockets, objects in memory.

No cluster can be run here. The shapes are those of the API reference (v1 Pod, batch/v1 Job, Status) and of the
remote command protocol v4; commands "in a container" are run by this machine's own sh, head and tar.
"""

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

Json = dict[str, Any]
KINDS = {"jobs": "Job", "networkpolicies": "NetworkPolicy", "secrets": "Secret", "pods": "Pod"}
STARTED = "2026-03-01T10:00:00Z"


def waiting(name: str, reason: str, message: str = "", image: str = "shop:1") -> Json:
    state = {"reason": reason, "message": message} if message else {"reason": reason}
    return {"name": name, "image": image, "ready": False, "restartCount": 0, "state": {"waiting": state}}


def running(name: str) -> Json:
    return {"name": name, "ready": True, "restartCount": 0, "state": {"running": {"startedAt": STARTED}}}


def terminated(name: str, code: int, reason: str = "", message: str = "") -> Json:
    ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
    ended |= {"startedAt": STARTED, "finishedAt": "2026-03-01T10:00:07Z"} | ({"message": message} if message else {})
    return {"name": name, "ready": False, "restartCount": 0, "state": {"terminated": ended}}


INITIALIZING = [waiting("job", "PodInitializing"), waiting("workspace-out", "PodInitializing")]


def pending(*init: Json, conditions: list[Json] | None = None) -> Json:
    return {
        "phase": "Pending",
        "conditions": conditions or [],
        "initContainerStatuses": list(init),
        "containerStatuses": INITIALIZING,
    }


def copying() -> Json:
    return pending(running("workspace-in"))


def active(main: Json, *sidecars: Json, keeper: Json | None = None, **more: str) -> Json:
    return {
        "phase": "Running",
        "initContainerStatuses": [terminated("workspace-in", 0), *sidecars],
        "containerStatuses": [main, keeper or running("workspace-out")],
        **more,
    }


UNSCHEDULABLE = pending(
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
        }
    ]
)


@attrs.define
class Scenario:
    """
    What happens in the cluster.

    before, after: statuses of the Pod, one for each look, before and after the workspace has been copied in; the last
    one stays. work: what the job does to its workspace. log: what it printed, with time stamps.
    fail: path of a request (a pattern) → status with which it is refused, once for each entry.
    """

    before: list[Json | None] = attrs.field(factory=lambda: [None, pending(), copying()])
    after: list[Json] = attrs.field(factory=lambda: [active(running("job")), active(terminated("job", 0))])
    work: Callable[[Path], None] = lambda _folder: None
    log: list[bytes] = attrs.field(factory=list)
    words: str = ""
    fail: list[tuple[str, int]] = attrs.field(factory=list)
    cut_copy_out: bool = False
    without_tar: bool = False
    refuse_commands: bool = False


@attrs.define
class FakeCluster:
    """The server's memory. folder: where the Pod's /workspace and /penstock are."""

    folder: Path
    scenario: Scenario
    objects: dict[tuple[str, str], Json] = attrs.field(factory=dict)
    calls: list[str] = attrs.field(factory=list)
    made: list[Json] = attrs.field(factory=list)
    logs_read: int = 0

    def made_of(self, kind: str) -> Json:
        return next(made for made in self.made if made["kind"] == kind)

    def status(self) -> Json | None:
        """The next one."""
        if not (self.folder / "penstock" / "ready").exists():
            return _next(self.scenario.before)
        worked = self.folder / "worked"
        if not worked.exists():
            worked.touch()
            self.scenario.work(self.folder / "workspace")
        return _next(self.scenario.after)

    def pods(self) -> list[Json]:
        found = []
        for (kind, name), made in self.objects.items():
            if kind == "jobs" and not made["spec"]["suspend"] and (status := self.status()) is not None:
                meta = {"name": f"{name}-x7k2p", "creationTimestamp": STARTED}
                meta["labels"] = made["spec"]["template"]["metadata"]["labels"]
                found.append({"metadata": meta, "spec": made["spec"]["template"]["spec"], "status": status})
        return found


def _next(statuses: list[Any]) -> Any:
    return statuses.pop(0) if len(statuses) > 1 else statuses[0]


def _refusal(code: int, message: str) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return JSONResponse(body, code)


def application(cluster: FakeCluster) -> Starlette:
    """The server."""

    def refused(request: Request) -> Response | None:
        call = f"{request.method} {request.url.path}"
        cluster.calls.append(call)
        if request.headers.get("authorization") != "Bearer secret-token":
            return _refusal(401, "Unauthorized")
        for entry in cluster.scenario.fail:
            if re.search(entry[0], call):
                cluster.scenario.fail.remove(entry)
                return _refusal(entry[1], f"refused on purpose: {entry[1]}")
        return None

    async def collection(request: Request) -> Response:
        if answer := refused(request):
            return answer
        kind = request.path_params["kind"]
        if request.method == "POST":
            made = await request.json()
            cluster.made.append(json.loads(json.dumps(made)))
            made["metadata"]["uid"] = f"uid-of-{made['metadata']['name']}"
            cluster.objects[kind, made["metadata"]["name"]] = made
            return JSONResponse(made, 201)
        items = cluster.pods() if kind == "pods" else [o for (k, _), o in cluster.objects.items() if k == kind]
        wanted = dict(pair.split("=") for pair in request.query_params.get("labelSelector", "").split(",") if pair)
        items = [item for item in items if wanted.items() <= item["metadata"]["labels"].items()]
        return JSONResponse({"kind": f"{KINDS[kind]}List", "apiVersion": "v1", "metadata": {}, "items": items})

    async def one(request: Request) -> Response:
        if answer := refused(request):
            return answer
        key = (request.path_params["kind"], request.path_params["name"])
        if key not in cluster.objects:
            return _refusal(404, f'{key[0]} "{key[1]}" not found')
        if request.method == "DELETE":
            del cluster.objects[key]
            return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        change = await request.json()
        cluster.objects[key]["spec"].update(change["spec"])
        return JSONResponse(cluster.objects[key])

    async def log(request: Request) -> Response:
        if answer := refused(request):
            return answer
        if request.query_params["container"] != "job":
            return Response(cluster.scenario.words, media_type="text/plain")
        cluster.logs_read += 1

        async def lines() -> Any:
            for line in cluster.scenario.log:
                yield line
                await asyncio.sleep(0)

        return StreamingResponse(lines(), media_type="text/plain")

    routes = [
        WebSocketRoute("/api/v1/namespaces/ci/pods/{name}/exec", lambda socket: execute(socket, cluster)),
        Route("/api/v1/namespaces/ci/pods/{name}/log", log),
    ]
    for prefix in ("/api/v1", "/apis/batch/v1", "/apis/networking.k8s.io/v1"):
        path = f"{prefix}/namespaces/ci/{{kind}}"
        routes += [Route(path, collection, methods=["GET", "POST"])]
        routes += [Route(path + "/{name}", one, methods=["DELETE", "PATCH"])]
    return Starlette(routes=routes)


async def execute(socket: WebSocket, cluster: FakeCluster) -> None:
    """A command in a container: stdin on channel 0, stdout 1, stderr 2, how it ended on 3."""
    if socket.headers.get("authorization") != "Bearer secret-token" or cluster.scenario.refuse_commands:
        await socket.close()
        return
    await socket.accept(subprotocol="v4.channel.k8s.io")
    query = socket.query_params
    cluster.calls.append(f"EXEC {query['container']} {query.getlist('command')[-1].split('|')[0].strip()}")
    script = query.getlist("command")[-1]
    for room in ("workspace", "penstock"):
        script = script.replace(f"/{room}", str(cluster.folder / room))
    if cluster.scenario.without_tar:
        script = script.replace("tar ", "no-such-tar ")
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    feeding = asyncio.create_task(_feed(socket, process)) if query["stdin"] == "true" else None
    await asyncio.gather(_hand_on(socket, process.stdout, 1, cluster), _hand_on(socket, process.stderr, 2, cluster))
    code = await process.wait()
    if feeding is not None:
        feeding.cancel()
    if not (cluster.scenario.cut_copy_out and query["container"] == "workspace-out"):
        await socket.send_bytes(b"\x03" + json.dumps(_how_it_ended(code)).encode())
    await socket.close()


def _how_it_ended(code: int) -> Json:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _feed(socket: WebSocket, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    try:
        while True:
            frame = await socket.receive_bytes()
            process.stdin.write(frame[1:])
            await process.stdin.drain()
    except (WebSocketDisconnect, ConnectionError, asyncio.CancelledError):
        process.stdin.close()


async def _hand_on(socket: WebSocket, stream: asyncio.StreamReader | None, channel: int, cluster: FakeCluster) -> None:
    assert stream is not None
    sent = 0
    while chunk := await stream.read(32768):
        if cluster.scenario.cut_copy_out and channel == 1 and sent > 20000:
            continue
        sent += len(chunk)
        await socket.send_bytes(bytes([channel]) + chunk)


@contextmanager
def serving(cluster: FakeCluster) -> Iterator[str]:
    """The server's address while the block runs."""
    for room in ("workspace", "penstock"):
        (cluster.folder / room).mkdir(parents=True)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(cluster), log_level="warning", ws="websockets-sansio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
