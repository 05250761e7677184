/**
 * Finding a stock by what one types: part of its name or code, or the initial consonants of its name (ㅅㅅㅈㅈ → 삼성전자).
 *
 * Works while an input method is still composing: the last typed syllable also matches syllables it can become, and the
 * clusters a keyboard makes of two consonants (ㄳ) are read as two.
 */

const INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ";
const CLUSTERS: Readonly<Record<string, string>> = {
  ㄳ: "ㄱㅅ", ㄵ: "ㄴㅈ", ㄶ: "ㄴㅎ", ㄺ: "ㄹㄱ", ㄻ: "ㄹㅁ", ㄼ: "ㄹㅂ", ㄽ: "ㄹㅅ", ㄾ: "ㄹㅌ", ㄿ: "ㄹㅍ", ㅀ: "ㄹㅎ", ㅄ: "ㅂㅅ",
};
const FIRST_SYLLABLE = 0xac00;
const LAST_SYLLABLE = 0xd7a3;
const FINALS = 28;
const SYLLABLES_PER_INITIAL = 21 * FINALS;

function syllable(char: string): number | null {
  const code = char.charCodeAt(0);
  return code >= FIRST_SYLLABLE && code <= LAST_SYLLABLE ? code - FIRST_SYLLABLE : null;
}

/** The initial consonant of a syllable; any other character as it is. */
export function initial(char: string): string {
  const index = syllable(char);
  return index === null ? char : INITIALS[Math.floor(index / SYLLABLES_PER_INITIAL)]!;
}

function matchesChar(typed: string, char: string, isLast: boolean): boolean {
  if (typed === char) return true;
  const index = syllable(char);
  if (index === null) return false;
  if (INITIALS.includes(typed)) return initial(char) === typed;
  const typedIndex = syllable(typed);
  // 서 → 성: still being typed, its final consonant may follow.
  return isLast && typedIndex !== null && typedIndex % FINALS === 0 && index - (index % FINALS) === typedIndex;
}

/** What was typed, made ready to compare: no blanks, lower case, clusters as two consonants. */
export function normalise(typed: string): string {
  return [...typed.normalize("NFC").toLowerCase().replace(/\s+/g, "")].map((char) => CLUSTERS[char] ?? char).join("");
}

/** Whether `typed` (already normalised) is found in the name or at the start of the code. */
export function matchesStock(typed: string, name: string, code: string): boolean {
  if (typed === "") return true;
  if (code.toLowerCase().startsWith(typed)) return true;
  const text = name.toLowerCase().replace(/\s+/g, "");
  for (let start = 0; start + typed.length <= text.length; start++) {
    let offset = 0;
    while (offset < typed.length && matchesChar(typed[offset]!, text[start + offset]!, offset === typed.length - 1)) offset++;
    if (offset === typed.length) return true;
  }
  return false;
}
