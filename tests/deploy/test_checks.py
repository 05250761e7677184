"""What the roles would refuse is refused by the same words beforehand."""

from __future__ import annotations

import json

import pytest

from deploy.checks import check
from deploy.settings import load
from streams.events import ConfigError

ELEVEN = json.dumps([{"name": f"조건 {number}"} for number in range(11)])


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("KIWOOM__DAYS", '["2026-13-03 closed"]', "kiwoom.days has '2026-13-03 closed'"),
        ("CONDITIONS", ELEVEN, "11 conditions are configured, and Kiwoom keeps at most 10"),
        ("RECOMMEND__RULE", "confluense", "confluense"),
        ("RECOMMEND__OPTIONS", '{"nonsense": 1}', "nonsense"),
        ("LOCAL__MARKET_PLANTS", '["조건 5"]', "'조건 5' plants nothing"),
        ("LIVE__HOST", "0.0.0.0", "set live.token"),
        ("LIVE__READ_TOKENS", "nobody", "live.read_tokens can't be read"),
        ("LIVE__READ_TOKENS", "a:one,a:two", "have one label"),
        ("LIVE__TRUSTED_PROXIES", '["proxy"]', "live.trusted_proxies"),
        ("CLICKHOUSE__DSN", "http://127.0.0.1", "clickhouse.dsn can't be read"),
        (
            "LOCAL__KAFKA_PORT",
            "8123",
            "local.kafka_port and local.clickhouse_port are both 8123: give the local Kafka and the local ClickHouse a"
            " port each.",
        ),
        ("LIVE__PORT", "10001", "local.kiwoom_port and live.port are both 10001"),
    ],
)
def test_what_a_role_would_refuse_is_refused(setting: str, value: str, words: str) -> None:
    settings = load(None, {f"HITSTREAM_{setting}": value})
    with pytest.raises(ConfigError) as refused:
        check(settings)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "HITSTREAM_LIVE__PORT": "9092"},  # no Kafka of ours
        {f"HITSTREAM_{name}_PORT": "0" for name in ("LIVE_", "LOCAL__KAFKA", "LOCAL__CLICKHOUSE")},  # any free one
        {"HITSTREAM_LIVE__HOST": "0.0.0.0", "HITSTREAM_LIVE__TOKEN": "hard-to-guess"},
    ],
)
def test_what_is_right_or_not_set_is_not_refused(environ: dict[str, str]) -> None:
    check(load(None, environ))
