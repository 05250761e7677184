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

-- From `errors` on this is `condition_performance`, word for word; before that it comes to the same figures by a shorter way
-- (a test compares both). Figures stay in arrays by horizon until there is one row for each condition: `counts` are how many
-- hits have a return and then how many have one to compare, `sums` what these returns and differences sum up to. The spread
-- of clusters about the mean, sum((t - n * mean)^2), is taken from the sums of t^2, n * t and n^2, which need no mean; what
-- rounding leaves of a spread of nothing is cut off.
CREATE OR REPLACE VIEW condition_performance_stored AS
WITH
    kept AS
    (
        SELECT
            account,
            condition,
            code,
            date,
            returns,
            sample_returns,
            sample_cases,
            across_gap,
            arrayConcat(
                arrayMap(gross -> gross IS NOT NULL, returns),
                arrayMap((gross, sampled) -> (gross - sampled) IS NOT NULL, returns, sample_returns)) AS counts,
            arrayConcat(
                arrayMap(gross -> ifNull(gross - {cost:Float64}, 0), returns),
                arrayMap((gross, sampled) -> ifNull(gross - sampled, 0), returns, sample_returns)) AS sums
        FROM hit_returns
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND entry > 0
            AND (date, filled_at) IN (
                SELECT date, max(filled_at) FROM hit_returns
                WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND account = '' AND entry = 0
                GROUP BY date)
    ),
    totals AS
    (
        SELECT
            account,
            condition,
            count() AS hits,
            quantilesExactInclusiveForEach(0.25, 0.5, 0.75)(returns) AS quartiles,
            sumForEach(arrayMap(gross -> ifNull(gross > {cost:Float64}, 0), returns)) AS above,
            sumForEach(arrayMap((cases, gross) -> if(gross IS NULL, 0, cases), sample_cases, returns)) AS compared,
            sumForEach(arrayMap((sampled, gross) -> if(gross IS NULL, 0, ifNull(sampled - {cost:Float64}, 0)),
                sample_returns, returns)) AS sample_total,
            sumForEach(arrayMap((across, gross) -> across AND gross IS NOT NULL, across_gap, returns)) AS across
        FROM kept
        GROUP BY account, condition
    ),
    clusters AS
    (
        SELECT
            account,
            condition,
            multiIf(code = '', 2, date = toDate(0), 1, 3) AS by,
            sumForEach(kept.counts) AS counts,
            sumForEach(kept.sums) AS sums
        FROM kept
        GROUP BY GROUPING SETS ((account, condition, code, date), (account, condition, code), (account, condition, date))
    ),
    squares AS
    (
        SELECT
            account,
            condition,
            by,
            sumForEach(arrayMap(n -> n > 0, clusters.counts)) AS number,
            sumForEach(arrayMap(n -> n * n, clusters.counts)) AS nn,
            sumForEach(arrayMap((n, t) -> n * t, clusters.counts, clusters.sums)) AS nt,
            sumForEach(arrayMap(t -> t * t, clusters.sums)) AS tt,
            sumForEach(clusters.counts) AS counts,
            sumForEach(clusters.sums) AS sums
        FROM clusters
        GROUP BY account, condition, by
    ),
    spreads AS
    (
        SELECT
            account,
            condition,
            horizon,
            t.hits AS hits,
            s.counts[h] AS priced,
            if(priced > 0, s.sums[h] / priced, NULL) AS mean,
            arrayMap(quartile -> quartile - {cost:Float64}, t.quartiles[h]) AS quartiles,
            t.above[h] AS above,
            t.compared[h] AS compared,
            s.counts[7 + h] AS pairs,
            if(pairs > 0, t.sample_total[h] / pairs, NULL) AS sample_mean,
            if(pairs > 0, s.sums[7 + h] / pairs, NULL) AS difference,
            t.across[h] AS across,
            arrayMap(
                (k, m) -> arrayMap(
                    (g, s) -> (g.2[k], if(s > 1e-12 * g.5[k], s, 0)),
                    clustered,
                    arrayMap(g -> g.5[k] - 2 * m * g.4[k] + m * m * g.3[k], clustered)),
                [h, 7 + h],
                [assumeNotNull(mean), assumeNotNull(difference)]) AS both,
            both[1] AS spread,
            both[2] AS spread_difference
        FROM totals AS t
        INNER JOIN
        (
            SELECT
                account,
                condition,
                arraySort(groupArray((by, number, nn, nt, tt))) AS clustered,
                anyIf(squares.counts, by = 2) AS counts,
                anyIf(squares.sums, by = 2) AS sums
            FROM squares
            GROUP BY account, condition
        ) AS s ON s.account = t.account AND s.condition = t.condition
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
COMMENT 'condition_performance out of hit_returns: the same figures of the days that were filled, as of then';

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
        countIf(reference IS NULL) AS without_price,
        countIf(complete = 0) AS without_bars
    FROM hit_returns
    WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND entry > 0
        AND (date, filled_at) IN (
            SELECT date, max(filled_at) FROM hit_returns
            WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND account = '' AND entry = 0
            GROUP BY date)
    GROUP BY date, account, condition
) AS p ON p.date = h.date AND p.account = h.account AND p.condition = h.condition
ORDER BY date, account, condition
SETTINGS join_use_nulls = 0
COMMENT 'data_quality out of hit_returns: the same of the days that were filled, as of then';
