"""`hitstream up`: the whole product on this machine.

Local servers for whatever address is not configured, then the topics, then the roles, supervised; at the end the
dashboard's address. The roles are told three addresses and know nothing about what stands behind them.

The roles stop first (the producer takes its leave of Kiwoom and flushes; what the others have not read yet, they read
at the next start), then the servers, all within ten seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.markup import escape

from streams.events import KST, ConfigError, HitstreamError

from .checks import check, listeners
from .clock import Clock
from .ports import PortTaken
from .settings import PREFIX, Settings, load, variable
from .supervisor import NO_ANSWER, Child, RoleFailed

LIVE_REST: Final = "https://api.kiwoom.com"
LIVE_WEBSOCKET: Final = "wss://api.kiwoom.com:10000/api/dostk/websocket"
LOCAL_KEY: Final = "local-app-key"
LOCAL_SECRET: Final = "local-secret-key"  # noqa: S105 – the simulated market's, known to all
# The local market's own conditions, for a start without a settings file. Scores are such that a stock is recommended
# when conditions agree on it.
LOCAL_CONDITIONS: Final = tuple(
    {"name": name, "weight": weight, "hold": 3, "cooldown": 60, "algorithm_id": str(number)}
    for number, (name, weight) in enumerate(
        {
            "신고가 돌파": 1.0,
            "대왕개미단타": 1.0,
            "거래량 급증": 0.75,
            "상한가 접근": 0.75,
            "눌림목 반등": 0.5,
            "평균가 돌파": 0.5,
            "등락률 5~15%": 0.5,
            "갭상승 유지": 0.5,
        }.items(),
        start=1,
    )
)
LOCAL_THRESHOLD: Final = 1.5

_HUNG: Final = 30.0  # seconds without a health answer
_STAGES: Final = (("roles", 6.0), ("servers", 3.5))


class AlreadyUp(HitstreamError):
    """Another `up` keeps its data in the same folder."""


async def up(settings: Settings, *, live: bool, config: Path | None, console: Console) -> int:
    """Run everything until SIGINT or SIGTERM; returns the exit code.

    Args:
        settings: what is in force.
        live: use the real account instead of the local market.
        config: the settings file, handed on to the roles.
        console: where progress is shown.

    Raises:
        HitstreamError: something is in the way; one sentence.
    """
    plan = _Plan(settings, live=live)
    check(settings)
    with _folder(settings.local.data_dir) as folder:
        plan.refuse_taken_ports()
        return await _Up(plan, folder, config, console).run()


def beside(config: Path | None, *needs: str) -> Settings:
    """The settings for a command that runs beside `up`: with the addresses and the clock that `up` gives its roles.

    Without an `up` that keeps its data in the same folder they are what is configured.

    Args:
        needs: keys of settings without which the command can do nothing.

    Raises:
        ConfigError: one of them is not set, and there is the data of an `up` that does not run.
    """
    settings = load(config)
    try:
        run: dict[str, Any] = json.loads((settings.local.data_dir / "up.json").read_text())
        os.kill(int(run["pid"]), 0)
        start, speed, anchor = run["clock"]
        clock = Clock(datetime.fromisoformat(start), float(speed), datetime.fromisoformat(anchor))
        live = bool(run["live"])
    except (OSError, ValueError, KeyError, TypeError):
        _refuse_without_up(settings, needs)
        return settings
    plan = _Plan(settings, live=live)
    plan.set_clock(clock)
    return load(config, dict(os.environ) | plan.environment)


def _refuse_without_up(settings: Settings, needs: Sequence[str]) -> None:
    if not (settings.local.data_dir / "up.lock").exists():
        return
    for key in needs:
        section, name = key.split(".")
        if not getattr(getattr(settings, section), name):
            raise ConfigError(
                f"`hitstream up`, whose data is in {settings.local.data_dir}, is not running: start it and wait until "
                f"it says that it runs, or set {key} ({variable(section, name)})."
            )


def given(settings: Settings, config: Path | None) -> tuple[Settings, frozenset[str]]:
    """The settings that `up` gives its roles, and the keys of those that are `up`'s own. They are not checked.

    Raises:
        ConfigError: something is missing that `up` can't do without.
    """
    plan = _Plan(settings, live=False)
    ours = frozenset(name.removeprefix(PREFIX).lower().replace("__", ".") for name in plan.environment)
    return load(config, dict(os.environ) | plan.environment), ours


def _local_conditions(planted: Sequence[str]) -> list[dict[str, Any]]:
    """The local market's conditions: first those that are only planted, then its own, as many as a session may have."""
    from producers.kiwoom.session import MAX_CONDITIONS

    from .local.kiwoom.plants import account, plants

    names = {str(condition["name"]) for condition in LOCAL_CONDITIONS}
    new = [c.name for c in account(plants(planted)) if c.name not in names]
    found: list[dict[str, Any]] = [{"name": name, "weight": 0.5, "hold": 3, "cooldown": 60} for name in new]
    return (found + list(LOCAL_CONDITIONS))[:MAX_CONDITIONS]


class _Plan:
    """Which servers are ours, and the environment that tells the roles where everything is."""

    def __init__(self, settings: Settings, *, live: bool) -> None:
        self.settings = settings
        local = settings.local
        kiwoom = settings.kiwoom
        self.live = live or bool(kiwoom.websocket_url)
        self.kafka = not settings.kafka.bootstrap_servers
        self.clickhouse = not settings.clickhouse.dsn
        self.market = not self.live
        if bool(kiwoom.websocket_url) != bool(kiwoom.rest_url):
            raise ConfigError("Set both kiwoom.rest_url and kiwoom.websocket_url, or neither.")
        if self.live and not (kiwoom.app_key.get_secret_value() and kiwoom.secret_key.get_secret_value()):
            raise ConfigError(
                "The real account needs kiwoom.app_key and kiwoom.secret_key; set HITSTREAM_KIWOOM__APP_KEY_FILE and "
                "HITSTREAM_KIWOOM__SECRET_KEY_FILE to the files that hold them."
            )
        if self.live and not settings.conditions:
            raise ConfigError(
                "No condition is configured; add [[conditions]] with the name of a saved condition search to "
                "hitstream.toml (`hitstream config --example` shows how)."
            )
        self.bootstrap = settings.kafka.bootstrap_servers or f"127.0.0.1:{local.kafka_port}"
        self.environment: dict[str, str] = {}
        if self.kafka:
            self._set("kafka__bootstrap_servers", self.bootstrap)
            # The broker is ours, and so is every worker on it: a worker that crashed needs no time-out to be missed.
            self._set("stream__instance", "up")
        if self.clickhouse:
            self._set("clickhouse__dsn", f"clickhouse://127.0.0.1:{local.clickhouse_port}/hitstream")
        if self.market:
            self._set("kiwoom__rest_url", f"http://127.0.0.1:{local.kiwoom_port}")
            self._set("kiwoom__websocket_url", f"ws://127.0.0.1:{local.kiwoom_port}/api/dostk/websocket")
            self._set("kiwoom__app_key", LOCAL_KEY)
            self._set("kiwoom__secret_key", LOCAL_SECRET)
            self._set("kiwoom__hours", local.market_hours)
            # The simulated market swallows nothing that comes quickly unless told to; it takes five requests a second.
            self._set("kiwoom__login_pause", "0.1")
            self._set("kiwoom__send_spacing", "0.2")
            if not settings.conditions:
                self._set("conditions", json.dumps(_local_conditions(local.market_plants), ensure_ascii=False))
                self._set("recommend__threshold", str(LOCAL_THRESHOLD))
        elif not kiwoom.websocket_url:
            self._set("kiwoom__rest_url", LIVE_REST)
            self._set("kiwoom__websocket_url", LIVE_WEBSOCKET)

    @property
    def dashboard(self) -> str:
        """The address to open in a browser."""
        host = self.settings.live.host
        # Who listens on all addresses is found on this machine by that of the machine itself.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
        return f"http://{host}:{self.settings.live.port}"

    def set_clock(self, clock: Clock) -> None:
        """Give every role the same clock."""
        self._set("clock__start", clock.start.isoformat())
        self._set("clock__anchor", clock.anchor.isoformat())
        self._set("clock__speed", repr(clock.speed))

    def refuse_taken_ports(self) -> None:
        """Raise PortTaken if something already listens where we are going to."""
        for host, port, what, setting in listeners(self.settings, market=self.market):
            if _taken(host, port):
                raise PortTaken(
                    f"Port {port}, which {what} needs, is taken by another program; stop that one, or choose another "
                    f"port with {setting} ({variable(*setting.split('.'))})."
                )

    def _set(self, key: str, value: str) -> None:
        self.environment[f"{PREFIX}{key.upper()}"] = value


class _Up:
    """One run of `up`: the children by stage, and the order of their lives."""

    def __init__(self, plan: _Plan, folder: Path, config: Path | None, console: Console) -> None:
        self.plan = plan
        self.folder = folder
        self.console = console
        self.stages: dict[str, list[Child]] = {name: [] for name, _ in _STAGES}
        self._config = ["--config", str(config.resolve())] if config else []
        self._clock = _resume_clock(plan.settings, folder)
        self._started = time.monotonic()
        plan.set_clock(self._clock)

    async def run(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        failure: HitstreamError | None = None
        try:
            async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
                work = group.create_task(self._work(group, client))
                stopped = group.create_task(stop.wait())
                await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
                self._say("\nStopping …")
                await self._stop()
        except BaseExceptionGroup as errors:
            from .roles import first

            await self._stop()
            failure = first(errors)
        finally:
            (self.folder / "up.json").unlink(missing_ok=True)
            _save_clock(self._clock, self.plan.settings, self.folder)
        if isinstance(failure, RoleFailed) and failure.code == 2:
            raise ConfigError(str(failure))
        if failure:
            raise failure
        self._say("[green]Stopped.[/] The data is kept.")
        return 0

    async def _work(self, group: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        from . import topics

        self._say(f"[bold]Hitstream[/] starts; data and logs are in {self.folder}")
        plan, local = self.plan, self.plan.settings.local
        if plan.market and not plan.settings.conditions:
            kept = len(_local_conditions(local.market_plants))
            self._say(
                f"[dim]No conditions are configured: the simulated market's {kept} are kept open, "
                f"and a stock is recommended at a score of {LOCAL_THRESHOLD}.[/]"
            )
        servers = []
        if plan.kafka:
            servers.append(("kafka", ["--port", str(local.kafka_port), "--engine", local.kafka_engine]))
        if plan.clickhouse:
            servers.append(("clickhouse", ["--port", str(local.clickhouse_port)]))
        if plan.market:
            servers.append(("kiwoom", ["--port", str(local.kiwoom_port)]))
        children = [
            self._child("servers", name, ["local", name, *arguments], spoken=True) for name, arguments in servers
        ]
        await self._bring_up(group, client, children, once_ready=True)
        report = await topics.ensure(plan.bootstrap)
        self._say(f"[green]✓[/] topics {self._since()}")
        for topic, difference in report.drift.items():
            self._say(f"[yellow]topic {topic}: {escape(difference)}; set right[/]")
        roles = [
            self._child("roles", "produce", ["produce"]),
            self._child("roles", "stream", ["stream"]),
            self._child("roles", "clickhouse-sink", ["sink", "clickhouse"]),
            self._child("roles", "live", ["sink", "live"]),
        ]
        await self._bring_up(group, client, roles, once_ready=False)
        self._say(f"\n[bold green]Hitstream is running[/] – dashboard: [bold]{plan.dashboard}[/]  (Ctrl-C stops it)\n")
        await self._watch(client)

    async def _bring_up(
        self, group: asyncio.TaskGroup, client: httpx.AsyncClient, children: Sequence[Child], *, once_ready: bool
    ) -> None:
        async def ready(child: Child) -> None:
            await child.wait_ready(client)
            self._say(f"[green]✓[/] {child.name} {self._since()}")

        for child in children:
            group.create_task(child.run(once_ready=once_ready))
        async with asyncio.TaskGroup() as waiting:
            for child in children:
                waiting.create_task(ready(child))

    async def _watch(self, client: httpx.AsyncClient) -> None:
        """Say it when a role stops or starts being ready; keep the run file and the clock's file up to date."""
        said: dict[str, str | None] = {}
        answered: dict[str, float] = {}
        while True:
            children = [child for stage in self.stages.values() for child in stage]
            for child in children:
                reason = await child.readiness(client)
                if reason != NO_ANSWER or child.name not in answered:
                    answered[child.name] = time.monotonic()
                elif time.monotonic() - answered[child.name] > _HUNG:
                    self._say(f"[yellow]{child.name} has not answered for {_HUNG:.0f} s and is ended[/]")
                    child.kill()
                    del answered[child.name]
                if reason != said.get(child.name):
                    said[child.name] = reason
                    words = "is ready again" if reason is None else f"is not ready: {reason}"
                    self._say(f"[{'green' if reason is None else 'yellow'}]{child.name} {escape(words)}[/]")
            run = {
                "pid": os.getpid(),
                "dashboard": self.plan.dashboard,
                "kafka": self.plan.bootstrap,
                "live": self.plan.live,
                "clock": [self._clock.start.isoformat(), self._clock.speed, self._clock.anchor.isoformat()],
                "children": {c.name: {"pid": c.pid, "health": c.health, "restarts": c.restarts} for c in children},
            }
            _write(self.folder / "up.json", json.dumps(run, indent=2))
            _save_clock(self._clock, self.plan.settings, self.folder)
            await asyncio.sleep(1.0)

    async def _stop(self) -> None:
        for stage, grace in _STAGES:
            async with asyncio.TaskGroup() as group:
                for child in self.stages[stage]:
                    group.create_task(child.stop(grace))

    def _child(self, stage: str, name: str, arguments: Sequence[str], *, spoken: bool = False) -> Child:
        environment = os.environ | self.plan.environment
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "deploy.cli", *arguments, *self._config]
        child = Child(name, command, dict(environment), log, self._say, spoken=spoken)
        self.stages[stage].append(child)
        return child

    def _since(self) -> str:
        return f"[dim]{time.monotonic() - self._started:.1f} s[/]"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _folder(data_dir: Path) -> Iterator[Path]:
    """The data folder, made if need be and held by this process alone."""
    folder = data_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "up.lock").open("a+")
    except OSError as error:
        raise ConfigError(f"local.data_dir {folder} cannot be used: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyUp(
                f"Hitstream is already running with its data in {folder} (process {lock.read().strip() or 'unknown'}); "
                "stop that one, or choose another folder with local.data_dir."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _resume_clock(settings: Settings, folder: Path) -> Clock:
    """The clock of this run: real time, or a simulated one that goes on where the run before stopped."""
    wanted = settings.clock
    if wanted.start is None and wanted.speed == 1.0:
        return Clock()
    start = wanted.start or datetime.now(UTC)
    with contextlib.suppress(OSError, ValueError, KeyError):
        saved: dict[str, Any] = json.loads((folder / "clock.json").read_text())
        if saved["configured"] == str(wanted.start):
            start = datetime.fromisoformat(saved["at"])
    return Clock(start, wanted.speed)


def _save_clock(clock: Clock, settings: Settings, folder: Path) -> None:
    if settings.clock.start is not None or settings.clock.speed != 1.0:
        saved = {"configured": str(settings.clock.start), "at": clock.now().astimezone(KST).isoformat()}
        _write(folder / "clock.json", json.dumps(saved))


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
