-- What became of each hit, kept by day, so that it need not be worked out again each time that somebody asks.
--
-- `sinks.clickhouse.returns` fills a day with what `condition_returns` says of it, in one insert, and again whenever the
-- day gained something since. A fill is told from others by `filled_at`; the last one of a day counts, and rows of those
-- before go when ClickHouse merges. Each has a row of no hit (`entry` 0), by which a day without hits is known as filled.
-- Costs are not in it: they are taken off by whoever asks.

CREATE TABLE IF NOT EXISTS hit_returns
(
    date           Date COMMENT 'Trading date (KST)',
    account        LowCardinality(String) COMMENT 'Empty in the row of no hit',
    condition      LowCardinality(String),
    code           LowCardinality(String) COMMENT 'Stock code, six characters',
    entry          UInt32 COMMENT 'Which visit of the day; 0 in the row of no hit',
    reference      Nullable(Int64) COMMENT 'Won; the first trade known after the hit',
    reference_at   Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was known',
    complete       Bool COMMENT 'Whether the day\'s minute bars of the stock were there',
    returns        Array(Nullable(Float64)) COMMENT 'Percent after 1m, 5m, 30m, close, next_open, best, worst' CODEC(ZSTD(1)),
    sample_returns Array(Nullable(Float64)) COMMENT 'What the sampled stocks did meanwhile, on average' CODEC(ZSTD(1)),
    sample_cases   Array(Int64) COMMENT 'How many of them' CODEC(ZSTD(1)),
    across_gap     Array(UInt8) COMMENT 'Whether a gap lies across it' CODEC(ZSTD(1)),
    filled_at      DateTime64(6, 'UTC') COMMENT 'When the day was filled' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(filled_at)
PARTITION BY toYYYYMM(date)
ORDER BY (date, account, condition, code, entry)
COMMENT 'What became of each hit, by day as last worked out';

-- From `sums` on this is `condition_performance`, word for word: a test compares the texts and the figures.
CREATE OR REPLACE VIEW condition_performance_stored AS
WITH
    cells AS
    (
        SELECT
            account,
            condition,
            horizon,
            code,
            date,
            multiIf(code = '', 'day', date = toDate(0), 'stock', 'both') AS by,
            count() AS hits,
            count(gross) AS cases,
            ifNull(sum(gross - {cost:Float64}), 0) AS total,
            groupArray(gross - {cost:Float64}) AS returns,
            countIf(ifNull(gross - {cost:Float64} > 0, 0)) AS above,
            sumIf(compared_with, gross IS NOT NULL) AS compared,
            count(gross - sampled) AS pairs,
            ifNull(sumIf(sampled - {cost:Float64}, gross IS NOT NULL), 0) AS sample_total,
            ifNull(sum(gross - sampled), 0) AS gained,
            countIf(across AND gross IS NOT NULL) AS across
        FROM hit_returns
        ARRAY JOIN
            ['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'] AS horizon,
            hit_returns.returns AS gross,
            sample_returns AS sampled,
            sample_cases AS compared_with,
            across_gap AS across
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND entry > 0
            AND (date, filled_at) IN (
                SELECT date, max(filled_at) FROM hit_returns
                WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND account = '' AND entry = 0
                GROUP BY date)
        GROUP BY GROUPING SETS ((account, condition, horizon, code, date), (account, condition, horizon, code), (account, condition, horizon, date))
    ),
    sums AS
    (
        SELECT
            account,
            condition,
            horizon,
            sumIf(cells.hits, by = 'day') AS hits,
            sumIf(cells.cases, by = 'day') AS priced,
            if(priced > 0, sumIf(cells.total, by = 'day') / priced, NULL) AS mean,
            quantilesExactInclusiveArrayIf(0.25, 0.5, 0.75)(cells.returns, by = 'day') AS quartiles,
            sumIf(cells.above, by = 'day') AS above,
            sumIf(cells.compared, by = 'day') AS compared,
            sumIf(cells.pairs, by = 'day') AS pairs,
            if(pairs > 0, sumIf(cells.sample_total, by = 'day') / pairs, NULL) AS sample_mean,
            if(pairs > 0, sumIf(cells.gained, by = 'day') / pairs, NULL) AS difference,
            sumIf(cells.across, by = 'day') AS across,
            arrayMap(
                kind -> arrayFilter(g -> g.1 = kind, groupArray((by, cells.cases, cells.total, cells.pairs, cells.gained))),
                ['stock', 'day', 'both']) AS clustered
        FROM cells
        GROUP BY account, condition, horizon
    ),
    spreads AS
    (
        SELECT
            *,
            arrayMap(
                g -> (arrayCount(c -> c.2 > 0, g), arraySum(c -> pow(c.3 - c.2 * assumeNotNull(mean), 2), g)),
                clustered) AS spread,
            arrayMap(
                g -> (arrayCount(c -> c.4 > 0, g), arraySum(c -> pow(c.5 - c.4 * assumeNotNull(difference), 2), g)),
                clustered) AS spread_difference
        FROM sums
    ),
    errors AS
    (
        SELECT
            *,
            arrayMap(g -> if(g.1 > 1, g.1 / (g.1 - 1) * g.2 / pow(priced, 2), 0), spread) AS v,
            arrayMap(g -> if(g.1 > 1, g.1 / (g.1 - 1) * g.2 / pow(pairs, 2), 0), spread_difference) AS w,
            least(spread[1].1, spread[2].1) AS clusters,
            least(spread_difference[1].1, spread_difference[2].1) AS clusters_difference,
            sqrt(greatest(v[1] + v[2] - v[3], v[1], v[2])) AS error,
            sqrt(greatest(w[1] + w[2] - w[3], w[1], w[2])) AS error_difference,
            [12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911851, 2.364624252, 2.306004135,
                2.262157163, 2.228138852, 2.200985160, 2.178812830, 2.160368656, 2.144786688, 2.131449546, 2.119905299,
                2.109815578, 2.100922040, 2.093024054, 2.085963447] AS quantiles,
            arrayMap(
                k -> multiIf(k < 2, NULL, k <= 21, quantiles[k - 1],
                    1.959963985 + 2.372271230 / (k - 1) + 2.822501370 / pow(k - 1, 2) + 2.555854770 / pow(k - 1, 3)),
                [clusters, clusters_difference]) AS t
        FROM spreads
    ),
    holes AS
    (
        SELECT account, condition, toUInt64(count()) AS gaps
        FROM gaps FINAL
        WHERE date BETWEEN {from_date:Date} - 14 AND {to_date:Date}
            AND to_at >= toDateTime64({from_date:Date}, 6, 'Asia/Seoul')
        GROUP BY account, condition
    )
SELECT
    e.account AS account,
    e.condition AS condition,
    horizon,
    hits,
    priced,
    mean,
    if(priced > 0, toNullable(quartiles[2]), NULL) AS median,
    if(priced > 0, toNullable(quartiles[1]), NULL) AS q1,
    if(priced > 0, toNullable(quartiles[3]), NULL) AS q3,
    if(priced > 0, above / priced, NULL) AS positive,
    mean - t[1] * error AS low,
    mean + t[1] * error AS high,
    sample_mean,
    compared AS sample_cases,
    difference,
    difference - t[2] * error_difference AS difference_low,
    difference + t[2] * error_difference AS difference_high,
    ifNull(g.gaps, 0) AS gaps,
    spread[1].1 AS stocks,
    spread[2].1 AS days,
    across AS across_gap
FROM errors AS e
LEFT JOIN holes AS g ON g.account = e.account AND g.condition = e.condition
ORDER BY account, condition, indexOf(['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'], horizon)
SETTINGS join_use_nulls = 0
COMMENT 'condition_performance out of hit_returns: the same figures of the days that were filled, as of then';
