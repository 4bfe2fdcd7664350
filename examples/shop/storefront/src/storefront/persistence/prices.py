"""Prices for reading: no transaction, no locks."""

from collections.abc import Iterable

import sqlalchemy as sa
from chassis import money
from chassis.database import Executor, Statement
from chassis.money import Money
from sqlalchemy.dialects.postgresql import ARRAY

from storefront.persistence.products import products

_SKUS = sa.bindparam("skus", type_=ARRAY(sa.String))
_BY_SKU = Statement(sa.select(products).where(products.c.sku == sa.any_(_SKUS)))


async def prices_of(reader: Executor, skus: Iterable[str]) -> dict[str, Money]:
    """Return the prices of the products that exist, by SKU."""
    rows = await _BY_SKU.all(reader, skus=sorted(set(skus)))
    return {row["sku"]: money.from_columns(row, "price") for row in rows}
