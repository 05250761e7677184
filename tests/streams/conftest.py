"""What several of the stream tests use stands beside them in modules of its own.

`durable` is for tests in which a broker that has acknowledged a record must still have it after a kill.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def durable(kafka_engine: str) -> None:
    if kafka_engine != "apache":
        pytest.skip("noida-db promises no durability: these guarantees are for Apache Kafka")
