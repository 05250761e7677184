"""ClickHouse's HTTP interface in front of chDB, the ClickHouse engine in this process.

For a machine that has no ClickHouse: clickhouse-connect, curl and other HTTP clients use it as they use a server, at
`http://127.0.0.1:8123`. Start it with `hitstream local clickhouse`, from a program with `serve`, or alone:

    python -m deploy.local.clickhouse --port 8123 --data-dir DIR

It prints `ready http://127.0.0.1:8123` on stdout once it answers, and stops on SIGINT or SIGTERM; `--password` (or
HITSTREAM_CLICKHOUSE_PASSWORD) asks for the password of the user `default`. One process per data folder; the folder
keeps the data, and what was acknowledged survives a SIGKILL of the process.

`engine` knows chDB and no HTTP, `statement`, `compression` and `native` are pure, `interface` is the HTTP, `server` the
sockets. What it does not do as a server does is in docs/clickhouse.md.
"""

from .server import serve

__all__ = ["serve"]
