"""What a basket costs: pure arithmetic in whole cents, rounded half up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from shop.catalogue import Product

TAX_RATE = Decimal("0.19")
FREE_SHIPPING_FROM_CENTS = 5000
SHIPPING_CENTS = 490
HEAVY_FROM_GRAMS = 5000
HEAVY_CENTS = 600
BULK_FROM = 10
BULK_RATE = Decimal("0.05")
VOUCHERS: Mapping[str, Decimal] = {"WELCOME10": Decimal("0.10"), "TEATIME": Decimal("0.05")}


class UnknownVoucher(ValueError):
    """A code that no voucher has."""


@dataclass(frozen=True)
class Line:
    """One product of a basket. `total_cents` is after the discount for ten or more."""

    product: str
    name: str
    quantity: int
    total_cents: int


@dataclass(frozen=True)
class Price:
    """A basket's price in cents. `tax_cents` is the part of `total_cents` that is tax."""

    lines: Sequence[Line]
    goods_cents: int
    voucher_cents: int
    shipping_cents: int
    total_cents: int
    tax_cents: int


def price_of(items: Sequence[tuple[Product, int]], voucher: str | None = None) -> Price:
    """
    The price of products and their quantities.

    Raises: UnknownVoucher.
    """
    lines = [_line(product, quantity) for product, quantity in items]
    goods = sum(line.total_cents for line in lines)
    off = round_cents(goods * _voucher_rate(voucher))
    shipping = _shipping(goods - off, sum(product.grams * quantity for product, quantity in items))
    total = goods - off + shipping
    tax = round_cents(total * TAX_RATE / (1 + TAX_RATE))
    return Price(lines, goods, off, shipping, total, tax)


def round_cents(amount: Decimal) -> int:
    """Half a cent goes up."""
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _line(product: Product, quantity: int) -> Line:
    full = Decimal(product.price_cents * quantity)
    discount = BULK_RATE if quantity >= BULK_FROM else Decimal(0)
    return Line(product.id, product.name, quantity, round_cents(full * (1 - discount)))


def _voucher_rate(voucher: str | None) -> Decimal:
    if not voucher:
        return Decimal(0)
    if voucher not in VOUCHERS:
        raise UnknownVoucher(voucher)
    return VOUCHERS[voucher]


def _shipping(goods_cents: int, grams: int) -> int:
    if goods_cents == 0:
        return 0
    heavy = HEAVY_CENTS if grams >= HEAVY_FROM_GRAMS else 0
    return heavy if goods_cents >= FREE_SHIPPING_FROM_CENTS else SHIPPING_CENTS + heavy
