"""Here every test of a broker runs on each engine that can be had."""

import pytest


@pytest.fixture(scope="session", params=["noida", "apache"])
def kafka_engine(request: pytest.FixtureRequest, available_engine: str) -> str:
    if request.param == "apache" and available_engine != "apache":
        pytest.skip("Apache Kafka cannot be had here")
    return str(request.param)
