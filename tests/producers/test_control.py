"""The control port: other processes see and ask the running session, and can harm it in no way."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.control import Address, NotAllowed, NotRunning, Switchboard, View, attach, look, serving
from producers.kiwoom import frames
from producers.kiwoom.errors import Unreachable
from producers.kiwoom.line import ask
from streams.events import Frame

LIST = '{"trnm":"CNSRLST"}'
LISTED = '{"trnm":"CNSRLST","return_code":0,"data":[["4","돌파"],["7","눌림목"]]}'


class Session:
    """What the board is wired to: it answers each request that it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.needed: list[float] = []
        self.asking = True
        self.replies: dict[str, str] = {}
        self.number = 0
        self.board = Switchboard(ask=self.ask, need=self.needed.append, view=self.view)
        self.goes_by("out", LIST)
        self.goes_by("in", LISTED)

    def view(self) -> View:
        return View(
            pid=1,
            account="main",
            producer="p",
            session=("live", "") if self.asking else ("resting", "after the close"),
            asking=self.asking,
            states={"돌파": ("live", ""), "눌림목": ("unanswered", "silent")},
            members={"돌파": ("005930",)},
        )

    def ask(self, text: str) -> None:
        if not self.asking:
            raise Unreachable("there is no session with Kiwoom at the moment")
        self.asked.append(text)
        self.goes_by("out", text)
        if text in self.replies:
            self.goes_by("in", self.replies[text])

    def goes_by(self, direction: Any, text: str, connection: str = "c1") -> None:
        self.number += 1
        self.board.on_frame(
            Frame(connection=connection, number=self.number, direction=direction, at=datetime.now(UTC), text=text)
        )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_session_can_be_seen_and_asked(tmp_path: Path) -> None:
    session = Session()
    search = frames.SearchRequest(seq="4").text()
    session.replies[search] = '{"trnm":"CNSRREQ","seq":"4","cont_yn":"N","return_code":0,"data":[{"9001":"A005930"}]}'
    async with serving(session.board, tmp_path, "k"):
        assert (await look(tmp_path, "k")).states["눌림목"] == ("unanswered", "silent")
        async with attach(tmp_path, "k") as line:
            assert [frame.text for frame in line.history] == [LIST, LISTED]
            assert line.members == {"돌파": ("005930",)}
            reply = await ask(line, search, 5.0)
            assert isinstance(reply, frames.ConditionReply)
            assert [row.code for row in reply.rows] == ["005930"]
            session.goes_by("in", '{"trnm":"PING"}')
            frame = await line.hear(5.0)
            assert frame is not None
            assert frame.text == '{"trnm":"PING"}'
    assert session.asked == [search]


@pytest.mark.parametrize(
    "text",
    [
        '{"trnm":"LOGIN","token":"x"}',
        '{"trnm":"REG","grp_no":"1"}',
        '{"trnm":"PING"}',
        '{"trnm":"CNSRCLR","seq":"4"}',
        '{"trnm":"CNSRCLR","seq":"4  "}',
        "no frame",
        "",
    ],
)
async def test_nothing_that_harms_the_session_is_sent(tmp_path: Path, text: str) -> None:
    session = Session()
    async with serving(session.board, tmp_path, "k"), attach(tmp_path, "k") as line:
        with pytest.raises(NotAllowed):
            await line.send(text)
        await line.send('{"trnm":"CNSRCLR","seq":"7"}')
    assert session.asked == ['{"trnm":"CNSRCLR","seq":"7"}']


async def test_only_its_owner_can_open_it(tmp_path: Path) -> None:
    async with serving(Session().board, tmp_path, "k"):
        address = msgspec.json.decode((tmp_path / "control-k.json").read_bytes(), type=Address)
        mode = Path(address.socket).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_with_a_long_name_works_too(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    async with serving(Session().board, folder, "k"):
        assert (await look(folder, "k")).account == "main"


async def test_without_a_producer_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="hitstream produce"):
        await look(tmp_path, "k")
    # What a producer that was killed left behind is no producer.
    (tmp_path / "control-k.json").write_text(json.dumps({"socket": str(tmp_path / "gone.sock"), "pid": 1}))
    with pytest.raises(NotRunning):
        await look(tmp_path, "k")


async def test_the_end_of_the_connection_and_of_the_producer_are_told(tmp_path: Path) -> None:
    session = Session()
    async with serving(session.board, tmp_path, "k"):
        async with attach(tmp_path, "k") as line:
            session.board.lost("no PING for 35 s")
            assert await line.hear(5.0) is None
            assert line.ended == "no PING for 35 s"
        session.goes_by("in", LISTED, "c2")
        async with attach(tmp_path, "k") as line:
            assert [frame.connection for frame in line.history] == ["c2"]
            leaving = line
    await until(lambda: leaving.ended or True)
    with pytest.raises((Unreachable, ConnectionError)):
        await leaving.send(LIST)


async def test_a_session_that_rests_is_opened_for_a_question(tmp_path: Path) -> None:
    session = Session()
    session.asking = False

    async def open_it() -> None:
        await until(lambda: session.needed)
        session.asking = True

    async with serving(session.board, tmp_path, "k"), asyncio.TaskGroup() as tasks:
        tasks.create_task(open_it())
        async with attach(tmp_path, "k") as line:
            assert line.view.asking


async def test_nonsense_is_answered_and_harms_nobody(tmp_path: Path) -> None:
    session = Session()
    async with serving(session.board, tmp_path, "k"):
        address = msgspec.json.decode((tmp_path / "control-k.json").read_bytes(), type=Address)
        reader, writer = await asyncio.open_unix_connection(address.socket)
        for line in (b"\xff\xfe\n", b"[]\n", b'{"ask":"everything"}\n'):
            writer.write(line)
            async with asyncio.timeout(60):
                assert b"error" in await reader.readline()
        writer.close()
        assert (await look(tmp_path, "k")).pid == 1
