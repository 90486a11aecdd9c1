"""A small service for the tests: it answers with its version, and misbehaves when its environment says so."""

import fcntl
import http.server
import json
import os
import pathlib
import socket
import sys
import threading
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(address.query))
        if address.path == "/health" and time.monotonic() > SICK_AT_S:
            return self.answer(503, "sick by now")
        if address.path == "/health" and "UNHEALTHY" in os.environ:
            return self.answer(503, os.environ["UNHEALTHY"])
        if address.path == "/environment":
            return self.answer(200, json.dumps(dict(os.environ)))
        if address.path == "/look":
            return self.answer(200, json.dumps(look(asked["at"])))
        if address.path == "/end":
            os._exit(int(asked["code"]))
        time.sleep(float(asked.get("s", "0")))
        return self.answer(200, os.environ.get("VERSION", "none"))

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


def look(at: str) -> dict[str, object]:
    """What the service can do with a folder of its host."""
    folder = pathlib.Path(at)
    entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    try:
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError:
        return {"entries": entries, "writable": False}
    return {"entries": entries, "writable": True}


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    address_family = socket.AF_INET
    block_on_close = False


def alone() -> None:
    """One process of this service at a time, as of a database that cannot run twice."""
    lock = (pathlib.Path(os.environ["DATA_DIR"]) / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another one runs", file=sys.stderr)
        sys.exit(9)
    globals()["_lock"] = lock  # held until the process ends


SICK_AT_S = time.monotonic() + float(os.environ.get("SICK_AFTER_S", "inf"))

if __name__ == "__main__":
    print(f"version {os.environ.get('VERSION')} starts", flush=True)
    if "CRASH" in os.environ:
        print(os.environ["CRASH"], file=sys.stderr)
        sys.exit(7)
    if "CHILD" in os.environ and os.fork() == 0:
        time.sleep(600)
    if "ALONE" in os.environ:
        alone()
    if "DIES_AFTER_S" in os.environ:
        threading.Timer(float(os.environ["DIES_AFTER_S"]), os._exit, [5]).start()
    time.sleep(float(os.environ.get("SLOW_START_S", "0")))
    Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
