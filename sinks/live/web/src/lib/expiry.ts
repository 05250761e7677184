/** How long a recommendation by hand is to stand. Pure. */

import { closeOf } from "./time";

const MINUTE = 60_000;

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
  const close = closeOf(now);
  return close > now ? close : null;
}
