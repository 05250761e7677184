"""How ClickHouse is reached: clients, made from its address.

Whoever reads or writes ClickHouse starts here. A failure to connect becomes one sentence that names the address, never
the password.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from streams.events import HitstreamError

from ..settings import ClickHouseSettings
from .dsn import Dsn, parse_dsn

CONNECT_SECONDS: Final = 5
REQUEST_SECONDS: Final = 60  # the longest silence of a request before it counts as failed

_UNKNOWN_DATABASE: Final = 81
_REFUSED_LOGIN: Final = frozenset({192, 193, 194, 516})


def without_frames() -> None:
    """Keep NumPy and pandas out of this process, where they are installed.

    clickhouse-connect reads them at the first insert, to see whether that is a frame: 50 MiB for a process that
    inserts lists.
    """
    vars(options).update(np=None, pd=None, pd_time_test=None)


class ClickHouseUnavailable(HitstreamError):
    """ClickHouse can't be reached at its address, refuses the login, or refuses what the product must do there."""


class DatabaseAbsent(ClickHouseUnavailable):
    """The server answers, and the database is not there yet."""


def connect(settings: ClickHouseSettings, *, create: bool = True) -> Client:
    """A client of the configured database, which is created if it is absent.

    With `create` False nothing is changed, and a database that is absent raises `DatabaseAbsent`. A server that can't
    be reached or refuses the login raises `ClickHouseUnavailable`.
    """
    dsn = parse_dsn(settings.dsn)
    try:
        client = clickhouse_connect.get_client(**_options(dsn))
    except (ClickHouseError, OSError) as error:
        _explain(dsn, error)
    try:
        # Not a bare CREATE: the user of a database that is there needs no right to create one.
        if not bool(client.command(f"EXISTS DATABASE {quote_identifier(dsn.database)}")):
            if not create:
                raise DatabaseAbsent(f"There is no database {dsn.database} at {dsn.address}; run `hitstream migrate`.")
            client.command(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(dsn.database)}")
    except (ClickHouseError, OSError) as error:
        client.close()
        _explain(dsn, error)
    except DatabaseAbsent:
        client.close()
        raise
    client.database = dsn.database
    return client


async def connect_async(settings: ClickHouseSettings) -> AsyncClient:
    """An asynchronous client of the configured database, which must be there; what it sends it sends once."""
    dsn = parse_dsn(settings.dsn)
    try:
        return await clickhouse_connect.get_async_client(**_options(dsn), database=dsn.database, query_retries=0)
    except (ClickHouseError, OSError) as error:
        _explain(dsn, error)


def _options(dsn: Dsn) -> dict[str, Any]:
    return {
        "host": dsn.host,
        "port": dsn.port,
        "username": dsn.user,
        "password": dsn.password,
        "secure": dsn.secure,
        "verify": dsn.verify,
        "connect_timeout": CONNECT_SECONDS,
        "send_receive_timeout": REQUEST_SECONDS,
        # Sessions allow one query at a time and hide what a connection does: nothing here needs one.
        "autogenerate_session_id": False,
        "client_name": "hitstream",
    }


def _explain(dsn: Dsn, error: Exception) -> NoReturn:
    code = error.code if isinstance(error, Error) else None
    if code in _REFUSED_LOGIN:
        sentence = f"ClickHouse at {dsn.address} refuses the login of {dsn.user}; check user and password."
    elif code is None:
        sentence = f"ClickHouse at {dsn.address} can't be reached; check clickhouse.dsn and that the server runs."
    else:
        sentence = f"ClickHouse at {dsn.address} refused: {first_line(error)}"
    raise ClickHouseUnavailable(sentence) from error


def first_line(error: BaseException, limit: int = 300) -> str:
    """What an error says, on one line and not too long for a log or a dead letter."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
