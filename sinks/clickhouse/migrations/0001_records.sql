-- One table per kind of record. Every statement may run twice: a migration that was cut off is run again.
--
-- Identity. A record may be inserted more than once (a crash, a takeover, a topic that is read anew). Each table is a
-- ReplacingMergeTree whose sorting key is a function of the record's identity, as is its partition, so that all
-- copies meet and FINAL shows one. Nothing may count inserted rows incrementally.
--
-- Times. `at` and its like are market time in KST, `received_at` is UTC; all have one type, so that they can be compared
-- and joined (ASOF) without conversion. Plain DateTime is avoided: many clients drop its time zone on the way.
--
-- `_topic, _partition, _offset` say where the record stood when it was written; they are for audit and never identity:
-- a topic that was created anew counts its offsets from 0 again.

CREATE TABLE IF NOT EXISTS condition_events
(
    date        Date COMMENT 'Trading date (KST)',
    account     LowCardinality(String),
    condition   LowCardinality(String) COMMENT 'Name of the saved condition search',
    code        LowCardinality(String) COMMENT 'Stock code, six characters',
    at          DateTime64(6, 'Asia/Seoul') COMMENT 'When Kiwoom says it happened; whole seconds' CODEC(DoubleDelta, ZSTD(1)),
    id          String COMMENT 'Identity of the hit or exit',
    action      LowCardinality(String) COMMENT 'hit or exit',
    exchange    LowCardinality(String),
    seq         LowCardinality(String) COMMENT 'Number of the condition in its session',
    ordinal     UInt32 COMMENT 'Counts equal hits or exits within one second of one connection',
    received_at DateTime64(6, 'UTC') COMMENT 'When we knew' CODEC(DoubleDelta, ZSTD(1)),
    session     LowCardinality(String) COMMENT 'Connection it came over',
    frame       UInt64 COMMENT 'Frame on that connection, from 1; a gap is loss' CODEC(Delta, ZSTD(1)),
    entry       UInt32 COMMENT 'Entry in that frame',
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, code, at, id)
COMMENT 'Hits and exits of conditions, as Kiwoom sent them; transitions has them deduplicated';

CREATE TABLE IF NOT EXISTS condition_snapshots
(
    date        Date COMMENT 'Trading date (KST)',
    account     LowCardinality(String),
    condition   LowCardinality(String),
    at          DateTime64(6, 'Asia/Seoul') COMMENT 'When it was asked for' CODEC(DoubleDelta, ZSTD(1)),
    id          String,
    seq         LowCardinality(String),
    codes       Array(LowCardinality(String)) COMMENT 'All members of the condition' CODEC(ZSTD(1)),
    members     UInt32 COMMENT 'How many they are',
    received_at DateTime64(6, 'UTC') COMMENT 'When the reply was complete' CODEC(DoubleDelta, ZSTD(1)),
    session     LowCardinality(String),
    frame       UInt64,
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, id)
COMMENT 'Complete memberships of conditions at one moment';

CREATE TABLE IF NOT EXISTS searches
(
    date          Date COMMENT 'Trading date (KST)',
    account       LowCardinality(String),
    condition     LowCardinality(String),
    at            DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    id            String,
    seq           LowCardinality(String),
    stocks        UInt32 COMMENT 'How many stocks it found; they are in search_results',
    scheduled_for Nullable(DateTime64(6, 'Asia/Seoul')) COMMENT 'Planned time; NULL where somebody asked',
    source        LowCardinality(String) COMMENT 'search or snapshot',
    received_at   DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    session       LowCardinality(String),
    _topic        LowCardinality(String),
    _partition    UInt32,
    _offset       UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, id)
COMMENT 'One-shot searches, also those that found nothing';

CREATE TABLE IF NOT EXISTS search_results
(
    date        Date COMMENT 'Trading date (KST)',
    account     LowCardinality(String),
    condition   LowCardinality(String),
    search_id   String COMMENT 'searches.id',
    code        LowCardinality(String),
    exchange    LowCardinality(String),
    at          DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    name        String COMMENT 'As the search says it: cut at about 20 bytes; stocks has the full name',
    price       Nullable(Int64) COMMENT 'Won',
    change      Nullable(Int64) COMMENT 'Won, against the previous close',
    change_rate Nullable(Float64) COMMENT 'Percent, against the previous close',
    open        Nullable(Int64) COMMENT 'Won',
    high        Nullable(Int64) COMMENT 'Won',
    low         Nullable(Int64) COMMENT 'Won',
    volume      Nullable(Int64) COMMENT 'Shares',
    received_at DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, search_id, code, exchange)
COMMENT 'The stocks that one-shot searches found, with their prices';

CREATE TABLE IF NOT EXISTS gaps
(
    date        Date COMMENT 'Trading date (KST) on which it began',
    account     LowCardinality(String),
    condition   LowCardinality(String),
    from_at     DateTime64(6, 'Asia/Seoul') COMMENT 'Last proof of life' CODEC(DoubleDelta, ZSTD(1)),
    to_at       DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    id          String,
    cause       String,
    at          DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    session     LowCardinality(String),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, id)
COMMENT 'Times in which hits and exits of a condition may have been missed';

CREATE TABLE IF NOT EXISTS transitions
(
    date        Date COMMENT 'Trading date (KST)',
    account     LowCardinality(String),
    condition   LowCardinality(String),
    code        LowCardinality(String),
    entry       UInt32 COMMENT 'Counts the visits of the day from 1',
    kind        LowCardinality(String) COMMENT 'entered or exited',
    id          String,
    exchange    LowCardinality(String),
    origin      LowCardinality(String) COMMENT 'realtime, snapshot or day-end',
    at          DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    since       DateTime64(6, 'Asia/Seoul') COMMENT 'When this visit began' CODEC(DoubleDelta, ZSTD(1)),
    dwell       Nullable(Float64) COMMENT 'Seconds that the visit lasted; exits only',
    initial     Bool COMMENT 'From the first snapshot of the day: state, not news',
    gap_from    Nullable(DateTime64(6, 'Asia/Seoul')) COMMENT 'It happened between gap_from and gap_to',
    gap_to      Nullable(DateTime64(6, 'Asia/Seoul')),
    event_id    String COMMENT 'The record that caused it',
    session     LowCardinality(String),
    received_at DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, code, entry, kind, id)
COMMENT 'Who entered and left which condition, deduplicated';

CREATE TABLE IF NOT EXISTS search_reasons
(
    date          Date COMMENT 'Trading date (KST)',
    account       LowCardinality(String),
    condition     LowCardinality(String),
    code          LowCardinality(String),
    id            String,
    exchange      LowCardinality(String),
    name          String,
    at            DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    received_at   DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    price         Nullable(Int64) COMMENT 'Won',
    change_rate   Nullable(Float64) COMMENT 'Percent, against the previous close',
    search_id     String COMMENT 'searches.id',
    scheduled_for Nullable(DateTime64(6, 'Asia/Seoul')),
    _topic        LowCardinality(String),
    _partition    UInt32,
    _offset       UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, condition, account, code, id)
COMMENT 'Stocks of one-shot searches that count as a reason until their day ends';

CREATE TABLE IF NOT EXISTS commands
(
    date        Date COMMENT 'Trading date (KST)',
    account     LowCardinality(String),
    code        LowCardinality(String),
    id          String,
    action      LowCardinality(String) COMMENT 'recommend or withdraw',
    `by`        String COMMENT 'Who entered it',
    note        String,
    at          DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    expires_at  Nullable(DateTime64(6, 'Asia/Seoul')),
    _topic      LowCardinality(String),
    _partition  UInt32,
    _offset     UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, account, code, id)
COMMENT 'What people entered by hand, as accepted';

CREATE TABLE IF NOT EXISTS recommendations
(
    date              Date COMMENT 'Trading date (KST)',
    account           LowCardinality(String),
    code              LowCardinality(String),
    recommendation_id String COMMENT 'One opening',
    revision          UInt32 COMMENT 'Counts from 1 within it',
    id                String COMMENT 'The two together',
    state             LowCardinality(String) COMMENT 'open or closed',
    cause             LowCardinality(String) COMMENT 'threshold, command, reason, score, expired, withdrawn, day-end',
    cause_id          String COMMENT 'The record that caused it',
    rule              LowCardinality(String),
    score             Float64,
    threshold         Float64,
    reasons           Array(Tuple(
                          kind LowCardinality(String),
                          condition LowCardinality(String),
                          algorithm_id LowCardinality(String),
                          since DateTime64(6, 'Asia/Seoul'),
                          visits UInt32,
                          score Float64,
                          `by` String,
                          note String)) COMMENT 'Why: ARRAY JOIN reasons AS r, then r.condition, r.score …' CODEC(ZSTD(1)),
    opened_at         DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    at                DateTime64(6, 'Asia/Seoul') CODEC(DoubleDelta, ZSTD(1)),
    expires_at        Nullable(DateTime64(6, 'Asia/Seoul')),
    received_at       DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    _topic            LowCardinality(String),
    _partition        UInt32,
    _offset           UInt64 CODEC(Delta, ZSTD(1)),
    inserted_at       DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(date)
ORDER BY (date, code, account, recommendation_id, revision)
COMMENT 'Every revision of every recommendation, with its reasons';

CREATE TABLE IF NOT EXISTS stocks
(
    code           LowCardinality(String),
    name           String,
    market         LowCardinality(String),
    previous_close Nullable(Int64) COMMENT 'Won',
    received_at    DateTime64(6, 'UTC') COMMENT 'The latest one counts',
    _topic         LowCardinality(String),
    _partition     UInt32,
    _offset        UInt64,
    inserted_at    DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY code
COMMENT 'Names and markets of the listed stocks, the latest of each';
