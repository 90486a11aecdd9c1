"""What a basket costs."""

import pytest

from shop.catalogue import Product, load_catalogue
from shop.pricing import UnknownVoucher, price_of

MUG = Product("mug", "Mug", "", 1290, 350)
SPOON = Product("spoon", "Spoon", "", 450, 30)
ANVIL = Product("anvil", "Anvil", "", 9900, 6000)


def test_empty_basket_costs_nothing():
    assert price_of([]).total_cents == 0


def test_small_basket_pays_shipping():
    price = price_of([(MUG, 2)])
    assert (price.goods_cents, price.shipping_cents, price.total_cents) == (2580, 490, 3070)


def test_shipping_is_free_from_fifty():
    assert price_of([(MUG, 4)]).shipping_cents == 0


def test_heavy_goods_cost_extra_even_then():
    assert price_of([(ANVIL, 1)]).shipping_cents == 600


def test_ten_of_a_kind_are_cheaper():
    assert price_of([(SPOON, 9)]).goods_cents == 4050
    assert price_of([(SPOON, 10)]).goods_cents == 4275


def test_half_a_cent_goes_up():
    odd = Product("odd", "Odd", "", 1, 0)
    assert price_of([(odd, 10)]).goods_cents == 10


def test_voucher_takes_its_share_of_the_goods():
    price = price_of([(MUG, 4)], "WELCOME10")
    assert (price.voucher_cents, price.shipping_cents, price.total_cents) == (516, 490, 5134)


def test_tax_is_part_of_the_total():
    assert price_of([(MUG, 4)]).tax_cents == 824


def test_unknown_voucher_is_refused():
    with pytest.raises(UnknownVoucher):
        price_of([(MUG, 1)], "FREE")


def test_catalogue_has_prices_and_no_double():
    products = load_catalogue()
    assert len(products) >= 6
    assert all(product.price_cents > 0 for product in products.values())
