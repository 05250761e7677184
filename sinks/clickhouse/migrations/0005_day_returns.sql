-- What became of the hits, kept by day, so that it need not be worked out again each time that somebody asks.
--
-- `sinks.clickhouse.returns` fills a day with what `condition_returns` says of it, in one insert, and again whenever the
-- day gained something since. A fill is told from others by `filled_at`; the last one of a day counts, and rows of those
-- before go when ClickHouse merges. Each has a row of no condition, by which a day without hits is known as filled.
-- Costs are not in it: they are taken off by whoever asks.
--
-- One row is a condition's day: its hits in arrays, and what they add up to, so that a month is some hundred rows. Arrays
-- "by measure" are the returns by horizon and then the differences from the sample by horizon. A cell is a stock's day.

CREATE TABLE IF NOT EXISTS day_returns
(
    date           Date COMMENT 'Trading date (KST)',
    account        LowCardinality(String) COMMENT 'Empty in the row of no condition',
    condition      LowCardinality(String) COMMENT 'Empty in the row of no condition',
    codes          Array(LowCardinality(String)) COMMENT 'By hit: stock code, six characters' CODEC(ZSTD(1)),
    entries        Array(UInt32) COMMENT 'By hit: which visit of the day' CODEC(ZSTD(1)),
    references     Array(Nullable(Int64)) COMMENT 'By hit: won; the first trade known after it' CODEC(ZSTD(1)),
    reference_ats  Array(Nullable(DateTime64(6, 'UTC'))) COMMENT 'By hit: when that was known' CODEC(ZSTD(1)),
    completes      Array(Bool) COMMENT 'By hit: whether the day\'s minute bars of the stock were there' CODEC(ZSTD(1)),
    returns        Array(Array(Nullable(Float64))) COMMENT 'By horizon (1m, 5m, 30m, close, next_open, best, worst) and hit: percent' CODEC(ZSTD(1)),
    sample_returns Array(Array(Nullable(Float64))) COMMENT 'By horizon and hit: what the sampled stocks did meanwhile, on average' CODEC(ZSTD(1)),
    sample_cases   Array(Array(Int64)) COMMENT 'By horizon and hit: how many of them' CODEC(ZSTD(1)),
    across_gap     Array(Array(UInt8)) COMMENT 'By horizon and hit: whether a gap lies across it' CODEC(ZSTD(1)),
    compared       Array(Int64) COMMENT 'By horizon: sampled stocks of the hits that have a return' CODEC(ZSTD(1)),
    sample_totals  Array(Float64) COMMENT 'By horizon: the sum of what they did on average' CODEC(ZSTD(1)),
    across         Array(UInt64) COMMENT 'By horizon: hits whose return has a gap across it' CODEC(ZSTD(1)),
    stocks         Array(LowCardinality(String)) COMMENT 'By stock: its code' CODEC(ZSTD(1)),
    stock_figures  Array(Array(Float64)) COMMENT 'By stock: by measure, how many of its hits have it; then by measure, what they sum up to' CODEC(ZSTD(1)),
    counts         Array(UInt64) COMMENT 'By measure: how many hits have it' CODEC(ZSTD(1)),
    sums           Array(Float64) COMMENT 'By measure: what they sum up to' CODEC(ZSTD(1)),
    cells          Array(UInt64) COMMENT 'By measure: how many cells have it' CODEC(ZSTD(1)),
    cells_nn       Array(Float64) COMMENT 'By measure: sum over cells of count squared' CODEC(ZSTD(1)),
    cells_nt       Array(Float64) COMMENT 'By measure: sum over cells of count times sum' CODEC(ZSTD(1)),
    cells_tt       Array(Float64) COMMENT 'By measure: sum over cells of sum squared' CODEC(ZSTD(1)),
    filled_at      DateTime64(6, 'UTC') COMMENT 'When the day was filled' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(filled_at)
PARTITION BY toYYYYMM(date)
ORDER BY (date, account, condition)
COMMENT 'What became of the hits of a condition\'s day, as last worked out';

CREATE OR REPLACE VIEW hit_returns AS
SELECT
    date,
    account,
    condition,
    code,
    entry,
    references[nth] AS reference,
    reference_ats[nth] AS reference_at,
    completes[nth] AS complete,
    arrayMap(of_hits -> of_hits[nth], d.returns) AS returns,
    arrayMap(of_hits -> of_hits[nth], d.sample_returns) AS sample_returns,
    arrayMap(of_hits -> of_hits[nth], d.sample_cases) AS sample_cases,
    arrayMap(of_hits -> of_hits[nth], d.across_gap) AS across_gap,
    filled_at
FROM day_returns AS d
ARRAY JOIN codes AS code, entries AS entry, arrayEnumerate(codes) AS nth
WHERE (date, filled_at) IN (SELECT date, max(filled_at) FROM day_returns WHERE account = '' AND condition = '' GROUP BY date)
COMMENT 'What became of each hit, as last worked out; the arrays are by horizon: 1m, 5m, 30m, close, next_open, best, worst';

-- From `errors` on this is `condition_performance`, word for word; before that it comes to the same figures by a shorter way
-- (a test compares both). Figures stay in arrays until there is one row for each condition. The spread of clusters about the
-- mean, sum((t - n * mean)^2), is taken from the sums of t^2, n * t and n^2, which need no mean; it is the same whatever a
-- hit costs; what rounding leaves of a spread of nothing is cut off. Only the clusters of a stock reach over days: for them
-- conditions and codes are told apart by numbers, which costs half of what words do (two conditions of some hundred share a
-- number of 64 bits less than once in 10^14 databases; the eight bytes of a code are the code).
CREATE OR REPLACE VIEW condition_performance_stored AS
WITH
    kept AS
    (
        SELECT *, cityHash64(account, condition) AS who
        FROM day_returns
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND (account, condition) != ('', '')
            AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
                'from_date and to_date are days: write them as 2026-03-09')) = 0
            AND (date, filled_at) IN (
                SELECT date, max(filled_at) FROM day_returns
                WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND account = '' AND condition = ''
                GROUP BY date)
    ),
    totals AS
    (
        SELECT
            who,
            any(kept.account) AS account,
            any(kept.condition) AS condition,
            sum(length(codes)) AS hits,
            quantilesExactInclusiveArrayForEach(0.25, 0.5, 0.75)(returns) AS quartiles,
            sumForEach(arrayMap(of_hits -> arrayCount(gross -> ifNull(gross > {cost:Float64}, false), of_hits), returns)) AS above,
            sumForEach(kept.compared) AS compared,
            sumForEach(kept.sample_totals) AS sample_total,
            sumForEach(kept.across) AS across,
            sumForEach(kept.counts) AS counts,
            sumForEach(kept.sums) AS sums,
            (sumForEach(arrayMap(n -> n > 0, kept.counts)), sumForEach(arrayMap(n -> toFloat64(n * n), kept.counts)),
                sumForEach(arrayMap((n, t) -> n * t, kept.counts, kept.sums)), sumForEach(arrayMap(t -> t * t, kept.sums))
            ) AS by_day,
            (sumForEach(cells), sumForEach(cells_nn), sumForEach(cells_nt), sumForEach(cells_tt)) AS by_cell
        FROM kept
        GROUP BY who
    ),
    stocks AS
    (
        SELECT
            who,
            (sumForEach(arrayMap(n -> n > 0, ns)), sumForEach(arrayMap(n -> n * n, ns)),
                sumForEach(arrayMap((n, t) -> n * t, ns, ts)), sumForEach(arrayMap(t -> t * t, ts))) AS by_stock
        FROM
        (
            SELECT who, reinterpretAsUInt64(stock) AS code, sumForEach(of_day) AS figures,
                arraySlice(figures, 1, 14) AS ns, arraySlice(figures, 15) AS ts
            FROM kept
            ARRAY JOIN kept.stocks AS stock, stock_figures AS of_day
            GROUP BY who, code
        )
        GROUP BY who
    ),
    spreads AS
    (
        SELECT
            account,
            condition,
            horizon,
            hits,
            t.counts[h] AS priced,
            if(priced > 0, t.sums[h] / priced - {cost:Float64}, NULL) AS mean,
            arrayMap(quartile -> quartile - {cost:Float64}, t.quartiles[h]) AS quartiles,
            t.above[h] AS above,
            t.compared[h] AS compared,
            t.counts[7 + h] AS pairs,
            if(pairs > 0, t.sample_total[h] / pairs - {cost:Float64}, NULL) AS sample_mean,
            if(pairs > 0, t.sums[7 + h] / pairs, NULL) AS difference,
            t.across[h] AS across,
            arrayMap(
                (k, m) -> arrayMap(
                    g -> (g.1[k], g.4[k] - 2 * m * g.3[k] + m * m * g.2[k], 1e-12 * g.4[k]),
                    [s.by_stock, t.by_day, t.by_cell]),
                [h, 7 + h],
                [t.sums[h] / t.counts[h], t.sums[7 + h] / t.counts[7 + h]]) AS both,
            arrayMap(g -> (g.1, if(g.2 > g.3, g.2, 0)), both[1]) AS spread,
            arrayMap(g -> (g.1, if(g.2 > g.3, g.2, 0)), both[2]) AS spread_difference
        FROM totals AS t
        INNER JOIN stocks AS s ON s.who = t.who
        ARRAY JOIN
            ['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'] AS horizon,
            [1, 2, 3, 4, 5, 6, 7] AS h
    ),
    errors AS
    (
        SELECT
            *,
            arrayMap(g -> if(g.1 > 1, g.1 / (g.1 - 1) * g.2 / pow(priced, 2), 0), spread) AS v,
            arrayMap(g -> if(g.1 > 1, g.1 / (g.1 - 1) * g.2 / pow(pairs, 2), 0), spread_difference) AS w,
            least(spread[1].1, spread[2].1) AS clusters,
            least(spread_difference[1].1, spread_difference[2].1) AS clusters_difference,
            sqrt(greatest(v[1] + v[2] - v[3], least(v[1], v[2]))) AS error,
            sqrt(greatest(w[1] + w[2] - w[3], least(w[1], w[2]))) AS error_difference,
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
COMMENT 'condition_performance out of day_returns: the same figures of the days that were filled, as of then';

CREATE OR REPLACE VIEW data_quality_stored AS
SELECT
    h.* EXCEPT sample_stocks,
    ifNull(p.without_price, 0) AS without_price,
    ifNull(p.without_bars, 0) AS without_bars,
    h.sample_stocks AS sample_stocks,
    arrayFilter(word -> word != '', [
        if(gaps > 0, 'gaps', ''),
        if(revealed > 0 OR inferred_exits > 0, 'unseen', ''),
        if(not_live_seconds > 0, 'subscription', ''),
        if(without_price > 0, 'prices', ''),
        if(without_bars > 0, 'bars', ''),
        if(sample_stocks = 0, 'sample', '')]) AS lacks
FROM data_heard(from_date = {from_date:Date}, to_date = {to_date:Date}) AS h
LEFT JOIN
(
    SELECT
        date,
        account,
        condition,
        countEqual(references, NULL) AS without_price,
        countEqual(completes, false) AS without_bars
    FROM day_returns
    WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
        AND (date, filled_at) IN (
            SELECT date, max(filled_at) FROM day_returns
            WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND account = '' AND condition = ''
            GROUP BY date)
) AS p ON p.date = h.date AND p.account = h.account AND p.condition = h.condition
ORDER BY date, account, condition
SETTINGS join_use_nulls = 0
COMMENT 'data_quality out of day_returns: the same of the days that were filled, as of then';
