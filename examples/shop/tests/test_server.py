"""The shop over HTTP, really listening."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from shop.catalogue import load_catalogue
from shop.server import ShopServer

Call = Callable[..., tuple[int, dict]]


@pytest.fixture
def call() -> Iterator[Call]:
    """call(method, path, body) asks a running shop: (status, JSON)."""
    server = ShopServer(("127.0.0.1", 0), load_catalogue(), "test")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def ask(method: str, path: str, body: object = None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        text = body if isinstance(body, str) else json.dumps(body) if body is not None else None
        connection.request(method, path, text)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw) if "json" in answer.headers["Content-Type"] else raw.decode()

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def basket(call: Call) -> str:
    return call("POST", "/api/baskets")[1]["basket"]


def test_health_names_the_version(call: Call):
    assert call("GET", "/health") == (200, {"status": "ok", "version": "test", "products": 6})


def test_page_and_script_are_served(call: Call):
    assert "<h1>Shop</h1>" in call("GET", "/")[1]
    assert call("GET", "/app.js")[0] == 200


def test_products_are_listed(call: Call):
    status, products = call("GET", "/api/products")
    assert status == 200
    assert products[0]["id"] == "mug"
    assert call("GET", "/api/products/mug")[1]["price_cents"] == 1290


def test_basket_to_order(call: Call, basket: str):
    call("PUT", f"/api/baskets/{basket}/items/mug", {"quantity": 2})
    status, price = call("PUT", f"/api/baskets/{basket}/items/spoon", {"quantity": 1})
    assert (status, price["total_cents"]) == (200, 2 * 1290 + 450 + 490)
    status, order = call("POST", f"/api/baskets/{basket}/checkout", {"voucher": "TEATIME"})
    assert status == 200
    assert order["price"]["voucher_cents"] == 152
    assert len(order["token"]) == 8
    assert len(order["receipt"]) == 64
    assert call("GET", f"/api/baskets/{basket}")[0] == 404


def test_quantity_zero_takes_it_out(call: Call, basket: str):
    call("PUT", f"/api/baskets/{basket}/items/mug", {"quantity": 2})
    assert call("PUT", f"/api/baskets/{basket}/items/mug", {"quantity": 0})[1]["lines"] == []


@pytest.mark.parametrize("body", [{"quantity": -1}, {"quantity": 1000}, {"quantity": "2"}, {"quantity": True}, {}, "[]", "{"])
def test_bad_quantities_are_refused(call: Call, basket: str, body: object):
    status, answer = call("PUT", f"/api/baskets/{basket}/items/mug", body)
    assert status == 400
    assert answer["error"]


def test_empty_basket_cannot_be_bought(call: Call, basket: str):
    assert call("POST", f"/api/baskets/{basket}/checkout", {})[0] == 400


def test_unknown_things_are_404(call: Call, basket: str):
    assert call("GET", "/api/products/car")[0] == 404
    assert call("GET", "/api/baskets/nobody")[0] == 404
    assert call("PUT", f"/api/baskets/{basket}/items/car", {"quantity": 1})[0] == 404
    assert call("GET", "/etc/passwd")[0] == 404


def test_unknown_voucher_is_said(call: Call, basket: str):
    call("PUT", f"/api/baskets/{basket}/items/mug", {"quantity": 1})
    status, answer = call("POST", f"/api/baskets/{basket}/checkout", {"voucher": "FREE"})
    assert (status, answer["error"]) == (422, 'no voucher "FREE"')
