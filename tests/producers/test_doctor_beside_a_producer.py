"""The doctor beside a running producer: as sure as alone where it may have a fresh connection, and nothing is harmed.

The producer is the real client with its conditions and its control port, over the local market; only Kafka is not here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from producers import control
from producers.conditions import Conditions
from producers.control import Switchboard, View, attach, serving
from producers.errands import Errands
from producers.kiwoom.client import Backoff, Client
from producers.kiwoom.doctor import Case, Cause
from producers.kiwoom.errors import NotLent
from producers.kiwoom.examination import Examination, Examiner, borrowing
from producers.kiwoom.session import Action, Moment, Timing, Wanted
from producers.kiwoom.token import short_name
from producers.settings import ConditionSource, KiwoomSettings
from streams.events import Gap, Record, Status

from .local_market import BUSY, KEY, NAME, SECRET, SEQ, Market, at_once, market, now, on, unhurried

# Real seconds: those of the rows are longer on a busy machine.
pytestmark = pytest.mark.timeout(900)

PATIENCE = 0.6
QUICK = Timing(
    login_pause=0.05, send_spacing=0.02, clear_pause=0.02, reply_deadline=PATIENCE, list_deadline=1.0,
    login_deadline=1.2, slow_down=0.05, ask_again=0.5, goodbye_reply=0.1,
)  # fmt: skip


class Producer:
    """A producer without Kafka: what it would have published is kept."""

    def __init__(self, market: Market, folder: Path, names: Sequence[str], *, key: str, stex_tp: Any = "K") -> None:
        self.folder, self.key = folder, short_name(key)
        self.records: list[Record] = []
        self.conditions = Conditions("main", self.key, names, now())
        self.tokens = market.tokens(folder, key)
        self.client = Client(
            url=market.url,
            producer=self.key,
            tokens=self.tokens,
            wanted=[Wanted(name) for name in names],
            stex_tp=stex_tp,
            timing=QUICK,
            backoff=Backoff(first=0.05, most=0.2, closed=0.2),
            now=now,
            handler=self,
            on_frame=lambda frame: self.board.on_frame(frame),  # noqa: PLW0108 – the board comes later
        )
        self.board = Switchboard(ask=self.client.ask, view=self.view)
        self.board.loan = self.client

    def view(self) -> View:
        return View(
            pid=1,
            account="main",
            producer=self.key,
            session=self.conditions.session,
            asking=self.client.asking,
            states=dict(self.conditions.states),
            members=self.conditions.members,
        )

    def connecting(self, connection: str) -> None:
        self.records += self.conditions.connecting(connection, now())

    def handle(self, actions: Sequence[Action], now: Moment, *, frame: bool) -> None:
        for action in actions:
            self.records += self.conditions.apply(action, now.at)
        self.conditions.told()

    def disconnected(self, cause: str, state: Any) -> None:
        self.records += self.conditions.disconnected(cause, now(), state)
        self.board.lost(cause)

    async def room(self) -> None:
        pass

    async def pace(self) -> None:
        pass

    @property
    def live(self) -> list[str]:
        return [name for name, (state, _) in self.conditions.states.items() if state == "live"]

    def in_trouble(self, *, partly: bool) -> bool:
        """Whether it has found that something is wrong: with one condition beside live ones (`partly`), or with all."""
        states = self.conditions.states.values()
        if partly:
            return bool(self.live) and any("is this condition too wide" in cause for _, cause in states)
        bad = {state for state, cause in states if cause != "starting"} & {"unanswered", "disconnected"}
        return bool(self.connections() and bad)

    @property
    def gaps(self) -> list[Gap]:
        return [record for record in self.records if isinstance(record, Gap)]

    def connections(self) -> set[str]:
        return {record.session for record in self.records if isinstance(record, Status) and record.session}


@contextlib.asynccontextmanager
async def running(
    market: Market, folder: Path, names: Sequence[str] = (NAME, BUSY), *, key: str = KEY, **more: Any
) -> AsyncIterator[Producer]:
    producer = Producer(market, folder, names, key=key, **more)
    async with serving(producer.board, folder, producer.key):
        task = asyncio.create_task(producer.client.run())
        try:
            yield producer
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def examine(
    market: Market, producer: Producer, *, fresh: bool = False, second: bool = False, **more: Any
) -> Examination:
    """As `hitstream doctor` does it: over the control port."""
    folder, key = producer.folder, producer.key
    async with attach(folder, key) as line:
        case = Case(
            wanted=tuple((name, "") for name in producer.conditions.states),
            fresh="asked" if fresh else "",
            second_key=second,
            patience=PATIENCE,
            observe=1.5,
            pause=0.1,
            **more,
        )
        case = borrowing(case, line.history, line.view.states, 1.0)
        state, cause = line.view.session
        case = Case(**{**vars(case), "connected": line.view.asking, "session": f"{state}: {cause}"})
        how: Literal["free", "anyway"] = "anyway" if fresh else "free"
        examiner = Examiner(
            case,
            url=market.url,
            tokens=producer.tokens,
            line=line,
            fresh=lambda: attach(folder, key, fresh=how),
            second=market.tokens(folder, f"{KEY}-2") if second else None,
            secrets=[KEY, SECRET],
            spacing=0.02,
        )
        async with asyncio.timeout(40):
            return await examiner.run()


Faults = tuple[tuple[str, dict[str, Any]], ...]


@dataclass
class Row:
    """What is wrong, and the only right verdict. `first` is so before the producer connects, `then` once it is live."""

    cause: Cause
    sure: str
    first: Faults = ()
    then: Faults = ()
    surer: str = ""
    also: tuple[Cause, ...] = ()
    names: tuple[str, ...] = (NAME, BUSY)
    producer: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    partly: bool = False
    market: dict[str, float] = field(default_factory=dict)


DOWN = (on("silent-cnsrreq"),)
TABLE = {
    "healthy, and nothing is interrupted even if it may be": Row("healthy", "proved", asked={"fresh": True}),
    "7 nothing answers before the open": Row(
        "closed-hours", "possible", DOWN, surer="in-hours", asked={"hours": "before"},
        also=("module-down", "rights-withdrawn"),
    ),
    "7 searches answer before the open, registrations do not": Row(
        "closed-hours", "likely", (on("silent-realtime"),), surer="in-hours", asked={"hours": "before"}
    ),
    "8 the one condition that is configured": Row(
        "one-condition", "proved", (on("silent-cnsrreq", seqs=[SEQ]),), names=(NAME,)
    ),
    "8 one of two": Row("one-condition", "proved", (on("silent-cnsrreq", seqs=[SEQ]),), partly=True),
    "9 searches are silent beside live conditions": Row(
        "search-while-live", "likely", then=(on("no-search-while-live"),), surer="fresh", also=("search-down",)
    ),
    "9 and on a fresh connection they are not": Row(
        "search-while-live", "proved", then=(on("no-search-while-live"),), asked={"fresh": True}, interrupted=True
    ),
    "searches are silent everywhere": Row(
        "search-down", "likely", then=(on("silent-search"),), asked={"fresh": True}, interrupted=True
    ),
    "10 no stex_tp": Row("no-stex-tp", "proved", (on("require-stex-tp"),), producer={"stex_tp": ""},
                         asked={"stex_tp": ""}),
    "11 or 12": Row("module-down", "likely", DOWN, surer="second-key", also=("rights-withdrawn",)),
    "11 a second key is answered": Row("rights-withdrawn", "proved", (on("key-without-right"),),
                                       asked={"second": True}),
    "12 a second key is not answered either": Row("module-down", "proved", DOWN, asked={"second": True}),
    "12 since the conditions are live": Row(
        "module-down", "possible", then=DOWN, surer="fresh", also=("rights-withdrawn", "connection-deaf")
    ),
    "12 since the conditions are live, on a fresh connection": Row(
        "module-down", "likely", then=DOWN, surer="second-key", also=("rights-withdrawn",), asked={"fresh": True},
        interrupted=True,
    ),
    "12 registrations only": Row("realtime-down", "likely", (on("silent-realtime"),)),
    "the registration is gone": Row(
        "registration-lost", "proved", then=(on("forget-registration"),), market={"activity": 0.0}
    ),
    "displaced": Row("displaced", "proved", then=(on("displaced"),)),
    "LOGIN is silent": Row("login-silent", "likely", (on("silent-login"),)),
    "the list is silent": Row("list-silent", "likely", (on("silent-cnsrlst"),)),
    "no WebSocket": Row("unreachable", "proved", (on("refuse-connection"),)),
    "the token is refused at LOGIN": Row("token-refused", "proved", (on("refuse-login"),)),
    "a reply that cannot be read": Row("reply-unreadable", "proved", (on("incomplete-reply"),)),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def sooner() -> Iterator[None]:
    """A session that is not there is given up sooner than a person would have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "_SESSION_WITHIN", 2.0)
        yield


@pytest.fixture(scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], None]]:
    with at_once(request, tmp_path_factory, judge) as waiting:
        yield waiting


@pytest.mark.parametrize("name", TABLE)
def test_the_right_cause_is_named_beside_a_running_producer(name: str, outcome: Callable[[str], None]) -> None:
    outcome(name)


async def judge(name: str, tmp_path: Path) -> None:
    row = TABLE[name]
    async with market(**row.market) as local:
        for fault, options in row.first:
            await local.fault(fault, **options)
        async with running(local, tmp_path, row.names, **row.producer) as producer:
            if not row.first:
                await until(lambda: set(producer.live) == set(row.names))
            else:
                await until(lambda: producer.in_trouble(partly=row.partly))
            for fault, options in row.then:
                await local.fault(fault, **options)
            before = producer.connections()
            done = await examine(local, producer, **row.asked)
            verdict = done.verdict
            assert (verdict.cause, verdict.sure) == (row.cause, row.sure), done
            assert (verdict.surer, set(verdict.also)) == (row.surer, set(row.also)), done
            if row.interrupted:
                # It came back by itself, and what was missed is told.
                await local.http.request("DELETE", "/local/faults")
                for fault, _ in row.then:
                    await local.fault(fault, on=False)
                await until(lambda: set(producer.live) == set(row.names) and len(producer.gaps) == len(row.names))
                assert {gap.cause for gap in producer.gaps} == {"a diagnosis asked for a fresh connection"}
            elif not row.first and row.cause != "displaced":
                assert producer.connections() == before
                # What the doctor finds lost is registered anew, and that is the only gap there may be.
                assert {gap.cause for gap in producer.gaps} <= {"its registration was lost"}


@unhurried
async def test_a_fresh_connection_is_lent_to_one_at_a_time_and_only_if_nothing_is_live(tmp_path: Path) -> None:
    async with market() as local, running(local, tmp_path) as producer:
        await until(lambda: len(producer.live) == 2)
        with pytest.raises(NotLent, match="would be interrupted"):
            async with attach(tmp_path, producer.key, fresh="free"):
                pass
        async with attach(tmp_path, producer.key, fresh="anyway") as line:
            assert producer.live == []
            assert any('"LOGIN","token":"***"' in frame.text for frame in line.history)
            with pytest.raises(NotLent, match="another diagnosis"):
                async with attach(tmp_path, producer.key, fresh="anyway"):
                    pass
        await until(lambda: len(producer.live) == 2)


@pytest.mark.parametrize(
    ("live", "sure"), [(True, "possible"), (False, "likely")], ids=["while conditions are live", "when nothing is"]
)
@unhurried
async def test_a_scheduled_diagnosis_takes_a_fresh_connection_only_where_nothing_is_live(
    live: bool, sure: str, tmp_path: Path
) -> None:
    async with market() as local:
        if not live:
            await local.fault("silent-cnsrreq")
        async with running(local, tmp_path) as producer:
            if live:
                await until(lambda: len(producer.live) == 2)
                await local.fault("silent-cnsrreq")
            else:
                await until(lambda: "unanswered" in {state for state, _ in producer.conditions.states.values()})
            said: list[Record] = []
            at = datetime(2026, 3, 9, 10, 0, tzinfo=UTC)
            errands = Errands(
                kiwoom=KiwoomSettings(doctor_at=(at.astimezone().time(),)),
                conditions=[ConditionSource(name=name) for name in (NAME, BUSY)],
                producer="p",
                board=producer.board,
                rest=None,  # type: ignore[arg-type]
                offer=said.append,
                now=lambda: at,
                trading=lambda _: True,
                hours=lambda _: "open",
                folder=tmp_path,
                patience=PATIENCE,
                observe=0.5,
            )
            done = await errands._examine()
            assert (done.verdict.cause, done.verdict.sure) == ("module-down", sure), done
            assert len(producer.live) == (2 if live else 0)
