-- What was recommended, in the shape that existing front ends read: one row per date, algorithm and stock.
--
-- Rows come from the reasons of realtime recommendations (a reason counts for the day once a revision had it) and
-- from the stocks of one-shot searches.
--   algorithm_id   the reason's algorithm, else the condition's name, else `manual`. A search reason on the log has no
--                  algorithm of its own: it takes the one that the same condition has among the day's reasons.
--   closing_price, change_rate   from the last search of that day that priced the stock; NULL where none did.
--   is_final       1 once the day is over and the row can't change any more: its day-end was applied somewhere, or a
--                  later trading date has begun. Decided by the records, not by the server's clock, so that a
--                  simulated day behaves as a real one.

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
    priced AS
    (
        SELECT date, code, argMax(tuple(price, change_rate), at) AS last
        FROM
        (
            SELECT date, code, at, price, change_rate FROM search_results FINAL WHERE price IS NOT NULL
            UNION ALL
            SELECT date, code, at, price, change_rate FROM search_reasons FINAL WHERE price IS NOT NULL
        )
        GROUP BY date, code
    ),
    ended AS
    (
        SELECT DISTINCT date FROM recommendations FINAL WHERE cause = 'day-end'
        UNION DISTINCT
        SELECT DISTINCT date FROM transitions FINAL WHERE origin = 'day-end'
    ),
    latest AS
    (
        SELECT max(day) AS newest
        FROM (SELECT max(date) AS day FROM transitions UNION ALL SELECT max(date) AS day FROM recommendations)
    )
SELECT
    CAST(names.name, 'String') AS stock_name,
    CAST(picked.code, 'String') AS stock_code,
    picked.date AS recommendation_date,
    CAST(picked.algorithm, 'String') AS algorithm_id,
    priced.last.1 AS closing_price,
    priced.last.2 AS change_rate,
    toUInt8(picked.date < assumeNotNull((SELECT newest FROM latest)) OR picked.date IN (SELECT date FROM ended)) AS is_final
FROM picked
LEFT JOIN (SELECT code, name FROM stocks FINAL) AS names ON names.code = picked.code
LEFT JOIN priced ON priced.date = picked.date AND priced.code = picked.code
COMMENT 'Recommended stocks: one row per date, algorithm and stock';
