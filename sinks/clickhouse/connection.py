"""Where ClickHouse is and how it is reached: the DSN, and clients made from it.

Whoever reads or writes ClickHouse starts here. A failure to connect becomes one sentence that names the address, never
the password.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

import clickhouse_connect
import msgspec
from clickhouse_connect.driver import options
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from streams.events import ConfigError, HitstreamError

from ..settings import ClickHouseSettings

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


class Dsn(msgspec.Struct, frozen=True, kw_only=True):
    """`clickhouse://user:password@host:port/database`, taken apart. `secure` means TLS (`clickhouses://`)."""

    host: str
    port: int
    user: str
    password: str
    database: str
    secure: bool
    verify: bool = True

    @property
    def address(self) -> str:
        """What may be shown: everything but user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'clickhouses' if self.secure else 'clickhouse'}://{host}:{self.port}/{self.database}"


def parse_dsn(text: str) -> Dsn:
    """A DSN as its parts; port 8123 (TLS: 8443), user `default` and database `hitstream` where it leaves them out.

    The only option is `?verify=false`, for a server whose certificate can't be verified. Raises ConfigError.
    """
    form = "clickhouse://user:password@host:8123/database"
    if not text:
        raise ConfigError(f"clickhouse.dsn is not set; give the address of ClickHouse as {form}.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its text may hold a part of the password
        raise ConfigError(
            f"clickhouse.dsn can't be read; it has the form {form}, with %2F for / and the like in the password."
        ) from None
    if parts.scheme not in {"clickhouse", "clickhouses"} or not parts.hostname:
        raise ConfigError(f"clickhouse.dsn can't be read; it has the form {form}, or clickhouses://… for TLS.")
    database = unquote(parts.path.strip("/")) or "hitstream"
    if "/" in database:
        raise ConfigError(f"clickhouse.dsn names the database {database!r}; one name follows the port: {form}.")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    verify = options.pop("verify", "true")
    if options or verify not in {"true", "false"}:
        raise ConfigError("clickhouse.dsn takes no option but ?verify=true or ?verify=false.")
    secure = parts.scheme == "clickhouses"
    return Dsn(
        host=parts.hostname,
        port=port or (8443 if secure else 8123),
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=database,
        secure=secure,
        verify=verify == "true",
    )


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
