"""The local ClickHouse alone, in the foreground: `python -m deploy.local.clickhouse --port 8123 --data-dir DIR`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from streams.events import ConfigError, HitstreamError

from .server import serve


def main() -> int:
    """Run until SIGINT or SIGTERM. Returns 0, 1 for a failure, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.clickhouse", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--password", default=os.environ.get("HITSTREAM_CLICKHOUSE_PASSWORD", ""))
    chosen = parser.parse_args()
    try:
        asyncio.run(_run(chosen))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except HitstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(chosen: argparse.Namespace) -> None:
    def ready(why_not: str | None) -> None:
        if why_not is None:
            sys.stdout.write(f"ready http://{chosen.host}:{chosen.port}\n")
            sys.stdout.flush()

    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(
        serve(host=chosen.host, port=chosen.port, data_dir=chosen.data_dir, password=chosen.password, ready=ready)
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main())
