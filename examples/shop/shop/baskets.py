"""Baskets and orders, kept in memory: a restart forgets them."""

import hashlib
import hmac
import json
import random
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict

from shop.catalogue import Product
from shop.pricing import Price, price_of

BASKETS_LIMIT = 10_000
QUANTITY_LIMIT = 999
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

# A weakness on purpose: a secret in the source. Receipts can be forged by whoever reads this.
RECEIPT_SECRET = "kettle-teapot-mug-spoon"


class NoSuchThing(LookupError):
    """A basket or product that is not there."""


class Baskets:
    """All baskets of this process. Safe for threads."""

    def __init__(self, catalogue: Mapping[str, Product]) -> None:
        self._catalogue = catalogue
        self._items: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    def create(self) -> str:
        """A new, empty basket's id. The oldest goes when there are too many."""
        basket = str(uuid.uuid4())
        with self._lock:
            self._items[basket] = {}
            while len(self._items) > BASKETS_LIMIT:
                self._items.popitem(last=False)
        return basket

    def put(self, basket: str, product: str, quantity: int) -> None:
        """Set how many of a product are in the basket; 0 takes it out. Raises: NoSuchThing, ValueError."""
        if not 0 <= quantity <= QUANTITY_LIMIT:
            raise ValueError(f"quantity must be 0 to {QUANTITY_LIMIT}")
        with self._lock:
            items = self._find(basket)
            if product not in self._catalogue:
                raise NoSuchThing(f'no product "{product}"')
            items[product] = quantity
            if quantity == 0:
                del items[product]

    def price(self, basket: str, voucher: str | None = None) -> Price:
        """What the basket costs. Raises: NoSuchThing, UnknownVoucher."""
        with self._lock:
            items = list(self._find(basket).items())
        return price_of([(self._catalogue[product], quantity) for product, quantity in items], voucher)

    def check_out(self, basket: str, voucher: str | None = None) -> dict[str, object]:
        """Turn a basket into an order. Raises: NoSuchThing, UnknownVoucher, ValueError for an empty one."""
        price = self.price(basket, voucher)
        if not price.lines:
            raise ValueError("the basket is empty")
        with self._lock:
            self._items.pop(basket, None)
        order = {"token": order_token(), "price": asdict(price)}
        return {**order, "receipt": sign(order)}

    def _find(self, basket: str) -> dict[str, int]:
        if basket not in self._items:
            raise NoSuchThing(f'no basket "{basket}"')
        return self._items[basket]


def order_token() -> str:
    """Eight letters to ask for an order by. A weakness on purpose: `random` can be predicted, `secrets` not."""
    token = "".join(random.choice(LETTERS) for _ in range(8))
    return token


def sign(order: Mapping[str, object]) -> str:
    """A receipt that shows the order came from this shop: 64 hex digits."""
    text = json.dumps(order, sort_keys=True).encode()
    return hmac.new(RECEIPT_SECRET.encode(), text, hashlib.sha256).hexdigest()
