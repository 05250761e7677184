"""Why hits have no return: what the views of performance leave out of `priced`, by cause and horizon.

Of `hits - priced`, `without_price` have no reference and count nowhere; `past_close` are left out of a horizon by rule,
because it crosses the close (docs/analytics.md). The others are not known, or not yet. Both are told by the reference
alone, so hits that are kept by day and those that are worked out now come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

# As in `condition_returns`: minutes end at 15:30, off KRX at 20:00; the others need a purchase before 15:30.
_COUNTED: Final = """
SELECT
    account,
    condition,
    countIf(reference_at IS NULL) AS without_price,
    arrayConcat(
        sumForEach(arrayMap(minutes -> ifNull(reference_at + toIntervalMinute(minutes) >
            toDateTime64(date, 6, 'Asia/Seoul') + toIntervalMinute(if(elsewhere, 1200, 930)), false), [1, 5, 30])),
        [countIf(ifNull(reference_at >= toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 930 MINUTE, false))]
    ) AS past_close
FROM
(
    {hits}
)
GROUP BY account, condition
"""

LIVE: Final = _COUNTED.replace(
    "{hits}",
    """SELECT date, account, condition, reference_at, exchange != 'KRX' AS elsewhere
    FROM condition_returns(from_date = {first:Date}, to_date = {last:Date}, cost = 0)
    WHERE horizon = '1m'""",
)
"""By account and condition, for the dates from `first` to `last`: to be given to `by_horizon`."""

# A hit that was bought half an hour before the close has every horizon: only the others are unfolded, and only their
# exchange is looked up. Out of the view `hit_returns`, which unfolds all, it takes three and a half times as long.
STORED: Final = _COUNTED.replace(
    "{hits}",
    """SELECT date, account, condition, hit.3 AS reference_at,
        (date, account, condition, hit.1, hit.2) IN (
            SELECT date, account, condition, toString(code), entry FROM transitions
            WHERE date BETWEEN {first:Date} AND {last:Date} AND kind = 'entered' AND exchange != 'KRX') AS elsewhere
    FROM
    (
        SELECT date, account, condition, arrayJoin(arrayFilter(
            hit -> ifNull(hit.3 > toDateTime64(date, 6, 'Asia/Seoul') + INTERVAL 900 MINUTE, true),
            arrayMap((code, entry, at) -> (toString(code), entry, at), codes, entries, reference_ats))) AS hit
        FROM day_returns
        WHERE date BETWEEN {first:Date} AND {last:Date}
            AND (date, filled_at) IN (
                SELECT date, max(filled_at) FROM day_returns
                WHERE date BETWEEN {first:Date} AND {last:Date} AND account = '' AND condition = ''
                GROUP BY date)
    )""",
)
"""The same out of `day_returns`; conditions of which nothing is left out have no row."""

_PLACES: Final = {"1m": 0, "5m": 1, "30m": 2, "close": 3, "best": 3, "worst": 3}


class Uncounted(NamedTuple):
    """Hits without a return: those without a reference, and those whose horizon crosses the close."""

    without_price: int = 0
    past_close: int = 0


def by_horizon(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], Uncounted]:
    """What `LIVE` or `STORED` answered, by account, condition and horizon; what is not there is nothing."""
    return {
        (row["account"], row["condition"], horizon): Uncounted(
            int(row["without_price"]), int(row["past_close"][place]) if place is not None else 0
        )
        for row in rows
        for horizon, place in (*_PLACES.items(), ("next_open", None))
    }
