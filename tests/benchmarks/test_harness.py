"""The harness itself: who runs when, which rounds are compared, and what a page is given."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Contestant, Figures, Result, process, race, read, render, write_into


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "results.jsonl"
    monkeypatch.setenv("HITSTREAM_TEST_RESULTS", str(file))
    return file


async def test_contestants_run_in_rounds_each_in_another_order(results: Path) -> None:
    ran: list[str] = []

    def contestant(name: str) -> Contestant:
        def run() -> Figures:
            ran.append(name)
            return {"per s": 1.0}

        return Contestant(name, "", run)

    await race("order", "Order", [contestant(name) for name in "abc"], rounds=3)
    assert "".join(ran) == "abcabcbcacab", "a warm-up, then three rounds"


async def test_a_ratio_is_taken_within_a_round_and_its_median_is_told(results: Path) -> None:
    """The machine was twice as slow in the second round and four times in the third: the ratio is what it was."""
    speed = {"limit": itertools.cycle([100.0, 50.0, 25.0]), "ours": itertools.cycle([60.0, 30.0, 15.0])}

    async def ours() -> Figures:
        return {"per s": next(speed["ours"])}

    found = await race(
        "ratio",
        "Ratio",
        [Contestant("raw", "limit", lambda: {"per s": next(speed["limit"])}), Contestant("hitstream", "ours", ours)],
        ratios=["per s"],
        rounds=3,
        warm_up=False,
    )
    assert found.ratio("per s", "hitstream", "raw") == [0.6, 0.6, 0.6]
    assert "0.60 (0.60–0.60)" in render(found)
    assert read(results)["ratio"].values == found.values


def test_a_page_is_given_the_last_result_at_its_place(tmp_path: Path, results: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: one -->\nold\n<!-- end -->\nafter\n")
    result = Result("one", r"A title with \1 in it", {"a": ""}, {"a": {"ms": [1.0, 2.0, 3.0]}})
    assert write_into(page, {"one": result, "two": result}) == ["two"]
    text = page.read_text()
    assert text.startswith("before\n<!-- bench: one -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert r"A title with \1 in it" in text
    assert "2.00 (1.50–2.50)" in text


async def test_a_script_that_fails_says_what_it_said(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import sys; sys.exit('no such broker')")
    with pytest.raises(RuntimeError, match="no such broker"):
        await process(script)
