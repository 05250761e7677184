"""Price registrations of one connection: one request at a time, whatever the other side answers or does not."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from producers.kiwoom.frames import RegisterReply
from producers.kiwoom.registrations import Registrations

A, B, C, D = "000001", "000002", "000003", "0004V0"


class Line:
    """Drives registrations with a clock of its own and keeps what was asked for."""

    def __init__(self, **arguments: Any) -> None:
        self.t = 100.0
        self.all = Registrations(**arguments)
        self.sent: list[tuple[str, list[str]]] = []

    def next(self, within: float = 300.0) -> tuple[str, list[str]] | None:
        """Let time pass until a request is sent."""
        until = self.t + within
        while True:
            if (request := self.all.request(self.t)) is not None:
                frame = json.loads(request.text())
                (part,) = frame["data"]
                assert (frame["grp_no"], part["type"]) == ("1", ["0B"])
                assert frame.get("refresh", "1") == "1", "what another group has would be dropped"
                self.sent.append((frame["trnm"], part["item"]))
                return self.sent[-1]
            waits = [at for at in (self.all.reply_by, self.all.ready_at) if at is not None]
            if not waits or min(waits) > until:
                self.t = until
                return None
            assert min(waits) > self.t, "the deadline does not move"
            self.t = min(waits)
            self.all.tick(self.t)

    def answer(self, code: int | None = 0, message: str = "") -> bool:
        trnm: Any = self.sent[-1][0]
        return self.all.reply(RegisterReply(trnm=trnm, code=code, message=message), self.t)

    def register(self, *codes: str) -> None:
        self.all.want(codes)
        assert self.next() == ("REG", list(codes))
        self.answer()


def test_what_is_wanted_is_asked_for_in_one_request() -> None:
    line = Line()
    line.all.want([A, B, A, D])
    assert line.next() == ("REG", [A, B, D])
    assert not line.all.standing.complete
    line.answer()
    assert line.all.standing.complete
    assert line.next(within=60) is None


def test_changes_are_gathered_and_requests_spaced() -> None:
    line = Line(spacing=1.0)
    line.register(A)
    before = line.t
    for codes in ([A, B], [A, B, C]):
        line.all.want(codes)
    assert line.next() == ("REG", [B, C])
    assert line.t == before + 1.0


def test_nothing_is_asked_before_the_answer_to_the_last() -> None:
    line = Line(reply_deadline=5.0)
    line.all.want([A])
    line.next()
    line.all.want([A, B])
    assert line.all.request(line.t + 4.9) is None


def test_what_there_is_room_for_comes_before_what_goes() -> None:
    line = Line(limit=3)
    line.register(A, B)
    line.all.want([A, C])
    assert line.next() == ("REG", [C])
    line.answer()
    assert line.next() == ("REMOVE", [B])


def test_without_room_room_is_made_first() -> None:
    line = Line(limit=2)
    line.register(A, B)
    line.all.want([C, A])
    assert line.next() == ("REMOVE", [B])
    line.answer()
    assert line.next() == ("REG", [C])


def test_no_more_than_the_limit_is_asked_for_and_the_first_are_the_most_important() -> None:
    line = Line(limit=2)
    line.all.want([C, A, B])
    assert line.next() == ("REG", [C, A])
    line.answer()
    standing = line.all.standing
    assert (standing.held, standing.wanted, standing.complete) == (2, 3, True)


def test_codes_are_asked_of_the_exchange_that_is_configured() -> None:
    line = Line(suffix="_NX")
    line.all.want([A])
    assert line.next() == ("REG", [f"{A}_NX"])
    line.answer()
    line.all.want([])
    assert line.next() == ("REMOVE", [f"{A}_NX"])


# --- refusals


@pytest.mark.parametrize("code", [105115, 105118])
def test_too_many_codes_are_halved_until_they_fit_and_that_is_the_limit(code: int) -> None:
    line = Line()
    line.all.want([A, B, C, D])
    for asked, answer in (([A, B, C, D], code), ([A, B], 0), ([C, D], code), ([C], 0), ([D], code)):
        assert line.next() == ("REG", asked)
        line.answer(answer)
    standing = line.all.standing
    assert (standing.held, standing.limit, standing.complete) == (3, 3, True)
    assert line.next(within=110) is None


def test_what_is_more_important_takes_the_place_below_a_lower_limit() -> None:
    line = Line()
    line.register(A)
    line.all.want([A, B])
    line.next()
    line.answer(105115)
    line.all.want([B, A])
    assert line.next() == ("REMOVE", [A])
    line.answer()
    assert line.next() == ("REG", [B])


def test_a_lower_limit_is_tried_again_later() -> None:
    line = Line(renew=10_000)
    line.all.want([A])
    line.next()
    line.answer(105115)
    before = line.t
    assert line.next(within=1_000) == ("REG", [A])
    assert line.t == before + 600


def test_one_code_that_is_not_taken_is_found_and_left_out_for_a_while() -> None:
    line = Line(renew=10_000)
    line.all.want([A, D, B, C])
    accepted = set()
    for _ in range(8):
        if (asked := line.next(within=30)) is None:
            break
        refused = D in asked[1]
        line.answer(105111 if refused else 0)
        accepted |= set() if refused else set(asked[1])
    assert accepted == {A, B, C}
    standing = line.all.standing
    assert (standing.refused, standing.complete) == (1, True)
    assert line.next(within=60) == ("REG", [D])


def test_where_every_request_is_refused_they_become_rare() -> None:
    line = Line()
    line.all.want([f"{number:06d}" for number in range(150)])
    begun, asked = line.t, 0
    while line.t < begun + 600:
        line.next()
        line.answer(105111)
        asked += 1
    assert asked < 30


def test_too_many_requests_are_slowed_down_and_lose_nothing() -> None:
    line = Line(slow_down=2.0)
    line.all.want([A, B])
    times = []
    for _ in range(4):
        assert line.next() == ("REG", [A, B])
        times.append(line.t)
        line.answer(105110)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [2.0, 4.0, 8.0]
    line.next()
    line.answer()
    assert line.all.standing.complete


# --- silence


def test_a_request_that_is_not_answered_is_sent_again_and_counts_against_the_limit() -> None:
    line = Line(limit=2, reply_deadline=5.0, slow_down=2.0)
    line.all.want([A, B])
    line.next()
    line.all.want([C, A])
    # B may be registered: it has to go before C can come.
    assert line.next() == ("REMOVE", [B])
    line.answer()
    assert line.next() == ("REG", [C, A])
    line.answer()
    assert line.all.standing.complete


def test_silence_makes_requests_rare_and_never_stops_them() -> None:
    line = Line(reply_deadline=5.0, slow_down=2.0)
    line.all.want([A])
    begun, asked = line.t, 0
    while line.t < begun + 600:
        assert line.next() == ("REG", [A])
        asked += 1
    assert 8 < asked < 20


def test_a_trade_proves_that_a_request_was_heard() -> None:
    line = Line()
    line.all.want([A])
    line.next()
    line.t += 5
    assert line.all.tick(line.t)
    line.all.traded(A, line.t)
    assert line.all.standing.complete
    assert line.next(within=60) is None


def test_a_late_refusal_that_was_overtaken_takes_back_what_was_believed() -> None:
    line = Line(reply_deadline=5.0)
    line.all.want([A])
    line.next()
    assert line.next() == ("REG", [A])  # the first was given up
    assert line.answer(0)  # the answer to the first, taken for the second's
    assert line.all.standing.complete
    assert line.answer(105111, "실시간 항목 등록에 실패했습니다")
    assert not line.all.standing.complete
    assert line.next() == ("REG", [A])


def test_an_answer_that_nobody_waits_for_is_not_ours() -> None:
    line = Line()
    line.register(A)
    assert not line.answer(105111)
    assert line.all.standing.complete


def test_a_trade_of_what_counts_as_gone_has_it_removed() -> None:
    line = Line()
    line.register(A)
    line.all.want([])
    line.next()
    line.answer()
    line.all.traded(A, line.t + 1)  # It was on its way.
    assert line.next(within=60) is None
    line.all.traded(A, line.t)
    assert line.next() == ("REMOVE", [A])


def test_removing_in_vain_ends() -> None:
    line = Line(limit=1, slow_down=2.0)
    line.register(A)
    line.all.want([B])
    for _ in range(3):
        assert line.next() == ("REMOVE", [A])
        line.answer(105111)
    assert line.next() == ("REG", [B])


# --- proofs


def test_what_is_silent_for_long_is_registered_again() -> None:
    line = Line(renew=120.0)
    line.register(A, B)
    begun = line.t
    line.t += 100
    line.all.traded(A, line.t)
    assert line.next() == ("REG", [B])
    assert line.t == begun + 120
    line.answer()
    assert line.next() == ("REG", [A, B])
    assert line.t == begun + 240


def test_silence_while_nothing_is_traded_is_no_silence() -> None:
    line = Line(renew=120.0)
    line.register(A)
    line.t = line.all.ready_at or 0.0
    assert line.all.request(line.t, trading=False) is None
    assert line.all.ready_at == line.t + 120


# --- whatever comes


CODES: Final = [f"{number:06d}" for number in range(12)]


class Talk(RuleBasedStateMachine):
    """Registrations and a server with a limit of its own, which hears or not, answers or not, late or not, and forgets.

    What it holds is the truth. In the end it behaves, and then everything that is wanted is registered.
    """

    @initialize(limit=st.integers(1, 8), server=st.integers(1, 12))
    def begin(self, limit: int, server: int) -> None:
        self.t = 1000.0
        self.line = Registrations(limit=limit, spacing=1.0, reply_deadline=5.0, slow_down=2.0, renew=30.0)
        self.limit, self.server = limit, server
        self.registered: set[str] = set()
        self.wanted: list[str] = []
        self.on_its_way: list[tuple[float, RegisterReply]] = []
        self.asked: list[float] = []

    @rule(codes=st.lists(st.sampled_from(CODES), max_size=10, unique=True))
    def want(self, codes: list[str]) -> None:
        self.wanted = codes
        self.line.want(codes)

    @rule(
        seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 20.0]),
        how=st.sampled_from(["well", "well", "unheard", "unanswered", "late", "refused", "hasty", "dropped"]),
    )
    def go_on(self, seconds: float, how: str) -> None:
        until = self.t + seconds
        while True:
            self.deliver(self.t)
            self.line.tick(self.t)
            believed = {*self.line._held, *self.line._doubtful}
            if (request := self.line.request(self.t)) is not None:
                self.hear(json.loads(request.text()), how, believed)
                self.deliver(self.t)
            waits = [at for at in (self.line.reply_by, self.line.ready_at, *(at for at, _ in self.on_its_way)) if at]
            if not waits or min(waits) > until:
                break
            assert min(waits) >= self.t
            self.t = max(self.t, min(waits))
        self.t = until

    def hear(self, frame: dict[str, Any], how: str, believed: set[str]) -> None:
        if self.asked:
            assert self.t - self.asked[-1] > 0.999, "sent in a burst"
        self.asked.append(self.t)
        items = frame["data"][0]["item"]
        assert items
        if frame["trnm"] == "REG":
            assert len(believed | set(items)) <= max(self.limit, len(believed)), "more than the limit"
        code = 0
        if how in ("refused", "hasty"):
            code = 105111 if how == "refused" else 105110
        elif how != "unheard" and frame["trnm"] == "REMOVE":
            self.registered -= set(items)
        elif how not in ("unheard", "dropped"):
            if len(self.registered | set(items)) > self.server:
                code = 105115
            else:
                self.registered |= set(items)
        if how not in ("unheard", "unanswered"):
            reply = RegisterReply(trnm=frame["trnm"], code=code)
            self.on_its_way.append((self.t + (9.0 if how == "late" else 0.01), reply))

    def deliver(self, t: float) -> None:
        for due in [reply for reply in self.on_its_way if reply[0] <= t]:
            self.on_its_way.remove(due)
            self.line.reply(due[1], t)

    @rule(most=st.sampled_from([1, 2, 12]))
    def trade(self, most: int) -> None:
        for code in sorted(self.registered)[:most]:
            self.line.traded(code, self.t)

    @precondition(lambda self: self.registered)
    @rule()
    def forget(self) -> None:
        """The server loses a registration without a word."""
        self.registered.remove(min(self.registered))

    @invariant()
    def there_is_always_a_next_step(self) -> None:
        standing = self.line.standing
        if not standing.complete:
            assert self.line.waiting or self.line.ready_at is not None

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        for _ in range(80):
            self.go_on(50.0, "well")
            self.trade(12)
        target = set(self.wanted[: min(self.limit, self.server)])
        assert target <= self.registered, "what is wanted is not registered in the end"
        assert self.registered <= set(self.wanted), "what is not wanted is still registered"
        assert len(self.registered) <= self.limit


Talk.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTalk = Talk.TestCase
