"""`make chaos`: 200,000 records, the writer killed 50 times, ClickHouse and the broker five times each.

`HITSTREAM_TEST_CHAOS` is the share of it to run (default 1), `HITSTREAM_TEST_SEED` another seed.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from .chaos import Plan, chaos

SHARE = float(os.environ.get("HITSTREAM_TEST_CHAOS", "1"))
PLAN = Plan(
    seed=int(os.environ.get("HITSTREAM_TEST_SEED", "6")),
    records=int(200_000 * SHARE),
    writer=round(50 * SHARE),
    clickhouse=round(5 * SHARE),
    broker=round(5 * SHARE),
    batch_rows=1000,
)


async def chaos_of_the_clickhouse_sink(broker: Any, own_server: Any) -> None:
    print()
    figures = await chaos(PLAN, broker, own_server, lambda line: print(line, flush=True))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for what, figure in msgspec.structs.asdict(figures).items():
        print(f"{what:20} {figure}")
