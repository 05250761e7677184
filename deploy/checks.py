"""What settings have to hold beyond the form of each: the roles' own checks, before any role is started.

A role refuses by itself what it can't work with. `hitstream config` and `hitstream up` ask the same questions first, so
that nobody waits for a Kafka to read that a day in `kiwoom.days` is none.
"""

from __future__ import annotations

from streams.events import ConfigError

from .settings import Settings


def check(settings: Settings) -> None:
    """Refuse what a role would refuse, as far as the settings alone tell. What is not set is not asked for.

    Raises:
        ConfigError: what is wrong, in the role's own sentence.
    """
    from producers.calendar import calendar_of
    from producers.conditions import verify
    from sinks.clickhouse.dsn import parse_dsn
    from sinks.live.access import Access, tokens
    from sinks.live.guard import check_exposure
    from sinks.live.proxies import networks
    from streams.rules import load as load_rule
    from streams.watchdog import within

    from .local.kiwoom.plants import plants

    _refuse_equal_ports(settings)
    calendar_of(settings.kiwoom)
    verify(settings.conditions)
    if settings.clickhouse.dsn:
        parse_dsn(settings.clickhouse.dsn)
    given = tokens(settings.live)
    check_exposure(settings.live.host, given)
    Access(given)
    networks(settings.live.trusted_proxies)
    plants(settings.local.market_plants)
    with within(settings.stream.stalled_after):  # it may be a user's code
        load_rule(settings.recommend.rule, settings.recommend.options)


def listeners(settings: Settings, *, market: bool) -> list[tuple[str, int, str, str]]:
    """Where `up` listens for others: host, port, who does, and the setting. Port 0, any free one, is left out."""
    local, live, here = settings.local, settings.live, "127.0.0.1"
    wanted = [
        (not settings.kafka.bootstrap_servers, here, local.kafka_port, "the local Kafka", "local.kafka_port"),
        (not settings.clickhouse.dsn, here, local.clickhouse_port, "the local ClickHouse", "local.clickhouse_port"),
        (market, here, local.kiwoom_port, "the local market", "local.kiwoom_port"),
        (True, live.host, live.port, "the dashboard", "live.port"),
    ]
    return [(host, port, what, setting) for ours, host, port, what, setting in wanted if ours and port]


def _refuse_equal_ports(settings: Settings) -> None:
    seen: dict[int, tuple[str, str]] = {}
    for _, port, what, setting in listeners(settings, market=not settings.kiwoom.websocket_url):
        if port in seen:
            other, its = seen[port]
            raise ConfigError(f"{its} and {setting} are both {port}: give {other} and {what} a port each.")
        seen[port] = what, setting
