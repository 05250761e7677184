"""What all benchmarks share: contestants that run in turn, ratios paired by round, a table, and lines to keep.

A benchmark names its contestants – the `limit` (the same work with nothing of ours in between), `ours`, and each
`peer` (what a user would pick instead) – and gives each a callable that runs it once and returns its figures. `race`
runs them in rounds, each round in another order, so that what else the machine does meets all of them alike. A ratio
is taken within a round; told are its median and quartiles over the rounds.

    figures = await race(
        "frame-to-kafka",
        "Frames → records acknowledged by Kafka",
        [Contestant("raw recv + send", "limit", limit), Contestant("hitstream", "ours", ours)],
        ratios=["frames/s"],
    )

A contestant that is to have the machine for itself is a process of its own: `process` runs a script of this folder,
and what it tells (`tell`) are the figures.

`HITSTREAM_TEST_ROUNDS` changes the number of rounds. `HITSTREAM_TEST_RESULTS=FILE` appends each result to FILE as a
line of JSON; `python tests/benchmarks/harness.py FILE` prints its tables, and with `--into PAGE …` writes each between
the lines `<!-- bench: NAME -->` and `<!-- end -->` of the pages that have a place for it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = HERE / "peers" / ".venv" / "bin" / "python"
ROUNDS = int(os.environ.get("HITSTREAM_TEST_ROUNDS", "5"))
_PACKAGES = (
    "websockets", "aiokafka", "msgspec", "uvloop", "faust-streaming", "clickhouse-connect", "chdb", "litestar",
    "uvicorn",
)  # fmt: skip

Figures = Mapping[str, float]
Kind = Literal["limit", "ours", "peer", ""]


@dataclass(frozen=True)
class Contestant:
    """One way of doing the work. `run` does it once and returns its figures: name (with the unit) → value."""

    name: str
    kind: Kind
    run: Callable[[], Figures | Awaitable[Figures]]


@dataclass
class Result:
    """What a benchmark found: per contestant and figure, the value of each round.

    `ratios` are the figures of which ratios are told. `note` says what a reader has to know; `machine` and `versions`
    are where it ran.
    """

    bench: str
    title: str
    kinds: dict[str, Kind]
    values: dict[str, dict[str, list[float]]]
    ratios: list[str] = field(default_factory=list)
    note: str = ""
    at: str = ""
    machine: str = ""
    versions: str = ""

    def ratio(self, figure: str, one: str, other: str) -> list[float]:
        """Round by round: a figure of one contestant over that of another."""
        pairs = zip(self.values[one][figure], self.values[other][figure], strict=True)
        return [a / b if b else float("nan") for a, b in pairs]


async def race(
    bench: str,
    title: str,
    contestants: Sequence[Contestant],
    *,
    ratios: Sequence[str] = (),
    rounds: int = ROUNDS,
    note: str = "",
    warm_up: bool = True,
) -> Result:
    """Run all contestants in interleaved rounds, print the table, keep the result.

    Args:
        bench: short name, by which the pages of docs/ find it.
        ratios: figures of which ratios to the limit and of ours to each peer are told.
        warm_up: run everything once before, and forget what it gave.
    """
    values: dict[str, dict[str, list[float]]] = {each.name: {} for each in contestants}
    for number in range(-1 if warm_up else 0, rounds):
        turn = max(number, 0) % len(contestants)
        for each in [*contestants[turn:], *contestants[:turn]]:
            answer = each.run()
            figures = await answer if inspect.isawaitable(answer) else answer
            if number >= 0:
                for figure, value in figures.items():
                    values[each.name].setdefault(figure, []).append(float(value))
    return keep(Result(bench, title, {c.name: c.kind for c in contestants}, values, list(ratios), note))


def keep(result: Result) -> Result:
    """Stamp a result with machine and versions, print its table, and append it to the results' file if there is one."""
    result.at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    result.machine, result.versions = machine(), versions()
    print(f"\n{render(result)}\n", flush=True)
    if file := os.environ.get("HITSTREAM_TEST_RESULTS"):
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
    return result


async def process(
    script: str | Path,
    *arguments: str,
    python: str | Path = sys.executable,
    environ: Mapping[str, str] | None = None,
    within: float = 300.0,
) -> dict[str, float]:
    """Run a script of this folder as a process of its own, and return its figures: the last JSON object that it prints.

    Raises:
        RuntimeError: it failed, or took longer than so many seconds; with what it said.
    """
    child = await asyncio.create_subprocess_exec(
        str(python),
        str(HERE / script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)} | dict(environ or {}),
    )
    try:
        async with asyncio.timeout(within):
            said, complained = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise RuntimeError(f"{script} {' '.join(arguments)} did not end within {within:g} s") from None
    if child.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} ended with {child.returncode}:\n{complained.decode()}")
    return dict(json.loads([line for line in said.decode().splitlines() if line.startswith("{")][-1]))


def tell(**figures: float) -> None:
    """At the end of a script that `process` runs: say its figures, and the most memory that it has used."""
    try:
        most = peak()
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "peak MiB": most}), flush=True)


def peak(pid: int | Literal["self"] = "self") -> float:
    """The most MiB that a process has been resident with, as Linux tells it.

    Its `ru_maxrss` also counts what the process was before it became this program.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def machine() -> str:
    """This machine, and what else it was doing, in one line."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
        size = f", {memory:.0f} GiB"
    except (OSError, ValueError):
        size = ""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} × {model}{size}, {platform.system()} {platform.release()}{load}"


def versions() -> str:
    """Python and the libraries that decide a figure."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


# --- tables -----------------------------------------------------------------------------------------------------------


def render(result: Result) -> str:
    """A result as a Markdown table, aligned, so that it reads well on a terminal too."""
    figures = list(dict.fromkeys(name for by in result.values.values() for name in by))
    limit = next((name for name, kind in result.kinds.items() if kind == "limit"), None)
    ours = next((name for name, kind in result.kinds.items() if kind == "ours"), None)
    head = ["", *figures]
    if limit is not None:
        head += [f"{figure} ÷ limit" for figure in result.ratios]
    if ours is not None and len(result.kinds) > 1:
        head += [f"ours ÷ this, {figure}" for figure in result.ratios]
    rows = []
    for name, by in result.values.items():
        kind = result.kinds[name]
        row = [
            f"{name} ({kind})" if kind else name,
            *(_spread(by[figure]) if figure in by else "–" for figure in figures),
        ]
        for base, flipped in ((limit, False), (ours if len(result.kinds) > 1 else None, True)):
            if base is None:
                continue
            for figure in result.ratios:
                known = name != base and figure in by and figure in result.values[base]
                pair = (base, name) if flipped else (name, base)
                row.append(_spread(result.ratio(figure, *pair), ratio=True) if known else "")
        rows.append(row)
    rounds = max((len(each) for by in result.values.values() for each in by.values()), default=0)
    said = [f"**{result.title}**", "", *_aligned(head, rows), ""]
    if result.note:
        said.append(result.note)
    spread = f"Medians (quartiles) of {rounds} interleaved rounds; " if rounds > 1 else ""
    return "\n".join([*said, f"{spread}{result.at}; {result.machine}; {result.versions}."])


def _spread(values: Sequence[float], *, ratio: bool = False) -> str:
    """The median and, of several, the quartiles."""
    middle = _number(statistics.median(values), ratio=ratio)
    if len(values) < 3:
        return middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle} ({_number(low, ratio=ratio)}–{_number(high, ratio=ratio)})"


def _number(value: float, *, ratio: bool = False) -> str:
    if ratio or abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return [lines[0], f"| {' | '.join(rule)} |", *lines[1:]]


def read(file: Path) -> dict[str, Result]:
    """The last result of each benchmark in a results' file."""
    found: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            kept = json.loads(line)
            found[kept["bench"]] = Result(**kept)
    return found


def write_into(page: Path, results: Mapping[str, Result]) -> list[str]:
    """Put each table at its place in a page; returns the names of those that have none there."""
    text, homeless = page.read_text(encoding="utf-8"), []
    for name, result in results.items():
        place = re.compile(rf"(<!-- bench: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        table = render(result).replace("\\", r"\\")
        text, found = place.subn(rf"\g<1>\n{table}\n\n\g<2>", text)
        if not found:
            homeless.append(name)
    page.write_text(text, encoding="utf-8")
    return homeless


if __name__ == "__main__":
    kept = read(Path(sys.argv[1]))
    if sys.argv[2:3] == ["--into"]:
        homeless = [write_into(Path(page), kept) for page in sys.argv[3:]]
        for name in kept:
            if all(name in each for each in homeless):
                print(f"no page has a place for {name}", file=sys.stderr)
    else:
        print("\n\n".join(render(result) for result in kept.values()))
