"""The product for a test: made in a temporary folder, ended whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from product import Product
from roles import Roles


@pytest.fixture
def make_product(tmp_path: Path, kafka_engine: str) -> Iterator[Callable[..., Product]]:
    """Makes a product that is not started yet; further settings as keyword `environ`."""
    made: list[Product] = []

    def make(**options: Any) -> Product:
        product = Product(tmp_path, kafka_engine, **options)
        made.append(product)
        return product

    yield make
    for product in made:
        product.end()


@pytest.fixture
def make_roles(tmp_path: Path, broker: Any) -> Iterator[Callable[..., Roles]]:
    """Makes roles around a broker of this test's own; nothing is started yet."""
    made: list[Roles] = []

    def make(**options: Any) -> Roles:
        made.append(Roles(tmp_path, broker.address, **options))
        return made[-1]

    yield make
    for roles in made:
        roles.end_all()
