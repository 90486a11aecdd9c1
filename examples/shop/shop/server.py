"""The shop over HTTP: a JSON API under /api, one page, and /health."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from shop.baskets import Baskets, NoSuchThing
from shop.catalogue import Product
from shop.pricing import UnknownVoucher

HERE = Path(__file__).parent
BODY_LIMIT = 64 * 1024
FILES = {"/": ("page.html", "text/html"), "/app.js": ("app.js", "text/javascript")}


class BadRequest(ValueError):
    """A body that cannot be used."""


class ShopServer(ThreadingHTTPServer):
    """A shop that listens. version: what /health says of itself."""

    daemon_threads = False  # so that closing waits for answers that are under way
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], catalogue: Mapping[str, Product], version: str = "dev") -> None:
        self.catalogue, self.version = catalogue, version
        self.baskets = Baskets(catalogue)
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ShopServer
    protocol_version = "HTTP/1.0"  # one request each: nothing idle is left to wait for when it stops
    timeout = 4

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def health(self) -> object:
        return {"status": "ok", "version": self.server.version, "products": len(self.server.catalogue)}

    def products(self) -> object:
        return [asdict(product) for product in self.server.catalogue.values()]

    def product(self, product: str) -> object:
        if product not in self.server.catalogue:
            raise NoSuchThing(f'no product "{product}"')
        return asdict(self.server.catalogue[product])

    def new_basket(self) -> object:
        return {"basket": self.server.baskets.create()}

    def basket(self, basket: str) -> object:
        return asdict(self.server.baskets.price(basket))

    def put_item(self, basket: str, product: str) -> object:
        quantity = self._body().get("quantity")
        if not isinstance(quantity, int) or isinstance(quantity, bool):
            raise BadRequest("quantity must be a whole number")
        self.server.baskets.put(basket, product, quantity)
        return self.basket(basket)

    def check_out(self, basket: str) -> object:
        voucher = self._body().get("voucher")
        if voucher is not None and not isinstance(voucher, str):
            raise BadRequest("voucher must be text")
        return self.server.baskets.check_out(basket, voucher)

    def _answer(self, method: str) -> None:
        path = self.path.partition("?")[0]
        if method == "GET" and path in FILES:
            name, kind = FILES[path]
            self._send(HTTPStatus.OK, (HERE / name).read_bytes(), kind)
            return
        status, value = self._call(method, path)
        self._send(status, json.dumps(value).encode(), "application/json")

    def _call(self, method: str, path: str) -> tuple[HTTPStatus, object]:
        try:
            for verb, pattern, action in ROUTES:
                if verb == method and (match := pattern.fullmatch(path)):
                    return HTTPStatus.OK, action(self, *match.groups())
        except NoSuchThing as error:
            return HTTPStatus.NOT_FOUND, {"error": str(error)}
        except UnknownVoucher as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, {"error": f'no voucher "{error}"'}
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, {"error": str(error)}
        return HTTPStatus.NOT_FOUND, {"error": f"nothing at {method} {path}"}

    def _body(self) -> dict[str, object]:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            raise BadRequest("the body is too large or its length is missing")
        try:
            value = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadRequest("the body is no JSON") from error
        if not isinstance(value, dict):
            raise BadRequest("the body must be an object")
        return value

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


Action = Callable[..., object]
ROUTES: tuple[tuple[str, re.Pattern[str], Action], ...] = (
    ("GET", re.compile(r"/health"), Handler.health),
    ("GET", re.compile(r"/api/products"), Handler.products),
    ("GET", re.compile(r"/api/products/([\w-]+)"), Handler.product),
    ("POST", re.compile(r"/api/baskets"), Handler.new_basket),
    ("GET", re.compile(r"/api/baskets/([\w-]+)"), Handler.basket),
    ("PUT", re.compile(r"/api/baskets/([\w-]+)/items/([\w-]+)"), Handler.put_item),
    ("POST", re.compile(r"/api/baskets/([\w-]+)/checkout"), Handler.check_out),
)
