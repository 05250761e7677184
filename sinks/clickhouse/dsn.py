"""Where ClickHouse is: the DSN, taken apart. Without a client, which whoever only looks at settings does not need."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from streams.events import ConfigError


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
