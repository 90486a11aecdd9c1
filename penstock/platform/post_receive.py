"""
A repository's post-receive hook: tells Penstock which branches and tags moved.

Run as `python -IS post_receive.py URL TOKEN_FILE`; git gives `before after ref` lines on standard
input. It never fails the push: what is not told is found by polling.

A push waits for it, so it imports next to nothing: `http.client` takes four times as long as all that is
done here, and `socket` twice as long as `_socket`, which is all that it is used for.
"""

import _socket
import sys

TIMEOUT_S = 5.0
ACCEPTED = 202


def main() -> None:
    """Tell each branch and tag that moved; deletions start nothing."""
    url, token_file = sys.argv[1:3]
    with open(token_file) as file:  # noqa: PTH123 - importing pathlib would double the time
        token = file.read().strip()
    for line in sys.stdin:
        before, after, ref = line.split()
        if ref.startswith(("refs/heads/", "refs/tags/")) and after.strip("0"):
            body = f'{{"ref": {quoted(ref)}, "commit": "{after}", "before": "{before}"}}'
            status, said = tell(url, token, body.encode())
            if status != ACCEPTED:
                print(f"penstock: {detail(said)}")


def quoted(ref: str) -> str:
    """A ref as JSON."""
    if ref.isascii() and '"' not in ref:  # git allows no backslash and no control character
        return f'"{ref}"'
    import json

    return json.dumps(ref.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def tell(url: str, token: str, body: bytes) -> tuple[int, bytes]:
    """Post it. Returns: status and what was answered. Raises: OSError, ValueError."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    headers = {"Host": host, "Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return (_by_tls if scheme == "https" else _plainly)(host, f"/{path}", headers, body)


def _plainly(host: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    told = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    name, _, port = host.rpartition(":")
    family, kind, _, _, address = _socket.getaddrinfo(name.strip("[]"), int(port), 0, _socket.SOCK_STREAM)[0]
    connection = _socket.socket(family, kind)
    connection.settimeout(TIMEOUT_S)
    try:
        connection.connect(address)
        connection.sendall("\r\n".join(lines).encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    finally:
        connection.close()
    head, _, said = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head else 0, said


def _by_tls(host: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    import http.client

    connection = http.client.HTTPSConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no answer that could be read: {type(error).__name__}") from error
    finally:
        connection.close()


def detail(said: bytes) -> str:
    """An error in the API's own words."""
    import json

    return str(json.loads(said).get("detail", "not accepted"))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        away = isinstance(error, ConnectionRefusedError)
        print(f"penstock: {'Penstock is not running' if away else error}; this push will be found by polling")
