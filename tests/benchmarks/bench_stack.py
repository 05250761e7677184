"""The whole embedded stack: how quickly it starts, what it takes at rest and while the market moves.

`make bench` prints the table. `HITSTREAM_TEST_ENGINE=apache|noida` chooses the broker, `HITSTREAM_TEST_REST=60` the
seconds at rest, `HITSTREAM_TEST_MARKET=3600` those of market at normal speed. CPU is CPU time used by all processes
over wall time, in percent of one core; memory is proportional set size where the system tells it (what all processes
share is counted once), else resident size.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))  # the first of two that have `roles`

import roles
from product import Product

REST = float(os.environ.get("HITSTREAM_TEST_REST", "60"))
MARKET = float(os.environ.get("HITSTREAM_TEST_MARKET", "120"))
ENGINE = os.environ.get("HITSTREAM_TEST_ENGINE", "apache")
SETTLE = 20.0


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path, ENGINE)
    yield product
    product.end()


class Use:
    """What a process tree uses from now on."""

    def __init__(self, product: Product) -> None:
        self.started = time.monotonic()
        self.before = {process: roles.cpu(process) for process in product.tree()}

    def table(self) -> list[tuple[str, float, float]]:
        """Per process: name, CPU in percent of a core, MiB."""
        wall = time.monotonic() - self.started
        return [
            (_name(process), 100 * (roles.cpu(process) - before) / wall, roles.memory(process))
            for process, before in self.before.items()
            if process.is_running()
        ]


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if "deploy.cli" in words:
        rest = words[words.index("deploy.cli") + 1 :]
        return " ".join(word for word in rest[:2] if not word.startswith("-"))
    return Path(words[0]).name if words else process.name()


def show(title: str, rows: list[tuple[str, float, float]]) -> None:
    """Print a table and its sum."""
    print(f"\n{title}\n  {'process':24} {'CPU % of a core':>16} {'MiB':>8}")
    for name, cpu, memory in sorted(rows, key=lambda row: -row[2]):
        print(f"  {name:24} {cpu:16.2f} {memory:8.0f}")
    print(f"  {'all':24} {sum(row[1] for row in rows):16.2f} {sum(row[2] for row in rows):8.0f}")


async def first_recommendation(product: Product) -> float:
    """Start the product; seconds until the API has its first recommendation."""
    started = time.monotonic()
    product.start()
    async with httpx.AsyncClient() as client:
        while time.monotonic() - started < 600:
            try:
                if (await client.get(f"{product.dashboard}/api/recommendations")).json():
                    return time.monotonic() - started
            except (httpx.HTTPError, ValueError):
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(product.said())


async def bench_start(product: Product) -> None:
    """Start to first recommendation: an empty data folder, then three starts with data."""
    first = await first_recommendation(product)
    await product.wait_running()
    print(f"\nstart to first recommendation, {ENGINE}: new data folder {first:.1f} s")
    again = []
    for _ in range(3):
        assert product.stop() == 0
        again.append(await first_recommendation(product))
        await product.wait_running()
    print(f"  with data: {', '.join(f'{seconds:.1f}' for seconds in sorted(again))} s")


async def bench_rest(product: Product) -> None:
    """No market activity: what it takes to wait."""
    product.environ["HITSTREAM_LOCAL__MARKET_ACTIVITY"] = "0"
    product.start()
    await product.wait_running()
    await asyncio.sleep(SETTLE)
    use = Use(product)
    await asyncio.sleep(REST)
    show(f"at rest, {ENGINE}, over {REST:.0f} s", use.table())


async def bench_market(product: Product) -> None:
    """The simulated market at normal speed."""
    product.start()
    await product.wait_running()
    await asyncio.sleep(SETTLE)
    use = Use(product)
    await asyncio.sleep(SETTLE)
    show(f"market at normal speed, {ENGINE}, at first", use.table())
    use = Use(product)
    await asyncio.sleep(MARKET)
    show(f"market at normal speed, {ENGINE}, over {MARKET:.0f} s", use.table())
    assert "ended with" not in product.said(), product.said()
