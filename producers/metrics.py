"""The producer's figures for Prometheus, on the default registry."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

FRAMES: Final = Counter("hitstream_producer_frames", "Frames received from Kiwoom.")
EVENTS: Final = Counter("hitstream_producer_events", "Hits and exits received.", ["condition", "action"])
IGNORED: Final = Counter("hitstream_producer_ignored", "What was received and changes nothing.", ["reason"])
CONNECTIONS: Final = Counter("hitstream_producer_connections", "Connections to Kiwoom that were opened.")
PING_AGE: Final = Gauge(
    "hitstream_producer_ping_age_seconds", "Real seconds since the last PING; NaN before the first."
)
SUBSCRIPTION: Final = Gauge(
    "hitstream_producer_subscription", "1 for the state in which a condition is.", ["condition", "state"]
)
SUBSCRIPTION_SINCE: Final = Gauge(
    "hitstream_producer_subscription_since_timestamp_seconds",
    "Since when a condition is in its state: Unix seconds of the product's clock.",
    ["condition"],
)
PUBLISHED: Final = Counter("hitstream_producer_published", "Records that Kafka has acknowledged.", ["topic"])
PUBLISH_FAILURES: Final = Counter("hitstream_producer_publish_failures", "Batches that had to be sent again.")
DROPPED: Final = Counter(
    "hitstream_producer_dropped",
    "Records that were not taken for Kafka: `superseded` (others wait on the disk), `crowded`, `full`, `too-large`.",
    ["topic", "reason"],
)
WAITING: Final = Gauge("hitstream_producer_waiting_records", "Records that wait for Kafka's acknowledgement.")
SPOOLED: Final = Gauge("hitstream_producer_spool_bytes", "Bytes that wait on the disk for Kafka.")
SESSION: Final = Gauge("hitstream_producer_session", "1 for the state in which the session is.", ["state"])
CHANGES: Final = Counter(
    "hitstream_producer_subscription_changes", "Changes of a condition's state.", ["condition", "state"]
)
QUIET: Final = Gauge(
    "hitstream_producer_quiet_seconds",
    "Seconds for which a live condition has said nothing, which is normal; NaN while it is not live.",
    ["condition"],
)
AUDITS: Final = Counter("hitstream_producer_audits", "Audits of live conditions.", ["condition", "outcome"])
GAPS: Final = Counter("hitstream_producer_gaps", "Gaps that were told.", ["condition"])
BARS: Final = Counter("hitstream_producer_bars", "Bars that were fetched and published.", ["interval"])
CHARTS: Final = Gauge(
    "hitstream_producer_charts",
    "Charts (one stock, minutes or days) of the day whose bars were fetched last: `expected`, and of these `fetched`, "
    "`empty` (not traded), `failed`, `missing` (not asked yet).",
    ["state"],
)
TRADES: Final = Counter("hitstream_producer_trades", "Trades heard of stocks that have a price slot.")
PRICE_SLOTS: Final = Gauge(
    "hitstream_producer_price_slots",
    "Stocks by what they have of a price slot: `used` one, `registered` with Kiwoom, `wanted` one, `refused` by Kiwoom;"
    " and their `limit`.",
    ["what"],
)
PRICES_ABLE: Final = Gauge(
    "hitstream_producer_prices_able", "1 if this session tells prices, or would if it were its turn."
)
EVICTED: Final = Counter("hitstream_producer_price_slots_evicted", "Price slots that went to a stock worth more.")
HELD_BACK: Final = Counter(
    "hitstream_producer_quotes_held_back",
    "Last quotes of a second that were gathered into later ones because Kafka was behind.",
)
