"""Here every test of a broker runs on each engine that can be had."""

from collections.abc import Iterator

import pytest

from ...conftest import shared


@pytest.fixture(scope="session", params=["noida", "apache"])
def kafka_engine(request: pytest.FixtureRequest, available_engine: str) -> str:
    if request.param == "apache" and available_engine != "apache":
        pytest.skip("Apache Kafka cannot be had here")
    return str(request.param)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_engine: str) -> Iterator[str]:
    """As the fixture of this name outside, and not it: pytest would hand out the broker that another folder has begun
    with, whatever its engine, to all engines here."""
    with shared(tmp_path_factory, kafka_engine) as address:
        yield address
