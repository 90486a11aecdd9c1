"""What the shop sells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Product:
    """One thing to buy. Prices are in cents, tax included."""

    id: str
    name: str
    description: str
    price_cents: int
    grams: int


def load_catalogue(file: Path = FILE) -> Mapping[str, Product]:
    """Every product by its id, in the file's order."""
    products = [Product(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    return {product.id: product for product in products}
