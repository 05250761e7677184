"""How a diagnosis looks while it goes, and how its verdict is said: for a person who waits, and in his language.

Only looks. On a terminal it has colours and a line that says what is being waited for; into a file or a pipe the same
words without either.
"""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.text import Text

from producers.kiwoom import doctor, frames, verdicts
from producers.kiwoom.doctor import GOOD, Ask, Connect, Finding, Listen, Login, Token
from producers.kiwoom.examination import Examination, Shown
from producers.kiwoom.verdicts import Language, Words

_STYLES: Final = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}

_HEAD: Final = {
    "own": Words("logging in, as no producer runs here", "실행 중인 수집기가 없어 직접 로그인합니다"),
    "borrowed": Words("over the running producer's session", "실행 중인 수집기의 세션으로 확인합니다"),
    "asking": Words("asking the running producer …", "실행 중인 수집기에 묻는 중 …"),
    "verdict": Words("Verdict", "판정"),
    "remedy": Words("To do", "할 일"),
    "surer": Words("To be sure", "확정하려면"),
    "also": Words("It could also be", "다른 가능성"),
    "out": Words("Ruled out", "배제됨"),
    "stranded": Words(
        "{count:,} records wait on the disk for Kafka, which takes none: `hitstream status` says more",
        "기록 {count:,}건이 디스크에서 Kafka를 기다리고 있습니다(Kafka 무응답). `hitstream status`로 확인하세요",
    ),
    "bundle": Words("Evidence written to", "증거 파일"),
    "took": Words("in {seconds:.0f} s", "{seconds:.0f}초 소요"),
}

_WAITING: Final = {
    Token: Words("asking for a token", "토큰 요청 중"),
    Connect: Words("opening a connection", "연결 중"),
    Login: Words("waiting for the LOGIN reply, at most {seconds:.0f} s", "LOGIN 응답 대기, 최대 {seconds:.0f}초"),
    Ask: Words("waiting for the reply to {what}, at most {seconds:.0f} s", "{what} 응답 대기, 최대 {seconds:.0f}초"),
    Listen: Words("listening, at most {seconds:.0f} s", "지켜보는 중, 최대 {seconds:.0f}초"),
}
_BRIEF: Final = 1.0  # Seconds of a wait that needs no words.


class View:
    """A diagnosis on a console.

    Args:
        console: where to.
        language: of the words.
        waiting: whether to say what is being waited for.
    """

    def __init__(self, console: Console, language: Language, *, waiting: bool = True) -> None:
        self._console = console
        self._waiting = waiting and console.is_terminal
        self._language: Language = language
        self._status: Status | None = None

    def _words(self, key: str) -> str:
        words = _HEAD[key]
        return words.ko if self._language == "ko" else words.en

    def asking(self) -> None:
        """The running producer is asked for its session, which may take some seconds."""
        self._wait(self._words("asking"))

    def begins(self, *, borrowed: bool) -> None:
        """Over which session it goes."""
        self._line(Text(f"hitstream doctor · {self._words('borrowed' if borrowed else 'own')}", style="dim"))

    def step(self, step: doctor.Step) -> None:
        """Something is begun that may take a while."""
        if isinstance(step, Finding):
            return
        seconds = getattr(step, "within", getattr(step, "seconds", 0.0))
        if isinstance(step, Ask | Listen) and seconds < _BRIEF:
            return
        words = _WAITING[type(step)]
        what = _request(step.text) if isinstance(step, Ask) else ""
        self._wait((words.ko if self._language == "ko" else words.en).format(seconds=seconds, what=what))

    def found(self, shown: Shown) -> None:
        """A finding."""
        finding = shown.finding
        mark, style = _STYLES[finding.ok]
        stage = verdicts.stage(finding.stage, self._language)
        text = Text.assemble(
            (f"{shown.after:6.1f}s ", "dim"),
            (f"{mark} ", style),
            (f"{stage}: ", "bold" if finding.ok is False else ""),
            (verdicts.said(finding, self._language), "dim" if finding.ok is None else ""),
        )
        self._line(text)

    def concludes(self, done: Examination, bundle: object, *, stranded: int = 0) -> None:
        """The verdict, and what to do.

        Args:
            bundle: where the evidence was written; None: nowhere.
            stranded: the running producer's records that Kafka does not take: no matter of the verdict, which is about
                Kiwoom's side, but of whoever reads it.
        """
        self._quiet()
        verdict, language = done.verdict, self._language
        good = verdict.cause in GOOD
        style = "bold green" if good else "bold red" if verdict.sure == "proved" else "bold yellow"
        took = self._words("took").format(seconds=done.seconds)
        title = Text.assemble(
            (f"{'✓' if good else '✗'} {verdicts.title(verdict.cause, language)}", style),
            f" – {verdicts.sure(verdict.sure, language)}",
            (f"  [{verdicts.name(verdict.cause)}, {took}]", "dim"),
        )
        self._console.print()
        self._line(Text.assemble((f"{self._words('verdict')}  ", "bold"), title))
        self._paragraph("", verdicts.wrong(verdict, language))
        self._paragraph(self._words("remedy"), verdicts.remedy(verdict, language))
        if decides := verdicts.surer(verdict, language):
            self._paragraph(self._words("surer"), decides)
        if verdict.also:
            self._paragraph(self._words("also"), ", ".join(self._named(cause) for cause in verdict.also))
        if verdict.ruled_out:
            self._paragraph(self._words("out"), ", ".join(self._named(cause) for cause in verdict.ruled_out), "dim")
        if stranded:
            self._line(Text(f"✗ {self._words('stranded').format(count=stranded)}", style="bold red"))
        if bundle is not None:
            self._paragraph(self._words("bundle"), str(bundle))

    def close(self) -> None:
        """It is over, however it ended."""
        self._quiet()

    def _named(self, cause: doctor.Cause) -> str:
        number = doctor.NUMBERS.get(cause)
        return verdicts.title(cause, self._language) + (f" ({number})" if number else "")

    def _line(self, text: Text) -> None:
        self._quiet()
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _paragraph(self, head: str, text: str, style: str = "") -> None:
        told = Text.assemble((f"{head}: ", style or "bold") if head else "", (text, style))
        if self._console.is_terminal:
            self._console.print(Padding(told, (0, 0, 0, 2)))
        else:
            self._console.print(f"  {told.plain}", soft_wrap=True, markup=False, highlight=False)

    def _wait(self, words: str) -> None:
        if not self._waiting:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(Text(f"        {words}", style="dim"))

    def _quiet(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _request(text: str) -> str:
    asked = frames.request(text)
    kind = f" type {asked.search_type}" if asked.search_type else ""
    return f"{asked.trnm}{f' seq {asked.seq}' if asked.seq else ''}{kind}"
