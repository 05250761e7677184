"""A past to ask questions of: trading days of hits, prices and bars, made by ClickHouse itself out of numbers.

A day is like a real one in what queries and codecs feel: rows arrive in the order of time, 150 stocks of 2,500 hold a
price slot that day, conditions hit those, stocks come back to a condition several times, prices wander in ticks, and 50
stocks are of the sample. Everything is a function of the day, so that a year is made alike on every machine.
"""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
from clickhouse_connect.driver.client import Client

FIRST = date(2026, 1, 2)
CONDITIONS = 40
SLOTS = 150
STOCKS = 2500
SAMPLE = 50


class Scale(msgspec.Struct, frozen=True):
    """How much happens on one day."""

    transitions: int
    quotes: int
    minutes: int = 381


def days(count: int) -> list[date]:
    """So many trading days (Monday to Friday) from the first on."""
    found: list[date] = []
    day = FIRST
    while len(found) < count:
        if day.weekday() < 5:
            found.append(day)
        day += timedelta(days=1)
    return found


# What all of the statements share. `d` counts days, so that the stocks with a slot differ from day to day.
_WITH = """
WITH
    {day:Date} AS d, toUInt32(d) AS n_day,
    toDateTime64(concat(toString(d), ' 09:00:00'), 6, 'Asia/Seoul') AS nine,
    (slot) -> leftPad(toString((n_day * 13 + slot * 17) % {stocks:UInt32}), 6, '0') AS code_of,
    (slot) -> concat('조건 ', toString(slot)) AS name_of,
    (code, second) -> toInt64(10 * round(1000 + cityHash64(code) % 5000
        + 60 * sin(second / 3100.0 + cityHash64(code) % 7) + 9 * sin(second / 290.0)
        + (cityHash64(code, second) % 5) - 2)) AS price_of
"""

# A visit is two numbers, its entry and its exit. The n-th visit of a day to condition c: the stocks take turns.
_VISITS = """
    SELECT
        number % 2 AS is_exit, intDiv(number, 2) AS visit, visit % {conditions:UInt32} AS c,
        intDiv(visit, {conditions:UInt32}) AS turn, code_of((turn * 7 + c * 3) % {slots:UInt32}) AS code,
        1 + intDiv(turn, {slots:UInt32}) AS entry, name_of(c) AS condition,
        nine + toIntervalSecond(intDiv(visit * 23400, {count:UInt32} / 2)) AS since,
        20 + cityHash64(n_day, visit) % 1500 AS dwell, since + toIntervalSecond(is_exit * dwell) AS at,
        toTimeZone(at, 'UTC') + toIntervalMicrosecond(40000 + cityHash64(visit, n_day) % 200000) AS received_at
    FROM numbers({count:UInt32})
"""

STATEMENTS = {
    "transitions": f"""
INSERT INTO transitions (date, account, condition, code, entry, kind, id, exchange, origin, at, since, dwell, initial,
    event_id, session, received_at, _topic, _partition, _offset)
{_WITH}
SELECT d, 'main', condition, code, entry, if(is_exit, 'exited', 'entered'),
    lower(hex(MD5(concat(toString(d), condition, code, toString(entry), toString(is_exit))))), 'KRX', 'realtime', at,
    since, if(is_exit, dwell, NULL), false,
    lower(hex(MD5(concat('e', toString(d), toString(visit), toString(is_exit))))),
    concat('main-', toString(d)), received_at, 'hitstream.transitions', visit % 4, n_day * {{count:UInt32}} + visit
FROM ({_VISITS})""",
    "condition_events": f"""
INSERT INTO condition_events (date, account, condition, code, at, id, action, exchange, seq, received_at, session,
    frame, entry, _topic, _partition, _offset)
{_WITH}
SELECT d, 'main', condition, code, at, lower(hex(MD5(concat('e', toString(d), toString(visit), toString(is_exit))))),
    if(is_exit, 'exit', 'hit'), 'KRX', toString(c), received_at, concat('main-', toString(d)), visit * 2 + is_exit, 1,
    'hitstream.condition-events', visit % 4, n_day * {{count:UInt32}} + visit
FROM ({_VISITS})""",
    "quotes": f"""
INSERT INTO quotes (date, code, exchange, received_at, session, at, price, high, low, volume, trades, change_rate,
    day_volume, _topic, _partition, _offset)
{_WITH}
SELECT d, code, 'KRX', received_at, concat('main-', toString(d)), toDateTime64(toDateTime(at), 6), price,
    price + 10 * (h % 3), price - 10 * (h % 2), 1 + h % 900, 1 + h % 12, round(price / base * 100 - 100, 2),
    toInt64(turn) * 450, 'hitstream.quotes', h % 4, n_day * {{count:UInt32}} + number
FROM (
    SELECT number, code_of(number % {{slots:UInt32}}) AS code, intDiv(number, {{slots:UInt32}}) AS turn,
        cityHash64(number, n_day) AS h,
        nine + toIntervalMillisecond(intDiv(number * 23400000, {{count:UInt32}})) AS at,
        toTimeZone(at, 'UTC') + toIntervalMicrosecond(40000 + h % 200000) AS received_at,
        price_of(code, intDiv(number * 23400, {{count:UInt32}})) AS price, price_of(code, 0) AS base
    FROM numbers({{count:UInt32}}))""",
    "bars": f"""
INSERT INTO bars (date, code, interval, at, open, high, low, close, volume, value, sample, received_at, _topic,
    _partition, _offset)
{_WITH}
SELECT d, code, '1m', nine + toIntervalMinute(minute), price, price + 30, price - 20, price_of(code, minute * 60 + 59),
    h % 90000, toInt64(h % 90000) * price, sampled, toTimeZone(nine, 'UTC') + toIntervalHour(7), 'hitstream.bars',
    h % 4, n_day * 100000 + number
FROM (
    SELECT number, intDiv(number, {{minutes:UInt32}}) AS stock, number % {{minutes:UInt32}} AS minute,
        stock >= {{slots:UInt32}} AS sampled,
        if(sampled, leftPad(toString((stock * 31) % {{stocks:UInt32}}), 6, '0'), code_of(stock)) AS code,
        cityHash64(number, n_day) AS h, price_of(code, minute * 60) AS price
    FROM numbers(({{slots:UInt32}} + {{sample:UInt32}}) * {{minutes:UInt32}}))""",
    "bars, daily": f"""
INSERT INTO bars (date, code, interval, at, open, high, low, close, volume, value, sample, received_at, _topic,
    _partition, _offset)
{_WITH}
SELECT d, code, '1d', toDateTime64(d, 6, 'Asia/Seoul'), price_of(code, 0), price_of(code, 0) + 300,
    price_of(code, 0) - 300, price_of(code, 23399), 900000,
    9000000000, false, toTimeZone(nine, 'UTC') + toIntervalHour(7), 'hitstream.bars', 0,
    n_day * 100000 + 90000 + number
FROM (SELECT number, leftPad(toString(number), 6, '0') AS code FROM numbers({{stocks:UInt32}}))""",
    "recommendations": f"""
INSERT INTO recommendations (date, account, code, recommendation_id, revision, id, state, cause, rule, score, threshold,
    reasons, opened_at, at, received_at, _topic, _partition, _offset)
{_WITH}
SELECT d, 'main', code, concat(toString(d), code), revision, concat(toString(d), code, '-', toString(revision)),
    if(revision = 3, 'closed', 'open'), ['threshold', 'reason', 'score'][revision], 'sum', 1.0, 1.0,
    if(revision = 3, [], [('condition', name_of(number % {{conditions:UInt32}}), 'A1', opened, 1, 1.0, '', '')]),
    opened, opened + toIntervalMinute(revision), toTimeZone(opened, 'UTC') + toIntervalMinute(revision),
    'hitstream.recommendations', 0, n_day * 1000 + number
FROM (
    SELECT number, code_of(intDiv(number, 3)) AS code, toUInt32(number % 3 + 1) AS revision,
        nine + toIntervalSecond(intDiv(number, 3) * 150) AS opened
    FROM numbers({{slots:UInt32}} * 3))""",
    "gaps": f"""
INSERT INTO gaps (date, account, condition, from_at, to_at, id, cause, at, received_at, session)
{_WITH}
SELECT d, 'main', name_of(number), nine + toIntervalHour(2), nine + toIntervalHour(2) + toIntervalSecond(40),
    concat(toString(d), toString(number)), 'R10001', nine, toTimeZone(nine, 'UTC'), 's'
FROM numbers(4)""",
}


def live(client: Client, day: date, scale: Scale) -> None:
    """Let a day happen: one insert for each kind."""
    counts = {"quotes": scale.quotes, "transitions": scale.transitions, "condition_events": scale.transitions}
    for what, statement in STATEMENTS.items():
        client.command(
            statement,
            parameters={
                "day": day,
                "count": counts.get(what, 0),
                "stocks": STOCKS,
                "slots": SLOTS,
                "conditions": CONDITIONS,
                "sample": SAMPLE,
                "minutes": scale.minutes,
            },
            settings={"max_insert_threads": 1},
        )


def list_stocks(client: Client) -> None:
    client.command(
        "INSERT INTO stocks (code, name, market, previous_close, received_at) "
        "SELECT leftPad(toString(number), 6, '0'), "
        f"concat('종목 ', toString(number)), 'KOSPI', 10000, now64(6) FROM numbers({STOCKS})"
    )
