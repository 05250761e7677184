-- Prices, bars, and what the components say of themselves. Identity, times and audit as in 0001.

CREATE TABLE IF NOT EXISTS quotes
(
    date        Date COMMENT 'Trading date (KST)',
    code        LowCardinality(String) COMMENT 'Stock code, six characters',
    exchange    LowCardinality(String),
    received_at DateTime64(6, 'UTC') COMMENT 'When we knew; with code, exchange and session the identity' CODEC(Delta, ZSTD(1)),
    session     LowCardinality(String) COMMENT 'Connection it came over',
    at          DateTime64(6, 'Asia/Seoul') COMMENT 'When Kiwoom says it happened; whole seconds' CODEC(DoubleDelta, ZSTD(1)),
    price       Int64 COMMENT 'Won' CODEC(Delta, ZSTD(1)),
    high        Int64 COMMENT 'Won, since the quote before' CODEC(Delta, ZSTD(1)),
    low         Int64 COMMENT 'Won, since the quote before' CODEC(Delta, ZSTD(1)),
    volume      Int64 COMMENT 'Shares, since the quote before' CODEC(ZSTD(1)),
    trades      UInt32 COMMENT 'Trades since the quote before' CODEC(ZSTD(1)),
    change_rate Nullable(Float64) COMMENT 'Percent, against the previous close' CODEC(ZSTD(1)),
    day_volume  Nullable(Int64) COMMENT 'Shares, cumulative' CODEC(Delta, ZSTD(1)),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, code, exchange, received_at, session)
COMMENT 'Prices of the stocks that held a price slot';

CREATE TABLE IF NOT EXISTS bars
(
    date        Date COMMENT 'Trading date (KST)',
    code        LowCardinality(String) COMMENT 'Stock code, six characters',
    interval    LowCardinality(String) COMMENT '1m or 1d',
    at          DateTime64(6, 'Asia/Seoul') COMMENT 'Its start' CODEC(DoubleDelta, ZSTD(1)),
    open        Int64 COMMENT 'Won' CODEC(Delta, ZSTD(1)),
    high        Int64 COMMENT 'Won' CODEC(Delta, ZSTD(1)),
    low         Int64 COMMENT 'Won' CODEC(Delta, ZSTD(1)),
    close       Int64 COMMENT 'Won' CODEC(Delta, ZSTD(1)),
    volume      Int64 COMMENT 'Shares' CODEC(ZSTD(1)),
    value       Nullable(Int64) COMMENT 'Won' CODEC(ZSTD(1)),
    sample      Bool COMMENT 'Of the fixed random sample of stocks that conditions are compared with',
    received_at DateTime64(6, 'UTC') COMMENT 'When it was fetched; the latest one counts' CODEC(DoubleDelta, ZSTD(1)),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(received_at)
PARTITION BY toYYYYMM(date)
ORDER BY (interval, date, code, at)
COMMENT 'Minute and daily bars, fetched after the close';

-- Everybody says how it is every few seconds, and mostly the same. A row is what a component was from `since` to `at`:
-- what it says again replaces the row, what is new begins another one, and so does a new day.

CREATE TABLE IF NOT EXISTS statuses
(
    date          Date COMMENT 'Date (KST) on which it was said',
    component     LowCardinality(String),
    at            DateTime64(6, 'UTC') COMMENT 'When it was last said' CODEC(DoubleDelta, ZSTD(1)),
    kind          LowCardinality(String) COMMENT 'session, subscription, worker, sink or diagnosis',
    state         LowCardinality(String) COMMENT 'A word of that kind',
    cause         String COMMENT 'Why, as a sentence; empty where all is well',
    since         DateTime64(6, 'UTC') COMMENT 'Since when it is in that state' CODEC(DoubleDelta, ZSTD(1)),
    account       LowCardinality(String),
    condition     LowCardinality(String),
    session       LowCardinality(String) COMMENT 'The connection, as of at',
    proof_of_life Nullable(DateTime64(6, 'UTC')) COMMENT 'As of at',
    last_frame    Nullable(DateTime64(6, 'UTC')) COMMENT 'As of at',
    last_ping     Nullable(DateTime64(6, 'UTC')) COMMENT 'As of at',
    members       Nullable(UInt32) COMMENT 'As of at',
    figures       Map(LowCardinality(String), Float64) COMMENT 'As of at',
    _topic        LowCardinality(String),
    _partition    UInt32,
    _offset       UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(at)
PARTITION BY toYYYYMM(date)
ORDER BY (date, component, since, state, cause)
COMMENT 'What each component was, from since to at';
