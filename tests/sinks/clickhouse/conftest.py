"""A ClickHouse for the tests of its sink: the embedded one, in a process of its own.

`server`      a running server, shared by all tests.
`own_server`  one of this test's own, which it may stop, kill and start again; `make_server` makes several.
`settings`    the settings of a database of this test's own on the shared server.
`client`      a client of that database, migrated; where a module has a fixture of that name, it says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from sinks.settings import ClickHouseSettings

from .embedded import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ClickHouse that all tests share."""
    server = Server(tmp_path_factory.mktemp("clickhouse") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of this test's own."""
    made: list[Server] = []

    def make(password: str = "") -> Server:
        server = Server(tmp_path / f"clickhouse{len(made)}", password)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def own_server(make_server: Callable[..., Server]) -> Server:
    """A running ClickHouse of this test's own, which it may stop and start."""
    return make_server()


@pytest.fixture
def settings(server: Server) -> ClickHouseSettings:
    """Settings of a database of this test's own."""
    return server.settings()


@pytest.fixture
def client(settings: ClickHouseSettings) -> Iterator[Client]:
    """A client of a migrated database of this test's own."""
    migrate(settings)
    client = connect(settings)
    yield client
    client.close()
