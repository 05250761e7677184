-- Which of my conditions is worth following: parametrised views, for any client of ClickHouse 24.8 or later.
--
-- docs/analytics.md says what each figure means and which choices are in it. Three rules hold throughout:
--   A hit is what was seen as it happened: entered, in realtime, not of the day's first snapshot.
--   A price counts where it was known. The reference of a hit is the first trade known after `received_at`; a return
--   takes the last price known at its time (ASOF), never a later one. Without one it is NULL and counted, not guessed.
--   Copies of a row that were not merged yet are one: FINAL everywhere.
--
-- Dates are parameters of the innermost reads, where they are the first column of the sorting key. Columns of the right
-- side of a join are made Nullable where they are read, so that `join_use_nulls` of whoever asks changes nothing.

CREATE OR REPLACE VIEW stock_prices AS
SELECT date, code, exchange, received_at AS at, 'quote' AS source, price, high, low
FROM quotes FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
UNION ALL
SELECT
    date,
    code,
    toLowCardinality('KRX') AS exchange,
    point.1 AS at,
    point.2 AS source,
    point.3 AS price,
    point.4 AS high,
    point.5 AS low
FROM bars FINAL
ARRAY JOIN
    [
        (toTimeZone(bars.at, 'UTC'), 'open', open, open, open),
        (toTimeZone(bars.at, 'UTC') + INTERVAL 1 MINUTE, 'close', close, bars.high, bars.low)
    ] AS point
WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date}
COMMENT 'Every known price of a stock and when it was known: quotes, and of minute bars the open and the close';

-- A stock stands for a minute with the first bar that begins in it or after it; the measures are those of a hit.
CREATE OR REPLACE VIEW sample_returns AS
WITH
    sampled AS
    (
        SELECT date, code, intDiv(toUnixTimestamp(at), 60) AS minute, open, high, low, close
        FROM bars FINAL
        WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND sample
            AND at <= toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE
    ),
    daily AS
    (
        SELECT date, code, toNullable(open) AS open, toNullable(close) AS close
        FROM bars FINAL
        WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14
    ),
    days AS
    (
        SELECT date, arrayFirst(day -> day > date, market) AS next_date
        FROM (SELECT DISTINCT date FROM bars WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date}) AS d
        CROSS JOIN
        (
            SELECT arraySort(groupUniqArray(date)) AS market
            FROM bars
            WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14
        ) AS m
    ),
    ahead AS
    (
        SELECT
            date,
            code,
            minute,
            open,
            intDiv(toUnixTimestamp(toDateTime(date, 'Asia/Seoul')), 60) + 930 AS closes,
            lagInFrame(minute, 1, toUInt32(closes - 391)) OVER (PARTITION BY date, code ORDER BY minute ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before,
            close AS after_1m,
            last_value(close) OVER (PARTITION BY date, code ORDER BY minute RANGE BETWEEN CURRENT ROW AND 4 FOLLOWING) AS after_5m,
            last_value(close) OVER (PARTITION BY date, code ORDER BY minute RANGE BETWEEN CURRENT ROW AND 29 FOLLOWING) AS after_30m,
            last_value(close) OVER (PARTITION BY date, code ORDER BY minute ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS last_close,
            max(high) OVER (PARTITION BY date, code ORDER BY minute ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS best,
            min(low) OVER (PARTITION BY date, code ORDER BY minute ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS worst
        FROM sampled
    )
SELECT
    a.date AS date,
    a.code AS code,
    toDateTime(arrayJoin(range(toUInt32(least(a.before + 1, a.minute)), toUInt32(a.minute + 1))) * 60, 'Asia/Seoul') AS minute,
    horizon,
    (price / a.open - 1) * 100 AS return
FROM ahead AS a
LEFT JOIN daily AS d ON d.date = a.date AND d.code = a.code
LEFT JOIN days AS n ON n.date = a.date
LEFT JOIN daily AS f ON f.date = n.next_date AND f.code = a.code
ARRAY JOIN
    ['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'] AS horizon,
    [
        if(a.minute + 1 <= a.closes, toNullable(a.after_1m), NULL),
        if(a.minute + 5 <= a.closes, toNullable(a.after_5m), NULL),
        if(a.minute + 30 <= a.closes, toNullable(a.after_30m), NULL),
        if(a.minute < a.closes, coalesce(d.close, a.last_close), NULL),
        f.open,
        if(a.minute < a.closes, toNullable(a.best), NULL),
        if(a.minute < a.closes, toNullable(a.worst), NULL)
    ] AS price
WHERE price IS NOT NULL
COMMENT 'What one would have got of each sampled stock, bought in each minute';

CREATE OR REPLACE VIEW condition_returns AS
WITH
    hits AS
    (
        SELECT account, condition, code, exchange, date, entry, id, at, received_at
        FROM transitions FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered' AND origin = 'realtime' AND NOT initial
    ),
    points AS
    (
        SELECT date, code, arrayJoin(arrayDistinct([exchange, 'AL'])) AS exchange, at, source, price
        FROM stock_prices(from_date = {from_date:Date}, to_date = {to_date:Date})
        WHERE code IN (SELECT code FROM hits)
    ),
    minutes AS
    (
        SELECT
            date,
            code,
            at,
            toNullable(max(high) OVER (PARTITION BY date, code ORDER BY at ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)) AS top,
            toNullable(min(low) OVER (PARTITION BY date, code ORDER BY at ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)) AS bottom
        FROM bars FINAL
        WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM hits)
            AND at <= toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE
    ),
    daily AS
    (
        SELECT date, code, toNullable(open) AS open, toNullable(close) AS close
        FROM bars FINAL
        WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14 AND code IN (SELECT code FROM hits)
    ),
    days AS
    (
        SELECT date, arrayFirst(day -> day > date, market) AS next_date
        FROM (SELECT DISTINCT date FROM hits) AS d
        CROSS JOIN
        (
            SELECT arraySort(groupUniqArray(date)) AS market
            FROM bars
            WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14
        ) AS m
    ),
    holes AS
    (
        SELECT account, condition, groupArray((from_at, to_at)) AS spans
        FROM gaps FINAL
        WHERE date BETWEEN {from_date:Date} - 14 AND {to_date:Date}
        GROUP BY account, condition
    ),
    referred AS
    (
        SELECT
            h.account AS account,
            h.condition AS condition,
            h.code AS code,
            h.exchange AS exchange,
            h.date AS date,
            h.entry AS entry,
            h.id AS id,
            h.at AS at,
            h.received_at AS received_at,
            ifNull(b.listed, 0) AND h.exchange != 'NXT' AS complete,
            ifNull(p.found, 0) AND (complete OR p.at < h.received_at + INTERVAL 1 MINUTE) AS known,
            if(known, p.at, toDateTime64(0, 6, 'UTC')) AS bought_at,
            if(known, toNullable(p.price), NULL) AS reference,
            if(known, p.source, '') AS source
        FROM hits AS h
        ASOF LEFT JOIN
        (
            SELECT date, code, exchange, at, source, price, toNullable(1) AS found FROM points WHERE source != 'close'
        ) AS p ON h.date = p.date AND h.code = p.code AND h.exchange = p.exchange AND h.received_at < p.at
        LEFT JOIN (SELECT DISTINCT date, code, toNullable(1) AS listed FROM minutes) AS b
            ON b.date = h.date AND b.code = h.code
    ),
    settled AS
    (
        SELECT
            r.account AS account,
            r.condition AS condition,
            r.code AS code,
            r.exchange AS exchange,
            r.date AS date,
            r.entry AS entry,
            r.id AS id,
            r.at AS at,
            r.received_at AS received_at,
            r.complete AS complete,
            r.known AS known,
            r.bought_at AS bought_at,
            r.reference AS reference,
            r.source AS source,
            s.top AS top,
            s.bottom AS bottom,
            d.close AS close,
            f.open AS next_open
        FROM referred AS r
        ASOF LEFT JOIN minutes AS s ON r.date = s.date AND r.code = s.code AND r.bought_at <= s.at
        LEFT JOIN daily AS d ON d.date = r.date AND d.code = r.code
        LEFT JOIN days AS n ON n.date = r.date
        LEFT JOIN daily AS f ON f.date = n.next_date AND f.code = r.code
    ),
    wanted AS
    (
        SELECT
            r.*,
            horizon,
            toTimeZone(toDateTime64(r.date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE, 'UTC') AS settles,
            toTimeZone(toDateTime64(r.date, 6, 'Asia/Seoul') + toIntervalMinute(if(r.exchange = 'KRX', 930, 1200)), 'UTC') AS closes,
            multiIf(
                horizon = '1m', r.bought_at + INTERVAL 1 MINUTE,
                horizon = '5m', r.bought_at + INTERVAL 5 MINUTE,
                horizon = '30m', r.bought_at + INTERVAL 30 MINUTE,
                settles + INTERVAL 1 MINUTE) AS until
        FROM settled AS r
        ARRAY JOIN ['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'] AS horizon
    ),
    valued AS
    (
        SELECT
            w.account AS account,
            w.condition AS condition,
            w.code AS code,
            w.exchange AS exchange,
            w.date AS date,
            w.entry AS entry,
            w.id AS id,
            w.at AS at,
            w.received_at AS received_at,
            w.complete AS complete,
            w.known AS known,
            w.bought_at AS bought_at,
            w.reference AS reference,
            w.source AS source,
            w.horizon AS horizon,
            w.until AS until,
            ifNull(c.found, 0) AND c.at >= w.bought_at AS traded,
            if(traded, c.at, w.bought_at) AS last_at,
            if(traded, toNullable(c.price), w.reference) AS last,
            w.complete OR last_at > w.until - INTERVAL 1 MINUTE AS fresh,
            w.bought_at < w.settles AS held,
            toDateTime(intDiv(toUnixTimestamp64Micro(w.bought_at) + 59999999, 60000000) * 60, 'Asia/Seoul') AS minute,
            multiIf(
                w.reference IS NULL, NULL,
                w.horizon IN ('1m', '5m', '30m'), if(w.until <= w.closes AND fresh, last, NULL),
                w.horizon = 'next_open', w.next_open,
                NOT held, NULL,
                w.horizon = 'close', coalesce(w.close, if(fresh, last, NULL)),
                NOT w.complete, NULL,
                w.horizon = 'best', greatest(coalesce(w.top, w.reference), w.reference),
                least(coalesce(w.bottom, w.reference), w.reference)) AS value
        FROM wanted AS w
        ASOF LEFT JOIN
        (
            SELECT date, code, exchange, at, price, toNullable(1) AS found FROM points WHERE source != 'open'
        ) AS c ON w.date = c.date AND w.code = c.code AND w.exchange = c.exchange AND w.until >= c.at
    ),
    market AS
    (
        SELECT minute, horizon, sum(return) AS total, count() AS cases
        FROM sample_returns(from_date = {from_date:Date}, to_date = {to_date:Date})
        GROUP BY minute, horizon
    ),
    own AS
    (
        SELECT minute, horizon, code, toNullable(return) AS return
        FROM sample_returns(from_date = {from_date:Date}, to_date = {to_date:Date})
        WHERE code IN (SELECT code FROM hits)
    )
SELECT
    v.account AS account,
    v.condition AS condition,
    v.code AS code,
    v.exchange AS exchange,
    v.date AS date,
    v.entry AS entry,
    v.id AS id,
    v.at AS at,
    v.received_at AS received_at,
    v.reference AS reference,
    if(v.known, toNullable(v.bought_at), NULL) AS reference_at,
    v.source AS source,
    v.complete AS complete,
    v.horizon AS horizon,
    v.value AS price,
    (price / reference - 1) * 100 - {cost:Float64} AS return,
    toUInt64(ifNull(m.cases, 0)) - (o.return IS NOT NULL) AS sample_cases,
    if(sample_cases > 0, (ifNull(m.total, 0) - ifNull(o.return, 0)) / sample_cases - {cost:Float64}, NULL) AS sample_return,
    arrayExists(span -> span.1 < v.until AND span.2 > v.received_at, g.spans) AS across_gap
FROM valued AS v
LEFT JOIN market AS m
    ON m.minute = v.minute AND m.horizon = v.horizon
LEFT JOIN own AS o
    ON o.minute = v.minute AND o.horizon = v.horizon AND o.code = v.code
LEFT JOIN holes AS g ON g.account = v.account AND g.condition = v.condition
COMMENT 'Each hit with each return: what it was, what the sampled stocks did meanwhile, whether a gap lies across it';

-- The interval is two-way cluster-robust (Cameron, Gelbach and Miller 2011): the variance of the mean between stocks,
-- plus that between days, less that between stocks within days, each with the correction G / (G - 1); where that is not
-- positive, the greater of the first two. The quantile is Student's t with one degree of freedom less than the fewer of
-- stocks and days. One day, or one stock, gives no interval.
CREATE OR REPLACE VIEW condition_performance_by AS
WITH
    company AS
    (
        SELECT id, arraySort(arrayFilter(other -> other != condition, near)) AS others
        FROM
        (
            SELECT
                id,
                condition,
                groupUniqArray(condition) OVER (
                    PARTITION BY account, date, code ORDER BY toUnixTimestamp64Micro(received_at)
                    RANGE BETWEEN {within:UInt32} * 60000000 PRECEDING AND CURRENT ROW) AS near
            FROM transitions FINAL
            WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered' AND origin = 'realtime'
                AND NOT initial AND {split:String} = 'confluence'
        )
    ),
    cells AS
    (
        SELECT
            r.account AS account,
            r.condition AS condition,
            r.horizon AS horizon,
            part,
            r.code AS code,
            r.date AS date,
            count() AS hits,
            count(r.return) AS cases,
            ifNull(sum(r.return), 0) AS total,
            groupArray(r.return) AS returns,
            countIf(ifNull(r.return > 0, 0)) AS above,
            sumIf(r.sample_cases, r.return IS NOT NULL) AS compared,
            count(r.return - r.sample_return) AS pairs,
            ifNull(sumIf(r.sample_return, r.return IS NOT NULL), 0) AS sample_total,
            ifNull(sum(r.return - r.sample_return), 0) AS gained,
            countIf(r.across_gap AND r.return IS NOT NULL) AS across
        FROM condition_returns(from_date = {from_date:Date}, to_date = {to_date:Date}, cost = {cost:Float64}) AS r
        LEFT JOIN company AS o ON o.id = r.id
        ARRAY JOIN multiIf(
            {split:String} = 'all', [''],
            {split:String} = 'time', [formatDateTime(toStartOfInterval(r.at, INTERVAL 30 MINUTE), '%H:%i')],
            {split:String} = 'visit', [if(r.entry = 1, 'first', 're-entry')],
            {split:String} = 'confluence',
                if(empty(o.others), ['alone'], arrayMap(other -> concat('+ ', other), o.others)),
            [toString(throwIf({split:String} NOT IN ('all', 'time', 'visit', 'confluence'),
                'split is one of all, time, visit, confluence'))]) AS part
        GROUP BY account, condition, horizon, part, code, date
    ),
    sums AS
    (
        SELECT
            account,
            condition,
            horizon,
            part,
            sum(cells.hits) AS hits,
            sum(cells.cases) AS priced,
            if(priced > 0, sum(cells.total) / priced, NULL) AS mean,
            quantilesExactInclusiveArray(0.25, 0.5, 0.75)(cells.returns) AS quartiles,
            sum(cells.above) AS above,
            sum(cells.compared) AS compared,
            sum(cells.pairs) AS pairs,
            if(pairs > 0, sum(cells.sample_total) / pairs, NULL) AS sample_mean,
            if(pairs > 0, sum(cells.gained) / pairs, NULL) AS difference,
            sum(cells.across) AS across,
            sumMap([code], [cells.cases], [cells.total], [cells.pairs], [cells.gained]) AS by_stock,
            sumMap([date], [cells.cases], [cells.total], [cells.pairs], [cells.gained]) AS by_day,
            groupArray(cells.cases) AS cell_cases,
            groupArray(cells.total) AS cell_total,
            groupArray(cells.pairs) AS cell_pairs,
            groupArray(cells.gained) AS cell_gained
        FROM cells
        GROUP BY account, condition, horizon, part
    ),
    spreads AS
    (
        SELECT
            *,
            arrayMap(
                g -> (arrayCount(n -> n > 0, g.1), arraySum((n, s) -> pow(s - n * assumeNotNull(mean), 2), g.1, g.2)),
                [(by_stock.2, by_stock.3), (by_day.2, by_day.3), (cell_cases, cell_total)]) AS spread,
            arrayMap(
                g -> (arrayCount(n -> n > 0, g.1), arraySum((n, s) -> pow(s - n * assumeNotNull(difference), 2), g.1, g.2)),
                [(by_stock.4, by_stock.5), (by_day.4, by_day.5), (cell_pairs, cell_gained)]) AS spread_difference
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
            sqrt(if(v[1] + v[2] > v[3], v[1] + v[2] - v[3], greatest(v[1], v[2]))) AS error,
            sqrt(if(w[1] + w[2] > w[3], w[1] + w[2] - w[3], greatest(w[1], w[2]))) AS error_difference,
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
    part,
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
ORDER BY account, condition, part, indexOf(['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'], horizon)
COMMENT 'How the hits of each condition fared against the sample, split by time of day, visit or confluence';

CREATE OR REPLACE VIEW condition_performance AS
SELECT * EXCEPT part
FROM condition_performance_by(
    from_date = {from_date:Date}, to_date = {to_date:Date}, cost = {cost:Float64}, split = 'all', within = 0)
COMMENT 'How the hits of each condition fared, against the sampled stocks at the same times';

-- A pair counts once for each stock and day that both hit, by their first hits.
CREATE OR REPLACE VIEW condition_overlap AS
WITH
    firsts AS
    (
        SELECT account, date, code, condition, min(received_at) AS hit_at
        FROM transitions FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered' AND origin = 'realtime' AND NOT initial
        GROUP BY account, date, code, condition
    ),
    met AS
    (
        SELECT account, condition, hit_at, arrayJoin(groupArray((condition, hit_at)) OVER (PARTITION BY account, date, code)) AS other
        FROM firsts
    ),
    totals AS (SELECT account, condition, count() AS stocks FROM firsts GROUP BY account, condition)
SELECT
    m.account AS account,
    m.condition AS condition,
    m.other.1 AS other,
    any(t.stocks) AS stocks,
    count() AS both,
    both / stocks AS share,
    countIf(m.hit_at < m.other.2) AS first,
    countIf(m.hit_at > m.other.2) AS second,
    countIf(abs(dateDiff('microsecond', m.hit_at, m.other.2)) <= {within:UInt32} * 60000000) AS near,
    quantileExactInclusive(0.5)(dateDiff('microsecond', m.hit_at, m.other.2) / 1e6) AS median_lead
FROM met AS m
LEFT JOIN totals AS t ON t.account = m.account AND t.condition = m.condition
WHERE m.condition != m.other.1
GROUP BY account, condition, other
ORDER BY account, condition, both DESC, other
COMMENT 'Which conditions hit the same stock on the same day, and which came first';

-- Who stayed until the day's end stayed longer than was seen, so a quantile below the share of those is right all the same.
CREATE OR REPLACE VIEW condition_dwell AS
SELECT
    account,
    condition,
    count() AS visits,
    countIf(origin = 'realtime') AS seen,
    countIf(origin = 'snapshot') AS inferred,
    countIf(origin = 'day-end') AS stayed,
    countIf(dwell < 60 AND origin != 'day-end') / visits AS under_a_minute,
    quantileExactInclusive(0.25)(assumeNotNull(dwell)) AS q1,
    quantileExactInclusive(0.5)(assumeNotNull(dwell)) AS median,
    quantileExactInclusive(0.75)(assumeNotNull(dwell)) AS q3
FROM transitions FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'exited' AND dwell IS NOT NULL
GROUP BY account, condition
ORDER BY account, condition
COMMENT 'How long stocks stay in a condition, in seconds';

CREATE OR REPLACE VIEW condition_activity AS
SELECT
    account,
    condition,
    date,
    toStartOfMinute(at) AS minute,
    countIf(kind = 'entered' AND origin = 'realtime' AND NOT initial) AS hits,
    countIf(kind = 'entered' AND (origin = 'snapshot' OR initial)) AS revealed,
    countIf(kind = 'exited' AND origin = 'realtime') AS exits
FROM transitions FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND origin != 'day-end'
GROUP BY account, condition, date, minute
ORDER BY account, condition, minute
COMMENT 'Hits and exits of each condition per minute (KST)';

CREATE OR REPLACE VIEW recommendation_performance AS
WITH
    openings AS
    (
        SELECT
            date,
            account,
            code,
            recommendation_id,
            min(opened_at) AS opened,
            min(recommendations.received_at) AS known_since,
            argMax(state, revision) AS state,
            argMax(cause, revision) AS cause,
            argMax(at, revision) AS changed_at,
            max(score) AS score,
            arraySort(groupUniqArrayArray(arrayMap(r -> if(r.condition != '', r.condition, toLowCardinality('manual')), reasons))) AS conditions
        FROM recommendations FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
        GROUP BY date, account, code, recommendation_id
    ),
    points AS
    (
        SELECT date, code, at, source, price, high, low
        FROM stock_prices(from_date = {from_date:Date}, to_date = {to_date:Date})
        WHERE code IN (SELECT code FROM openings)
    ),
    referred AS
    (
        SELECT
            o.date AS date,
            o.account AS account,
            o.code AS code,
            o.recommendation_id AS recommendation_id,
            o.opened AS opened,
            o.state AS state,
            o.cause AS cause,
            o.changed_at AS changed_at,
            o.score AS score,
            o.conditions AS conditions,
            ifNull(b.listed, 0) AS complete,
            ifNull(p.found, 0) AND (complete OR p.at < o.known_since + INTERVAL 1 MINUTE) AS known,
            if(known, p.at, toDateTime64(0, 6, 'UTC')) AS bought_at,
            if(known, toNullable(p.price), NULL) AS reference,
            if(known, p.source, '') AS source
        FROM openings AS o
        ASOF LEFT JOIN (SELECT date, code, at, source, price, toNullable(1) AS found FROM points WHERE source != 'close') AS p
            ON o.date = p.date AND o.code = p.code AND o.known_since < p.at
        LEFT JOIN (SELECT DISTINCT date, code, toNullable(1) AS listed FROM points WHERE source = 'close') AS b
            ON b.date = o.date AND b.code = o.code
    ),
    since AS
    (
        SELECT
            r.recommendation_id AS recommendation_id,
            r.date AS date,
            max((p.high, -toUnixTimestamp64Micro(p.began))) AS best,
            min((p.low, toUnixTimestamp64Micro(p.began))) AS worst,
            max((toUnixTimestamp64Micro(p.at), p.price)) AS last
        FROM referred AS r
        INNER JOIN
        (
            SELECT date, code, at, if(source = 'close', at - INTERVAL 1 MINUTE, at) AS began, source, price, high, low
            FROM points
            WHERE source != 'open'
        ) AS p ON p.date = r.date AND p.code = r.code
        WHERE r.known AND if(p.source = 'close', p.began >= r.bought_at, p.began > r.bought_at)
        GROUP BY recommendation_id, date
    ),
    daily AS
    (
        SELECT date, code, toNullable(close) AS close
        FROM bars FINAL
        WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM openings)
    ),
    holes AS
    (
        SELECT account, groupArray((from_at, to_at, condition)) AS spans
        FROM gaps FINAL
        WHERE date BETWEEN {from_date:Date} - 14 AND {to_date:Date}
        GROUP BY account
    )
SELECT
    r.account AS account,
    r.date AS date,
    r.code AS code,
    n.name AS name,
    r.recommendation_id AS recommendation_id,
    r.conditions AS conditions,
    r.score AS score,
    r.opened AS opened_at,
    r.state AS state,
    r.cause AS cause,
    if(r.state = 'closed', toNullable(r.changed_at), NULL) AS closed_at,
    r.reference AS reference,
    if(r.known, toNullable(r.bought_at), NULL) AS reference_at,
    r.source AS source,
    if(r.known, coalesce(d.close, if(s.last.1 > 0, toNullable(s.last.2), NULL), r.reference), NULL) AS price,
    if(r.known, d.close IS NOT NULL, false) AS is_close,
    (price / r.reference - 1) * 100 - {cost:Float64} AS return,
    if(r.known, greatest(if(s.last.1 > 0, s.best.1, 0), r.reference), NULL) AS best_price,
    (best_price / r.reference - 1) * 100 - {cost:Float64} AS best,
    if(r.known, if(best_price > r.reference, (-s.best.2 - toUnixTimestamp64Micro(r.bought_at)) / 6e7, 0), NULL) AS minutes_to_best,
    if(r.known, if(s.last.1 > 0, least(s.worst.1, r.reference), r.reference), NULL) AS worst_price,
    (worst_price / r.reference - 1) * 100 - {cost:Float64} AS worst,
    if(r.known, if(worst_price < r.reference, (s.worst.2 - toUnixTimestamp64Micro(r.bought_at)) / 6e7, 0), NULL) AS minutes_to_worst,
    r.complete AS complete,
    toUInt64(arrayCount(span -> toDate(span.1, 'Asia/Seoul') <= r.date AND span.2 > r.opened
        AND has(r.conditions, span.3), g.spans)) AS gaps
FROM referred AS r
LEFT JOIN since AS s ON s.recommendation_id = r.recommendation_id AND s.date = r.date
LEFT JOIN daily AS d ON d.date = r.date AND d.code = r.code
LEFT JOIN holes AS g ON g.account = r.account
LEFT JOIN (SELECT code, name FROM stocks FINAL) AS n ON n.code = r.code
ORDER BY date, opened_at, code
COMMENT 'How each recommendation fared: reference, price now or at the close, best and worst since';

CREATE OR REPLACE VIEW data_quality AS
WITH
    heard AS
    (
        SELECT
            date,
            account,
            condition,
            countIf(kind = 'entered' AND origin = 'realtime' AND NOT transitions.initial) AS hits,
            countIf(kind = 'entered' AND transitions.initial) AS standing,
            countIf(kind = 'entered' AND origin = 'snapshot' AND NOT transitions.initial) AS revealed,
            countIf(kind = 'exited' AND origin = 'snapshot') AS inferred_exits
        FROM transitions FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
        GROUP BY date, account, condition
    ),
    holes AS
    (
        SELECT
            date,
            account,
            condition,
            count() AS gaps,
            sum(dateDiff('microsecond', from_at, to_at)) / 1e6 AS gap_seconds,
            arraySort(groupUniqArray(cause)) AS causes
        FROM gaps FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
        GROUP BY date, account, condition
    ),
    states AS
    (
        SELECT
            date,
            account,
            condition,
            sumIf(dateDiff('microsecond', since, statuses.at), state NOT IN ('live', 'quiet', 'resting', 'retired')) / 1e6 AS not_live_seconds,
            arraySort(groupUniqArrayIf(state, state NOT IN ('live', 'quiet', 'resting', 'retired'))) AS troubles
        FROM statuses FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'subscription'
        GROUP BY date, account, condition
    ),
    prices AS
    (
        SELECT
            date,
            account,
            condition,
            countIf(reference IS NULL) AS without_price,
            countIf(complete = 0) AS without_bars
        FROM condition_returns(from_date = {from_date:Date}, to_date = {to_date:Date}, cost = 0)
        WHERE horizon = '1m'
        GROUP BY date, account, condition
    ),
    samples AS
    (
        SELECT date, uniqExact(code) AS sampled
        FROM bars FINAL
        WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND sample
        GROUP BY date
    ),
    keys AS
    (
        SELECT date, account, condition FROM heard
        UNION DISTINCT
        SELECT date, account, condition FROM holes
        UNION DISTINCT
        SELECT date, account, condition FROM states
    )
SELECT
    k.date AS date,
    k.account AS account,
    k.condition AS condition,
    ifNull(h.hits, 0) AS hits,
    ifNull(h.revealed, 0) AS revealed,
    ifNull(h.standing, 0) AS standing,
    ifNull(h.inferred_exits, 0) AS inferred_exits,
    ifNull(g.gaps, 0) AS gaps,
    ifNull(g.gap_seconds, 0) AS gap_seconds,
    g.causes AS causes,
    ifNull(s.not_live_seconds, 0) AS not_live_seconds,
    s.troubles AS troubles,
    ifNull(p.without_price, 0) AS without_price,
    ifNull(p.without_bars, 0) AS without_bars,
    ifNull(n.sampled, 0) AS sample_stocks,
    arrayFilter(word -> word != '', [
        if(gaps > 0, 'gaps', ''),
        if(revealed > 0 OR inferred_exits > 0, 'unseen', ''),
        if(not_live_seconds > 0, 'subscription', ''),
        if(without_price > 0, 'prices', ''),
        if(without_bars > 0, 'bars', ''),
        if(sample_stocks = 0, 'sample', '')]) AS lacks
FROM keys AS k
LEFT JOIN heard AS h ON h.date = k.date AND h.account = k.account AND h.condition = k.condition
LEFT JOIN holes AS g ON g.date = k.date AND g.account = k.account AND g.condition = k.condition
LEFT JOIN states AS s ON s.date = k.date AND s.account = k.account AND s.condition = k.condition
LEFT JOIN prices AS p ON p.date = k.date AND p.account = k.account AND p.condition = k.condition
LEFT JOIN samples AS n ON n.date = k.date
ORDER BY date, account, condition
COMMENT 'What each day lacks, for each condition';
