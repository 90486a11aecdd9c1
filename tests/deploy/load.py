"""Constant load on a service, for tests that count what fails."""

import http.client
import threading

import attrs

Client = tuple[bool, str, str]  # does it keep its connection, method, path
KEPT_AND_NEW: tuple[Client, ...] = ((True, "GET", "/"),) * 3 + ((False, "GET", "/"),) * 2
SLOW_POSTS: tuple[Client, ...] = ((True, "POST", "/?s=0.6"),) * 2


@attrs.define
class Load:
    """Clients that never try again: kept-alive connections, a new one each time, and slow posts."""

    netloc: str
    clients: tuple[Client, ...] = KEPT_AND_NEW + SLOW_POSTS
    answers: list[str] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)
    _ended: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def __enter__(self) -> "Load":
        for client in self.clients:
            self._threads.append(threading.Thread(target=self._client, args=client))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _client(self, keep_alive: bool, method: str, path: str) -> None:
        connection = http.client.HTTPConnection(self.netloc, timeout=15)
        while not self._ended.is_set():
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                text = answer.read().decode()
                (self.answers if answer.status == 200 else self.failures).append(text or str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{method} {path}: {error!r}")
                connection.close()
            if not keep_alive:
                connection.close()
        connection.close()
