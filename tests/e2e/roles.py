"""Single roles, each a process as a process manager starts it, around a broker that the test owns.

Where `product` is everything under its supervisor, this is what a test needs that kills one role and leaves the others
alone: nothing is restarted by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from product import CONDITIONS, ROOT, free_ports, until

from streams import events

KEY, SECRET = "local-app-key", "local-secret-key"
START = "2026-11-23T09:30:00+09:00"


class Roles:
    """A local market, and roles of the product beside it, all of one clock.

    Args:
        folder: data, logs and the state of the app keys.
        kafka: bootstrap address.
        speed: market seconds per real second.
        activity: how lively the market is.
    """

    def __init__(self, folder: Path, kafka: str, *, speed: float, activity: float = 1.0) -> None:
        self.folder = folder
        self.kafka = kafka
        self.speed = speed
        (port,) = free_ports(1)
        self.market = f"http://127.0.0.1:{port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
        self.environ = clean | {
            "PYTHONPATH": str(ROOT),
            "HITSTREAM_LOCAL__DATA_DIR": str(folder / "data"),
            "HITSTREAM_LOCAL__KIWOOM_PORT": str(port),
            "HITSTREAM_LOCAL__MARKET_SEED": "11",
            "HITSTREAM_LOCAL__MARKET_ACTIVITY": str(activity),
            "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "HITSTREAM_KIWOOM__REST_URL": self.market,
            "HITSTREAM_KIWOOM__WEBSOCKET_URL": f"ws://127.0.0.1:{port}/api/dostk/websocket",
            "HITSTREAM_KIWOOM__APP_KEY": KEY,
            "HITSTREAM_KIWOOM__SECRET_KEY": SECRET,
            "HITSTREAM_KIWOOM__STATE_DIR": str(folder / "state"),
            "HITSTREAM_KIWOOM__HOURS": "always",
            "HITSTREAM_KIWOOM__LOGIN_PAUSE": "0.1",
            "HITSTREAM_KIWOOM__SEND_SPACING": "0.2",
            "HITSTREAM_CONDITIONS": json.dumps([{"name": name} for name in CONDITIONS], ensure_ascii=False),
            "HITSTREAM_CLOCK__START": START,
            "HITSTREAM_CLOCK__SPEED": repr(speed),
            "HITSTREAM_CLOCK__ANCHOR": datetime.now(UTC).isoformat(),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, environ: Mapping[str, str] | None = None) -> None:
        """Start `hitstream COMMAND` under a name of ours; what it says goes to `NAME.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", *command],
                cwd=self.folder,
                env=self.environ | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def run(self, *command: str, environ: Mapping[str, str] | None = None) -> str:
        """Run `hitstream COMMAND` to its end; returns what it printed, and fails with what it complained of."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "deploy.cli", *command],
            cwd=self.folder,
            env=self.environ | dict(environ or {}),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """End a role and wait until it is gone; returns its exit code."""
        process = self._running.pop(name)
        assert process.poll() is None, f"{name} has ended by itself:\n{self.said(name)}"
        process.send_signal(number)
        return process.wait(30)

    def said(self, name: str) -> str:
        """What a role has logged."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end_all(self) -> None:
        """Whatever happened: leave nothing behind."""
        for process in self._running.values():
            process.kill()
            process.wait()

    # --- the market ---------------------------------------------------------------------------------------------------

    async def start_market(self, *arguments: str) -> None:
        """Start the local market and wait until it answers."""
        self.start("market", "local", "kiwoom", *arguments)

        async def answers() -> bool:
            assert self._running["market"].poll() is None, self.said("market")
            try:
                await self.state()
            except httpx.TransportError:
                return False
            return True

        await until(answers, "the market")

    async def control(self, method: str, path: str, json: Any = None, **query: Any) -> Any:
        """Ask the market's control surface."""
        async with httpx.AsyncClient(base_url=self.market, timeout=30) as client:
            answer = await client.request(method, f"/local/{path}", params=query, json=json)
            answer.raise_for_status()
            return answer.json()

    async def state(self) -> Any:
        """How market and sessions stand."""
        return await self.control("GET", "state")

    async def market_says(self, so_many_more: int) -> None:
        """Wait until there were so many more hits and exits."""
        enough = int((await self.state())["events"]) + so_many_more

        async def said() -> bool:
            return int((await self.state())["events"]) >= enough

        await until(said, f"{so_many_more} more hits and exits on the market", 120)

    async def all_live(self, *keys: str) -> None:
        """Wait until exactly these app keys are logged in, each with every condition registered and answered."""

        async def live() -> bool:
            for name, process in self._running.items():
                assert process.poll() is None, f"{name} has ended by itself:\n{self.said(name)}"
            sessions = {s["app_key"]: s for s in (await self.state())["sessions"]}
            return sessions.keys() == set(keys) and all(
                len(s["conditions"]) == len(CONDITIONS) for s in sessions.values()
            )

        await until(live, f"{', '.join(keys)} live")


def expected_ids(truth: Mapping[str, Any], account: str = "main") -> dict[str, list[str]]:
    """The identities that the market's hits and exits must have, by condition, in their order."""
    found: dict[str, list[str]] = {name: [] for name in CONDITIONS}
    said: dict[tuple[str, str, str, str], int] = {}
    for event in truth["events"]:
        key = event["condition"], event["code"], event["action"], event["at"][:19]
        ordinal = said[key] = said.get(key, -1) + 1
        at = datetime.fromisoformat(event["at"]).replace(microsecond=0)
        found[event["condition"]].append(
            events.event_id(account, event["condition"], event["code"], event["action"], at, ordinal)
        )
    return found
