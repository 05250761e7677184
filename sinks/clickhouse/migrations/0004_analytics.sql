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
-- What is no day, as 2026-13-26, the engine takes for the first one there is, 1970-01-01: that one is refused, in a
-- subquery, which is asked also where there is nothing to read.

CREATE OR REPLACE VIEW stock_prices AS
SELECT date, code, exchange, received_at AS at, 'quote' AS source, price, high, low
FROM quotes FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
    AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
        'from_date and to_date are days: write them as 2026-03-09')) = 0
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
SETTINGS join_use_nulls = 0
COMMENT 'Every known price of a stock and when it was known: quotes, and of minute bars the open and the close';

-- What it reads, in the order of the text: the hits; the trades that they can have been bought at and the prices that were
-- known later; minutes with the best and worst that follow them; what a day ends and the next one begins with; and for
-- each minute what the sampled stocks did from then on (`''`), and for a stock that is hit and sampled, the others.
-- Joins are by number, which is several times faster than by text: `stock` is the code's six characters as an integer,
-- `venue` is `stock * 4` and the exchange (1 KRX, 2 NXT, 3 both). They carry no date: what a join finds is looked at for it.
-- Seven figures are kept as an array in the order of the horizons; only the last step makes rows of them. A sampled stock
-- stands for a minute with its first bar that begins then or later.
CREATE OR REPLACE VIEW condition_returns AS
WITH
    (
        SELECT arraySort(groupUniqArray(date))
        FROM
        (
            SELECT date FROM bars WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14
            UNION ALL
            SELECT date FROM transitions WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered'
        )
    ) AS market_days,
    (
        SELECT max(exchange = 'AL')
        FROM transitions
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered'
    ) AS both_markets,
    -- How far the market has been heard: no return of a moment after it. An earlier day is over where a later one has begun.
    (
        SELECT max(known)
        FROM
        (
            SELECT max(received_at) AS known FROM transitions WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
            UNION ALL
            SELECT max(received_at) AS known FROM bars WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
            UNION ALL
            SELECT max(received_at) AS known
            FROM quotes
            WHERE date = (SELECT max(date) FROM transitions WHERE date BETWEEN {from_date:Date} AND {to_date:Date})
        )
    ) AS reached,
    hits AS
    (
        SELECT
            account,
            condition,
            code,
            exchange,
            date,
            entry,
            id,
            at,
            received_at,
            reinterpretAsUInt64(toString(code)) AS stock,
            stock * 4 + multiIf(exchange = 'KRX', 1, exchange = 'NXT', 2, 3) AS venue
        FROM transitions FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered' AND origin = 'realtime' AND NOT initial
            AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
                'from_date and to_date are days: write them as 2026-03-09')) = 0
    ),
    codes AS
    (
        SELECT DISTINCT code
        FROM transitions
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered'
    ),
    quoted AS
    (
        SELECT
            received_at AS known_at,
            price,
            multiIf(exchange = 'KRX', 1, exchange = 'NXT', 2, 3) AS market,
            reinterpretAsUInt64(toString(code)) * 4 + arrayJoin(if(both_markets, [market, 3], [market])) AS venue
        FROM quotes
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM codes)
    ),
    minutes AS
    (
        SELECT date, code, at, open, high, low, close, sample, reinterpretAsUInt64(toString(code)) AS stock
        FROM bars FINAL
        WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date}
            AND at <= toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE
    ),
    days AS
    (
        SELECT
            day AS d_date,
            reinterpretAsUInt64(toString(code)) AS d_stock,
            max(interval = '1m' AND received_at >= toDateTime64(bars.date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE) AS complete,
            max(interval = '1m' AND sample) AS sampled,
            maxIf(at, interval = '1m') AS last_minute,
            if(countIf(interval = '1d' AND day = bars.date) > 0,
                toNullable(argMaxIf(close, received_at, interval = '1d' AND day = bars.date)), NULL) AS day_close,
            if(countIf(day < bars.date) > 0, toNullable(argMaxIf(open, received_at, day < bars.date)), NULL) AS next_open
        FROM bars
        ARRAY JOIN
            if(interval = '1d', [bars.date, arrayLast(known -> known < bars.date, market_days)], [bars.date]) AS day
        WHERE (interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date})
            OR (interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} + 14)
        GROUP BY d_date, d_stock
    ),
    ahead AS
    (
        SELECT
            date,
            stock,
            code IN (SELECT code FROM codes) AS hit,
            open,
            close AS after_1m,
            intDiv(toUnixTimestamp(at), 60) AS minute,
            intDiv(toUnixTimestamp(toDateTime(date, 'Asia/Seoul')), 60) + 930 AS closes,
            intDiv(toUnixTimestamp(reached), 60) AS heard,
            lagInFrame(minute, 1, toUInt32(closes - 391)) OVER (w ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before,
            last_value(close) OVER (w RANGE BETWEEN CURRENT ROW AND 4 FOLLOWING) AS after_5m,
            last_value(close) OVER (w RANGE BETWEEN CURRENT ROW AND 29 FOLLOWING) AS after_30m,
            last_value(close) OVER (w ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS last_close,
            max(high) OVER (w ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS best,
            min(low) OVER (w ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS worst
        FROM minutes
        WHERE sample
        WINDOW w AS (PARTITION BY date, stock ORDER BY minute)
    ),
    sampled AS
    (
        SELECT
            arrayJoin(range(toUInt32(least(a.before + 1, a.minute)), toUInt32(a.minute + 1))) AS minute,
            arrayJoin(if(a.hit, [0, a.stock], [0])) AS stock,
            [
                if(a.minute + 1 <= least(a.closes, a.heard), toNullable(a.after_1m), NULL),
                if(a.minute + 5 <= least(a.closes, a.heard), toNullable(a.after_5m), NULL),
                if(a.minute + 30 <= least(a.closes, a.heard), toNullable(a.after_30m), NULL),
                if(a.minute < a.closes AND a.closes <= a.heard, coalesce(d.day_close, a.last_close), NULL),
                d.next_open,
                if(a.minute < a.closes AND a.closes <= a.heard, toNullable(a.best), NULL),
                if(a.minute < a.closes AND a.closes <= a.heard, toNullable(a.worst), NULL)
            ] AS prices,
            arrayMap(price -> ifNull((price / a.open - 1) * 100, 0), prices) AS returns,
            arrayMap(price -> toInt64(price IS NOT NULL), prices) AS cases
        FROM ahead AS a
        LEFT JOIN days AS d ON d.d_date = a.date AND d.d_stock = a.stock
    ),
    compared AS
    (
        SELECT
            minute,
            stock AS m_stock,
            arrayMap((all, own) -> if(stock = 0, all, all - own),
                sumForEachIf(returns, stock = 0) OVER (PARTITION BY minute), returns) AS returns,
            arrayMap((all, own) -> if(stock = 0, all, all - own),
                sumForEachIf(cases, stock = 0) OVER (PARTITION BY minute), cases) AS cases
        FROM
        (
            SELECT minute, stock, sumForEach(returns) AS returns, sumForEach(cases) AS cases
            FROM sampled
            GROUP BY minute, stock
        )
    ),
    bought AS
    (
        SELECT
            h.*,
            d.complete = 1 AND exchange != 'NXT' AS complete,
            p.price > 0 AND toDate(p.known_at, 'Asia/Seoul') = date AND (complete OR p.known_at < received_at + INTERVAL 1 MINUTE) AS known,
            if(known, p.known_at, toDateTime64(0, 6, 'UTC')) AS bought_at,
            if(known, p.price, 0) AS paid,
            p.source AS source,
            d.day_close AS day_close,
            d.next_open AS next_open,
            d.sampled = 1 AND d.last_minute >= bought_at AS in_sample
        FROM hits AS h
        ASOF LEFT JOIN
        (
            SELECT venue AS p_venue, known_at, price, 'quote' AS source
            FROM quoted
            UNION ALL
            SELECT
                stock * 4 + arrayJoin(if(both_markets, [1, 3], [1])) AS p_venue,
                toTimeZone(at, 'UTC') AS known_at,
                open AS price,
                'open' AS source
            FROM minutes
            WHERE code IN (SELECT code FROM codes)
        ) AS p ON h.venue = p.p_venue AND h.received_at < p.known_at
        LEFT JOIN days AS d ON d.d_date = h.date AND d.d_stock = h.stock
    ),
    held AS
    (
        SELECT
            b.*,
            if(toDate(s.s_at) = date, s.top, 0) AS top,
            if(toDate(s.s_at) = date, s.bottom, 0) AS bottom,
            m.returns AS sample_returns,
            m.cases AS sample_cases
        FROM bought AS b
        ASOF LEFT JOIN
        (
            SELECT
                stock AS s_stock,
                at AS s_at,
                max(high) OVER (w ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS top,
                min(low) OVER (w ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS bottom
            FROM minutes
            WHERE code IN (SELECT code FROM codes)
            WINDOW w AS (PARTITION BY date, stock ORDER BY at)
        ) AS s ON b.stock = s.s_stock AND b.bought_at <= s.s_at
        LEFT JOIN compared AS m
            ON m.minute = intDiv(toUnixTimestamp64Micro(b.bought_at) + 59999999, 60000000)
            AND m.m_stock = if(b.in_sample, b.stock, 0)
    ),
    wanted AS
    (
        SELECT
            *,
            horizon,
            minutes_later,
            number,
            toTimeZone(toDateTime64(date, 6, 'Asia/Seoul'), 'UTC') AS midnight,
            midnight + INTERVAL 930 MINUTE AS settles,
            midnight + toIntervalMinute(if(exchange = 'KRX', 930, 1200)) AS closes,
            if(minutes_later > 0, bought_at + toIntervalMinute(minutes_later), settles + INTERVAL 1 MINUTE) AS until
        FROM held
        ARRAY JOIN
            ['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'] AS horizon,
            [1, 5, 30, 0, 0, 0, 0] AS minutes_later,
            [1, 2, 3, 4, 5, 6, 7] AS number
    )
SELECT
    account,
    condition,
    code,
    exchange,
    date,
    entry,
    id,
    at,
    received_at,
    if(known, toNullable(paid), NULL) AS reference,
    if(known, toNullable(bought_at), NULL) AS reference_at,
    source,
    complete,
    horizon,
    multiIf(
        NOT known, NULL,
        minutes_later > 0, if(until <= least(closes, reached) AND (complete OR greatest(c_at, bought_at) > until - INTERVAL 1 MINUTE), toNullable(if(c_at >= bought_at, c_price, paid)), NULL),
        horizon = 'next_open', next_open,
        bought_at >= settles, NULL,
        horizon = 'close', coalesce(day_close, if(complete OR greatest(c_at, bought_at) > until - INTERVAL 1 MINUTE, toNullable(if(c_at >= bought_at, c_price, paid)), NULL)),
        NOT complete, NULL,
        horizon = 'best', toNullable(greatest(top, paid)),
        toNullable(if(bottom > 0, least(bottom, paid), paid))) AS price,
    (price / paid - 1) * 100 - {cost:Float64} AS return,
    if(known, w.sample_cases[number], toInt64(0)) AS sample_cases,
    if(sample_cases > 0, w.sample_returns[number] / sample_cases - {cost:Float64}, NULL) AS sample_return,
    arrayExists(span -> span.1 < until AND span.2 > received_at, spans) AS across_gap
FROM wanted AS w
ASOF LEFT JOIN
(
    SELECT venue AS c_venue, known_at AS c_at, price AS c_price
    FROM quoted
    UNION ALL
    SELECT
        stock * 4 + arrayJoin(if(both_markets, [1, 3], [1])) AS c_venue,
        toTimeZone(at, 'UTC') + INTERVAL 1 MINUTE AS c_at,
        close AS c_price
    FROM minutes
    WHERE code IN (SELECT code FROM codes)
) AS c ON w.venue = c.c_venue AND w.until >= c.c_at
LEFT JOIN
(
    SELECT account AS g_account, condition AS g_condition, groupArray((from_at, to_at)) AS spans
    FROM gaps FINAL
    WHERE date BETWEEN {from_date:Date} - 14 AND {to_date:Date}
    GROUP BY account, condition
) AS g ON g.g_account = w.account AND g.g_condition = w.condition
SETTINGS join_use_nulls = 0
COMMENT 'Each hit with each return: what it was, what the sampled stocks did meanwhile, whether a gap lies across it';

-- The interval is two-way cluster-robust (Cameron, Gelbach and Miller 2011): the variance of the mean between stocks,
-- plus that between days, less that between stocks within days, each with the correction G / (G - 1). Where that is less
-- than one of the first two, as it may be with few clusters, the greatest of the three counts (MacKinnon, Nielsen and Webb
-- 2024). The quantile is Student's t with one degree of freedom less than the fewer of stocks and days. One day, or one
-- stock, gives no interval.
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
                    PARTITION BY account, date, code ORDER BY toUnixTimestamp64Milli(received_at)
                    RANGE BETWEEN {within:UInt32} * 60000 PRECEDING AND CURRENT ROW) AS near
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
            multiIf(code = '', 'day', date = toDate(0), 'stock', 'both') AS by,
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
        GROUP BY GROUPING SETS ((account, condition, horizon, part, code, date), (account, condition, horizon, part, code), (account, condition, horizon, part, date))
    ),
    sums AS
    (
        SELECT
            account,
            condition,
            horizon,
            part,
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
        GROUP BY account, condition, horizon, part
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
SETTINGS join_use_nulls = 0
COMMENT 'How the hits of each condition fared against the sample, split by time of day, visit or confluence';

-- The same without parts, and from `sums` on word for word (a test compares them): asking through the view above would
-- have ClickHouse analyse it twice.
CREATE OR REPLACE VIEW condition_performance AS
WITH
    cells AS
    (
        SELECT
            r.account AS account,
            r.condition AS condition,
            r.horizon AS horizon,
            r.code AS code,
            r.date AS date,
            multiIf(code = '', 'day', date = toDate(0), 'stock', 'both') AS by,
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
COMMENT 'How the hits of each condition fared, against the sampled stocks at the same times';

-- A pair counts once for each stock and day that both hit, by their first hits.
CREATE OR REPLACE VIEW condition_overlap AS
WITH
    firsts AS
    (
        SELECT account, date, code, condition, min(received_at) AS hit_at
        FROM transitions FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND kind = 'entered' AND origin = 'realtime' AND NOT initial
            AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
                'from_date and to_date are days: write them as 2026-03-09')) = 0
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
SETTINGS join_use_nulls = 0
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
    AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
        'from_date and to_date are days: write them as 2026-03-09')) = 0
GROUP BY account, condition
ORDER BY account, condition
COMMENT 'How long stocks stay in a condition, in seconds';

CREATE OR REPLACE VIEW condition_activity AS
SELECT
    account,
    condition,
    date,
    toDateTime64(toStartOfMinute(at), 6, 'Asia/Seoul') AS minute,
    countIf(kind = 'entered' AND origin = 'realtime' AND NOT initial) AS hits,
    countIf(kind = 'entered' AND (origin = 'snapshot' OR initial)) AS revealed,
    countIf(kind = 'exited' AND origin = 'realtime') AS exits
FROM transitions FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND origin != 'day-end'
    AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
        'from_date and to_date are days: write them as 2026-03-09')) = 0
GROUP BY account, condition, date, minute
ORDER BY account, condition, minute
COMMENT 'Hits and exits of each condition per minute (KST)';

-- `place` is the date and the code's six characters as one number, by which joins are several times faster than by both.
CREATE OR REPLACE VIEW recommendation_performance AS
WITH
    openings AS
    (
        SELECT
            date,
            account,
            code,
            recommendation_id,
            bitShiftLeft(toUInt64(toUInt16(date)), 48) + reinterpretAsUInt64(toString(code)) AS place,
            min(opened_at) AS opened,
            min(recommendations.received_at) AS known_since,
            argMax(state, revision) AS state,
            argMax(cause, revision) AS cause,
            argMax(at, revision) AS changed_at,
            max(score) AS score,
            arraySort(groupUniqArrayArray(arrayMap(r -> if(r.condition != '', r.condition, toLowCardinality('manual')), reasons))) AS conditions
        FROM recommendations FINAL
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
            AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
                'from_date and to_date are days: write them as 2026-03-09')) = 0
        GROUP BY date, account, code, recommendation_id
    ),
    codes AS
    (
        SELECT DISTINCT code FROM recommendations WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
    ),
    -- Copies of a quote are the same: no FINAL. Of a bar the one that was fetched last counts.
    quoted AS
    (
        SELECT
            bitShiftLeft(toUInt64(toUInt16(date)), 48) + reinterpretAsUInt64(toString(code)) AS place,
            received_at AS at,
            price,
            high,
            low
        FROM quotes
        WHERE date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM codes)
    ),
    minutes AS
    (
        SELECT
            bitShiftLeft(toUInt64(toUInt16(date)), 48) + reinterpretAsUInt64(toString(code)) AS place,
            toTimeZone(bars.at, 'UTC') AS at,
            open,
            close,
            high,
            low
        FROM bars FINAL
        WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM codes)
    ),
    bought AS
    (
        SELECT
            o.recommendation_id AS recommendation_id,
            o.date AS date,
            o.place AS place,
            ifNull(b.listed, 0) AS complete,
            ifNull(p.found, 0) AND (complete OR p.at < o.known_since + INTERVAL 1 MINUTE) AS known,
            if(known, p.at, toDateTime64(0, 6, 'UTC')) AS bought_at,
            if(known, p.price, 0) AS paid,
            if(known, p.source, '') AS source
        FROM openings AS o
        ASOF LEFT JOIN
        (
            SELECT place, at, 'quote' AS source, price, toNullable(1) AS found FROM quoted
            UNION ALL
            SELECT place, at, 'open' AS source, open AS price, toNullable(1) AS found FROM minutes
        ) AS p ON o.place = p.place AND o.known_since < p.at
        LEFT JOIN
        (
            SELECT DISTINCT date, code, toNullable(1) AS listed
            FROM bars
            WHERE interval = '1m' AND date BETWEEN {from_date:Date} AND {to_date:Date}
        ) AS b ON b.date = o.date AND b.code = o.code
    ),
    since AS
    (
        SELECT
            recommendation_id,
            date,
            any(complete) AS complete,
            any(known) AS known,
            any(bought_at) AS bought_at,
            any(paid) AS paid,
            any(source) AS source,
            maxIf((high, -micros), later) AS best,
            minIf((low, micros), later) AS worst,
            maxIf((micros + is_bar * 60000000, price), later) AS last
        FROM
        (
            SELECT
                b.*,
                p.*,
                toUnixTimestamp64Micro(p.began) AS micros,
                b.known AND (p.began > b.bought_at OR p.began = b.bought_at AND p.is_bar) AS later
            FROM bought AS b
            LEFT JOIN
            (
                SELECT place AS p_place, at AS began, 0 AS is_bar, price, high, low FROM quoted
                UNION ALL
                SELECT place AS p_place, at AS began, 1 AS is_bar, close AS price, high, low FROM minutes
            ) AS p ON p.p_place = b.place
        )
        GROUP BY recommendation_id, date
    ),
    daily AS
    (
        SELECT date, code, toNullable(close) AS close
        FROM bars FINAL
        WHERE interval = '1d' AND date BETWEEN {from_date:Date} AND {to_date:Date} AND code IN (SELECT code FROM codes)
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
    if(s.known, toNullable(s.paid), NULL) AS reference,
    if(s.known, toNullable(s.bought_at), NULL) AS reference_at,
    s.source AS source,
    if(s.known, coalesce(d.close, if(s.last.1 > 0, toNullable(s.last.2), NULL), s.paid), NULL) AS price,
    if(s.known, d.close IS NOT NULL, false) AS is_close,
    (price / s.paid - 1) * 100 - {cost:Float64} AS return,
    if(s.known, greatest(if(s.last.1 > 0, s.best.1, 0), s.paid), NULL) AS best_price,
    (best_price / s.paid - 1) * 100 - {cost:Float64} AS best,
    if(s.known, if(best_price > s.paid, (-s.best.2 - toUnixTimestamp64Micro(s.bought_at)) / 6e7, 0), NULL) AS minutes_to_best,
    if(s.known, if(s.last.1 > 0, least(s.worst.1, s.paid), s.paid), NULL) AS worst_price,
    (worst_price / s.paid - 1) * 100 - {cost:Float64} AS worst,
    if(s.known, if(worst_price < s.paid, (s.worst.2 - toUnixTimestamp64Micro(s.bought_at)) / 6e7, 0), NULL) AS minutes_to_worst,
    s.complete AS complete,
    toUInt64(arrayCount(span -> toDate(span.1, 'Asia/Seoul') <= r.date AND span.2 > r.opened
        AND has(r.conditions, span.3), g.spans)) AS gaps
FROM openings AS r
LEFT JOIN since AS s ON s.recommendation_id = r.recommendation_id AND s.date = r.date
LEFT JOIN daily AS d ON d.date = r.date AND d.code = r.code
LEFT JOIN holes AS g ON g.account = r.account
LEFT JOIN (SELECT code, name FROM stocks FINAL) AS n ON n.code = r.code
ORDER BY date, opened_at, code
SETTINGS join_use_nulls = 0
COMMENT 'How each recommendation fared: reference, price now or at the close, best and worst since';

CREATE OR REPLACE VIEW data_heard AS
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
            AND (SELECT throwIf({from_date:Date} = toDate(0) OR {to_date:Date} = toDate(0),
                'from_date and to_date are days: write them as 2026-03-09')) = 0
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
    ifNull(n.sampled, 0) AS sample_stocks
FROM keys AS k
LEFT JOIN heard AS h ON h.date = k.date AND h.account = k.account AND h.condition = k.condition
LEFT JOIN holes AS g ON g.date = k.date AND g.account = k.account AND g.condition = k.condition
LEFT JOIN states AS s ON s.date = k.date AND s.account = k.account AND s.condition = k.condition
LEFT JOIN samples AS n ON n.date = k.date
ORDER BY date, account, condition
SETTINGS join_use_nulls = 0
COMMENT 'What was heard of each condition on each day and what was not, but for prices';

CREATE OR REPLACE VIEW data_quality AS
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
    FROM condition_returns(from_date = {from_date:Date}, to_date = {to_date:Date}, cost = 0)
    WHERE horizon = '1m'
    GROUP BY date, account, condition
) AS p ON p.date = h.date AND p.account = h.account AND p.condition = h.condition
ORDER BY date, account, condition
SETTINGS join_use_nulls = 0
COMMENT 'What each day lacks, for each condition';

-- As before (0002), and after the close the price is the day's close:
--   closing_price   the daily bar's close; where there is none and the day is over, the last price that a minute bar or a
--                   quote had; else, as during the day, that of the day's last search that priced the stock.
--   change_rate     of that price against the close before: the daily bar of the trading day before, else what the last
--                   search (price and change) or the last quote (price and rate) says it was.
-- Quotes are read only for stocks and dates that have no daily bar. Of the daily bars those are joined that recommended
-- stocks have: all of them would cost a second after a year.
CREATE OR REPLACE VIEW rec_stocks AS
WITH
    reasoned AS
    (
        SELECT DISTINCT
            date,
            code,
            r.kind AS kind,
            r.condition AS condition,
            r.algorithm_id AS algorithm
        FROM recommendations FINAL
        ARRAY JOIN reasons AS r
    ),
    named AS
    (
        SELECT date, condition, max(algorithm) AS algorithm_name
        FROM reasoned
        WHERE algorithm != '' AND condition != ''
        GROUP BY date, condition
    ),
    searched AS
    (
        SELECT DISTINCT date, code, condition FROM search_reasons FINAL
    ),
    picked AS
    (
        SELECT date, code, multiIf(algorithm != '', algorithm, condition != '', condition, 'manual') AS algorithm
        FROM reasoned
        UNION DISTINCT
        SELECT s.date AS date, s.code AS code, if(n.algorithm_name != '', n.algorithm_name, s.condition) AS algorithm
        FROM searched AS s
        LEFT JOIN named AS n ON n.date = s.date AND n.condition = s.condition
    ),
    found AS
    (
        SELECT date, code, argMax(tuple(price, change_rate, change), at) AS last
        FROM
        (
            SELECT date, code, at, price, change_rate, change FROM search_results FINAL WHERE price IS NOT NULL
            UNION ALL
            SELECT date, code, at, price, change_rate, NULL AS change FROM search_reasons FINAL WHERE price IS NOT NULL
        )
        GROUP BY date, code
    ),
    wanted AS
    (
        SELECT DISTINCT date, code FROM recommendations
        UNION ALL
        SELECT DISTINCT date, code FROM search_reasons
    ),
    closes AS
    (
        SELECT date, code, toNullable(close) AS close
        FROM bars FINAL
        WHERE interval = '1d' AND (date, code) IN (SELECT date, code FROM wanted)
    ),
    market AS
    (
        SELECT date, lagInFrame(date) OVER (ORDER BY date ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS day_before
        FROM (SELECT DISTINCT date FROM bars WHERE interval = '1d')
    ),
    closes_before AS
    (
        SELECT m.date AS date, b.code AS code, toNullable(b.close) AS close
        FROM bars AS b FINAL
        INNER JOIN market AS m ON m.day_before = b.date
        WHERE b.interval = '1d' AND (m.date, b.code) IN (SELECT date, code FROM wanted)
    ),
    latest AS
    (
        SELECT max(day) AS newest
        FROM (SELECT max(date) AS day FROM transitions UNION ALL SELECT max(date) AS day FROM recommendations)
    ),
    -- Every earlier date is over because there is a later one: only of the newest must its records say so.
    ended AS
    (
        SELECT DISTINCT date FROM recommendations
        WHERE date = assumeNotNull((SELECT newest FROM latest)) AND cause = 'day-end'
        UNION DISTINCT
        SELECT DISTINCT date FROM transitions
        WHERE date = assumeNotNull((SELECT newest FROM latest)) AND origin = 'day-end'
    ),
    finished AS
    (
        SELECT
            date,
            code,
            algorithm,
            toUInt8(date < assumeNotNull((SELECT newest FROM latest)) OR date IN (SELECT date FROM ended)) AS is_final
        FROM picked
    ),
    barless AS
    (
        SELECT DISTINCT date, code
        FROM finished
        WHERE is_final AND (date, code) NOT IN (SELECT date, code FROM closes)
    ),
    traded AS
    (
        SELECT
            date,
            code,
            toNullable(argMax(price, (known_at, source))) AS close,
            argMaxIf(tuple(price, change_rate), known_at, change_rate IS NOT NULL) AS rated
        FROM
        (
            SELECT date, code, received_at AS known_at, 1 AS source, price, change_rate
            FROM quotes
            WHERE (date, code) IN (SELECT date, code FROM barless)
            UNION ALL
            SELECT date, code, toTimeZone(at, 'UTC') + INTERVAL 1 MINUTE AS known_at, 2 AS source, close AS price, NULL AS change_rate
            FROM bars FINAL
            WHERE interval = '1m' AND (date, code) IN (SELECT date, code FROM barless)
        )
        WHERE known_at <= toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 931 MINUTE
        GROUP BY date, code
    )
SELECT
    CAST(names.name, 'String') AS stock_name,
    CAST(p.code, 'String') AS stock_code,
    p.date AS recommendation_date,
    CAST(p.algorithm, 'String') AS algorithm_id,
    coalesce(c.close, t.close, s.last.1) AS closing_price,
    if(
        c.close IS NULL AND t.close IS NULL,
        s.last.2,
        round((closing_price / coalesce(
            b.close,
            s.last.1 - s.last.3,
            if(t.rated.2 IS NULL, NULL, round(t.rated.1 / (1 + t.rated.2 / 100)))) - 1) * 100, 2)) AS change_rate,
    p.is_final AS is_final
FROM finished AS p
LEFT JOIN (SELECT code, name FROM stocks FINAL) AS names ON names.code = p.code
LEFT JOIN found AS s ON s.date = p.date AND s.code = p.code
LEFT JOIN closes AS c ON c.date = p.date AND c.code = p.code
LEFT JOIN closes_before AS b ON b.date = p.date AND b.code = p.code
LEFT JOIN traded AS t ON t.date = p.date AND t.code = p.code
SETTINGS join_use_nulls = 0
COMMENT 'Recommended stocks: one row per date, algorithm and stock';
