"""Prices on a connection: what is asked for and when, and that nothing else waits for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from producers.kiwoom.frames import TradeEntry
from producers.kiwoom.session import Entry, Priced, Timing, Trades

from .test_session import LIST, PING, Talk, live, real, reply, request

OK = '{"trnm":"REG","return_code":0,"return_msg":""}'
CLOCK = '{"trnm":"REG","grp_no":"90","refresh":"1","data":[{"item":[""],"type":["0s"]}]}'


def reg(*items: str) -> str:
    data = [{"item": list(items), "type": ["0B"]}]
    return json.dumps({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": data}, separators=(",", ":"))


def trade(code: str, price: int = 1000, size: int = 1, volume: int = 1) -> dict[str, object]:
    values = {"20": "093000", "10": f"-{price}", "15": f"{size:+d}", "13": str(volume), "12": "-1.50"}
    return {"values": values, "type": "0B", "name": "주식체결", "item": code}


def traded(*codes: str) -> str:
    return json.dumps({"trnm": "REAL", "data": [trade(code) for code in codes]})


def wait_for(talk: Talk, frame: str, within: float = 60.0) -> None:
    """Let time pass until this frame is the last that was sent."""
    if not talk.sent or talk.sent[-1] != frame:
        talk.wait_for(frame, within)


def price(talk: Talk, *codes: str) -> None:
    talk.did(talk.session.price(codes, talk.now))


def prices_of(talk: Talk) -> list[Sequence[str]]:
    return [[entry.code for entry in action.trades] for action in talk.all(Trades)]


def test_prices_are_asked_for_once_every_condition_has_been_answered() -> None:
    talk = Talk("test1", "순위")
    talk.open()
    price(talk, "005930")
    talk.hear('{"trnm":"LOGIN","return_code":0}')
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear(LIST)
    talk.wait(1.0)
    assert talk.sent[-2:] == [request("0"), request("1")]
    talk.hear(reply("0"))
    talk.wait(1.0)
    assert not any("0B" in text for text in talk.sent)
    talk.hear(reply("1"))
    assert talk.sent[-1] == reg("005930")


def test_a_condition_that_is_requested_anew_goes_first() -> None:
    talk = live("순위")
    talk.hear(reply("1"))
    talk.hear('{"trnm":"CNSRREQ","return_code":900003,"return_msg":"(seq=1)"}')
    talk.did(talk.session.received('{"trnm":"CNSRLST","return_code":0,"data":[["7","순위"]]}', talk.now))
    price(talk, "005930")
    wait_for(talk, request("7"))
    assert not any("0B" in text for text in talk.sent)
    talk.hear(reply("7"))
    wait_for(talk, reg("005930"), within=2.0)


def test_prices_wait_for_what_is_about_to_be_sent() -> None:
    talk = live("순위", market_clock=True)
    talk.wait(1.5)
    price(talk, "005930")
    talk.wait_for(CLOCK)  # at 2 s: a REG now would make it late
    assert reg("005930") not in talk.sent
    talk.hear(OK)
    wait_for(talk, reg("005930"), within=1.0)


def test_the_clock_and_prices_are_never_on_their_way_together() -> None:
    """Their answers name nothing."""
    talk = live("순위", market_clock=True)
    talk.wait_for(CLOCK)
    price(talk, "005930")
    talk.wait(4.0)
    assert reg("005930") not in talk.sent
    talk.hear(OK)
    wait_for(talk, reg("005930"))
    assert not talk.all(Priced)[-1].standing.held
    talk.hear(OK)
    assert talk.all(Priced)[-1].standing.held == 1


def test_a_clock_that_is_never_answered_keeps_no_prices_away() -> None:
    talk = live("순위", market_clock=True)
    talk.wait_for(CLOCK)
    price(talk, "005930")
    wait_for(talk, reg("005930"), within=6.0)


def test_a_ping_is_echoed_first_while_prices_are_asked_for() -> None:
    talk = live("순위")
    price(talk, *(f"{number:06d}" for number in range(150)))
    talk.wait(1.0)
    assert talk.hear(PING)[0].text == PING  # type: ignore[attr-defined]


def test_an_audit_goes_on_beside_prices() -> None:
    talk = live("순위")
    price(talk, "005930")
    wait_for(talk, reg("005930"))
    talk.hear(OK)
    for _ in range(400):
        talk.hear(PING)
        talk.hear(traded("005930"))
        talk.wait(1.0)
        if '"search_type":"0"' in talk.sent[-1]:
            break
    assert '"search_type":"0"' in talk.sent[-1]


def test_trades_are_told_frame_by_frame_beside_the_entries_of_conditions() -> None:
    talk = live("순위")
    price(talk, "005930", "000660")
    talk.hear(traded("005930", "000660", "005930"))
    hit = json.loads(real(("1", "000660", "I")))["data"]
    talk.hear(json.dumps({"trnm": "REAL", "data": [trade("000660"), *hit]}))
    assert prices_of(talk) == [["005930", "000660", "005930"], ["000660"]]
    assert [entry.code for entry in talk.all(Entry)] == ["000660"]
    first = talk.all(Trades)[0]
    assert first.received_at == talk.now.at
    assert first.trades[0] == TradeEntry(
        code="005930", exchange="KRX", time="093000", price=1000, change_rate=-1.5, size=1, day_volume=1
    )


def test_trades_that_nobody_asked_for_are_ignored() -> None:
    talk = live("순위")
    talk.hear(traded("005930"))
    assert (prices_of(talk), talk.ignored) == ([], ["other-type"])


def test_a_refused_registration_is_noticed_and_tried_otherwise() -> None:
    talk = live("순위")
    price(talk, "005930", "000660")
    wait_for(talk, reg("005930", "000660"))
    talk.hear('{"trnm":"REG","return_code":105111,"return_msg":"실시간 항목 등록에 실패했습니다"}')
    assert "register-refused" in talk.ignored
    assert talk.all(Priced)[-1].standing.cause == "REG 105111 실시간 항목 등록에 실패했습니다"
    wait_for(talk, reg("005930"))


def test_a_registration_that_is_not_answered_costs_no_connection() -> None:
    talk = live("순위")
    price(talk, "005930")
    for _ in range(20):
        talk.wait(10.0)
        talk.hear(PING)
    assert not talk.session.over
    assert talk.sent.count(reg("005930")) > 3
    assert "register-unanswered" in talk.ignored


def test_a_limit_that_was_found_is_told_and_so_is_that_it_is_believed_no_longer() -> None:
    talk = live("순위", timing=Timing(audit_after=1e6, list_again=1e6))
    price(talk, "005930")
    wait_for(talk, reg("005930"))
    talk.hear('{"trnm":"REG","return_code":105115,"return_msg":"…"}')
    assert talk.all(Priced)[-1].standing.limit == 0
    price(talk)  # whoever gives slots has none to give
    for _ in range(70):
        talk.hear(PING)
        talk.wait(10.0)
    assert not talk.session.over
    assert talk.all(Priced)[-1].standing.limit == 200


def test_saying_goodbye_clears_conditions_and_asks_for_no_prices() -> None:
    talk = live("순위")
    price(talk, "005930")
    talk.did(talk.session.clear(talk.now))
    talk.wait(5.0)
    assert not any("0B" in text for text in talk.sent)
    assert talk.session.over


def test_an_unanswered_request_for_prices_is_not_waited_for_while_leaving() -> None:
    talk = live("순위")
    price(talk, "005930")
    wait_for(talk, reg("005930"))
    talk.wait(4.5)
    talk.did(talk.session.clear(talk.now))
    assert talk.session.deadline == talk.t + Timing().goodbye_reply


def test_with_the_market_clock_there_is_one_code_less() -> None:
    assert [live("순위", market_clock=clock).session._prices.standing.limit for clock in (False, True)] == [200, 199]


def test_there_are_never_more_codes_registered_than_may_be() -> None:
    talk = live("순위", prices=1)
    price(talk, "005930")
    wait_for(talk, reg("005930"))
    talk.hear(OK)
    price(talk, "000660")
    talk.wait(1.5)
    assert '"REMOVE"' in talk.sent[-1]


def test_codes_are_asked_of_the_configured_exchange() -> None:
    for stex_tp, item in (("K", "005930"), ("", "005930"), ("N", "005930_NX"), ("A", "005930_AL")):
        talk = Talk("순위", stex_tp=stex_tp)
        talk.listed()
        talk.wait(0.4)
        talk.hear(reply("1"))
        price(talk, "005930")
        wait_for(talk, reg(item))
