/** How long a recommendation by hand is to stand. Pure. */

const MINUTE = 60_000;
const KST_OFFSET = 9 * 60 * MINUTE;
const DAY = 24 * 60 * MINUTE;
/** 15:30 KST, the close of the regular session. */
const CLOSE = (15 * 60 + 30) * MINUTE;

export const EXPIRIES = ["day", "10m", "30m", "1h", "close"] as const;
export type Expiry = (typeof EXPIRIES)[number];

const MINUTES: Readonly<Partial<Record<Expiry, number>>> = { "10m": 10, "30m": 30, "1h": 60 };

/**
 * When it ends, in milliseconds; null for the end of the day, which needs no word – and for the close once it is over.
 *
 * @param now the market's clock in milliseconds
 */
export function expiryAt(expiry: Expiry, now: number): number | null {
  const minutes = MINUTES[expiry];
  if (minutes !== undefined) return now + minutes * MINUTE;
  if (expiry === "day") return null;
  const close = Math.floor((now + KST_OFFSET) / DAY) * DAY - KST_OFFSET + CLOSE;
  return close > now ? close : null;
}
