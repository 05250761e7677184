/** Asking the server and commanding it: one function each, that never throws. What the answers mean is their reader's. */

import type { Accepted, Problem, Session } from "./contract";

/** Milliseconds after which a question is given up. */
const PATIENCE = 10_000;

export type Answer<T> =
  | { readonly ok: true; readonly value: T }
  /** `status` 0: the server was not reached. `error` is its sentence, or empty where it had none. */
  | { readonly ok: false; readonly status: number; readonly error: string };

/** The API's address under the page's own, whatever path a proxy gives it. */
export const apiUrl = (path: string, query: Readonly<Record<string, string>> = {}): string => {
  const url = new URL(`api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) if (value !== "") url.searchParams.set(name, value);
  return url.href;
};

async function answerOf<T>(request: Promise<Response>): Promise<Answer<T>> {
  let status = 0;
  try {
    const response = await request;
    status = response.status;
    const body: unknown = await response.json();
    if (response.ok) return { ok: true, value: body as T };
    return { ok: false, status, error: sentenceOf(body) };
  } catch {
    return { ok: false, status, error: "" };
  }
}

/** What is said may be a proxy's, and be anything. */
function sentenceOf(body: unknown): string {
  const said = (body as Partial<Problem> | null)?.error;
  return typeof said === "string" ? said : "";
}

/** GET `path`. */
export const ask = <T>(path: string, query: Readonly<Record<string, string>> = {}, cancel?: AbortSignal): Promise<Answer<T>> => {
  const patience = AbortSignal.timeout(PATIENCE);
  return answerOf<T>(fetch(apiUrl(path, query), { signal: cancel ? AbortSignal.any([cancel, patience]) : patience }));
};

/** End the login; whether the server has done so. */
export const logOut = async (session: Session): Promise<boolean> => {
  try {
    const headers = { "x-hitstream-csrf": session.csrf };
    const url = new URL("logout", document.baseURI);
    return (await fetch(url, { method: "POST", headers, signal: AbortSignal.timeout(PATIENCE) })).ok;
  } catch {
    return false;
  }
};

/** POST a command; the session proves that it is the page that asks. */
export const command = (path: string, body: object, session: Session): Promise<Answer<Accepted>> =>
  answerOf<Accepted>(
    fetch(apiUrl(`commands/${path}`), {
      method: "POST",
      headers: { "content-type": "application/json", "x-hitstream-csrf": session.csrf },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
    }),
  );
