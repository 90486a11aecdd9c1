"""The data API, as a plugin asks it: rows that other plugins told of the same project."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

LIMIT_S = 60.0


class QueryError(Exception):
    """What the data API said of a question that it did not answer."""


class DataApi:
    """url: PENSTOCK_DATA_URL. token: of this step."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token
        # Straight to the platform's own address, whatever proxies the variables name.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def rows(self, what: str, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Rows of `metrics` or `data`, the newest first, page by page. Raises: QueryError."""
        query = {name: value for name, value in wanted.items() if value is not None}
        path: str | None = f"/{what}?{urllib.parse.urlencode(query)}"
        while path is not None:
            rows, path = self._page(path)
            yield from rows

    def sql(self, text: str) -> list[dict[str, Any]]:
        """The rows of one SELECT, each by its columns' names. Raises: QueryError."""
        answer, _ = self._ask("/query", {"sql": text})
        names = [column["name"] for column in answer["columns"]]
        return [dict(zip(names, row, strict=True)) for row in answer["rows"]]

    def _page(self, path: str) -> tuple[list[dict[str, Any]], str | None]:
        rows, link = self._ask(path, None)
        if 'rel="next"' not in link:
            return rows, None
        query = urllib.parse.urlsplit(link[link.index("<") + 1 : link.index(">")]).query
        return rows, f"{path.partition('?')[0]}?{query}"

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> tuple[Any, str]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(f"{self._url}{path}", data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=LIMIT_S) as answer:
                return json.load(answer), answer.headers.get("Link") or ""
        except urllib.error.HTTPError as error:
            raise QueryError(f"{error.code}: {_reason(error.read(4096))}") from error
        except (OSError, ValueError) as error:
            raise QueryError(f"the data API cannot be asked: {error}") from error


def _reason(body: bytes) -> str:
    """The detail of a problem (RFC 9457), else the body itself."""
    text = body.decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said.get("detail") or said.get("title") or text) if isinstance(said, dict) else text
