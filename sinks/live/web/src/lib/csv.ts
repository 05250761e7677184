/**
 * A table as CSV that Excel opens rightly: UTF-8 with a byte order mark, CRLF, quoted where it must be (RFC 4180).
 *
 * Text that a spreadsheet would run as a formula (a stock or note that begins with = + - @, a tab or a return) gets an
 * apostrophe before it; numbers stay numbers.
 */

export type Cell = string | number | null;

/** Tells Excel that the text is UTF-8. */
const MARK = "\uFEFF";

function quoted(cell: Cell): string {
  if (cell === null) return "";
  if (typeof cell === "number") return Number.isFinite(cell) ? String(cell) : "";
  const isFormula = /^\s*[=+\-@\t\r]/.test(cell) || /^[＝＋－＠]/.test(cell);
  const text = isFormula ? `'${cell}` : cell;
  return /[",\r\n;\t]/.test(text) || /^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The whole file's text. */
export const toCsv = (head: readonly string[], rows: readonly (readonly Cell[])[]): string =>
  MARK + [head, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";

/** Hand a file to the reader. */
export function download(name: string, text: string): void {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken it by the next turn of its loop.
  window.setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
