"""The scoring rules by name; every example of docs/rules.md, and the package in it, installed."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from streams import recommend, rules
from streams.events import (
    ConfigError,
    Due,
    Reason,
    Recommend,
    SearchReason,
    StockRecord,
    Transition,
    Withdraw,
    day_end,
    transition_id,
)
from streams.settings import ConditionRule, RecommendSettings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
SINCE = datetime(2026, 3, 2, tzinfo=UTC)


def membership(
    weight: float = 1.0,
    condition: str = "c",
    *,
    after: float = 0,
    visits: int = 1,
    kind: Literal["condition", "search"] = "condition",
) -> rules.Membership:
    since = SINCE + timedelta(seconds=after)
    return rules.Membership(kind=kind, condition=condition, since=since, visits=visits, weight=weight)


def register(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    def entry_points(*, group: str) -> Any:
        return (EntryPoint(name, value, group),) if group == rules.GROUP else ()

    monkeypatch.setattr(rules, "entry_points", entry_points)


# --- the built-in ones ------------------------------------------------------------------------------------------------

A, B, C = "신고가 돌파", "거래량 급증", "외국인 순매수"


@pytest.mark.parametrize("name", sorted(rules.BUILT_IN))
def test_a_single_first_visit_is_worth_its_weight(name: str) -> None:
    assert list(rules.load(name)((membership(0.7),))) == [0.7]


def test_sum_adds_weights() -> None:
    assert list(rules.load("sum")((membership(1.0), membership(0.5), membership(-2.0)))) == [1.0, 0.5, -2.0]


@pytest.mark.parametrize(
    ("memberships", "options", "expected"),
    [
        pytest.param([membership(1, A), membership(2, B, after=600)], {}, [1, 2.5], id="a second one in time"),
        pytest.param([membership(1, A), membership(1, B, after=601)], {}, [1, 1], id="a second one too late"),
        pytest.param([membership(1, A), membership(1, B, after=9e4)], {"within": 0}, [1, 1.5], id="whenever"),
        pytest.param(
            [membership(1, A), membership(1, B, after=400), membership(1, C, after=900)],
            {"bonus": 1},
            [1, 2, 2],
            id="each is measured from the last one that was there",
        ),
        pytest.param(
            [membership(1, A), membership(1, A, after=9, kind="search")], {}, [1, 1], id="a search of it is not another"
        ),
        pytest.param(
            [membership(1, A, kind="search"), membership(1, B, after=9)], {}, [1, 1.5], id="a search of another is"
        ),
        pytest.param(
            [membership(-1, A), membership(1, B), membership(-1, C)], {}, [-1, 1, -1], id="what speaks against it"
        ),
    ],
)
def test_confluence(memberships: Sequence[rules.Membership], options: dict[str, Any], expected: list[float]) -> None:
    assert list(rules.load("confluence", options)(memberships)) == expected


@pytest.mark.parametrize(
    ("visits", "options", "expected"),
    [(1, {}, 2.0), (2, {}, 3.0), (3, {}, 4.0), (9, {}, 4.0), (9, {"most": 1}, 2.0), (2, {"bonus": 1}, 4.0)],
)
def test_reentry(visits: int, options: dict[str, Any], expected: float) -> None:
    against = membership(-1.0, visits=visits)
    assert list(rules.load("reentry", options)((membership(2.0, visits=visits), against))) == [expected, -1.0]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("confluence", {"bonsu": 1}, r"'confluence' has no option 'bonsu'; did you mean bonus\?"),
        ("sum", {"bonus": 1}, r"'sum' has no option 'bonus'; it has none\."),
        ("confluence", {"bonus": "much"}, r"'confluence' can't take \{'bonus': 'much'\}: Expected `float`, got `str`"),
        ("reentry", {"most": 1.5}, r"'reentry' can't take .*: Expected `int`, got `float`"),
        ("confluence", {"within": -1}, r"'confluence' failed: ValueError: bonus and within must not be negative"),
        ("reentry", {"most": 0}, r"'reentry' failed: ValueError: .* most must be 1 or more"),
        ("confluence", {"bonus": math.nan}, r"'confluence' failed: ValueError"),
        ("reentry", {"bonus": math.inf}, r"'reentry' failed: ValueError"),
        ("confluence", {"within": math.inf}, None),
        ("mine", {}, r"'mine' needs the option 'factor'"),
        ("mine", {"factor": 2}, None),
    ],
)
def test_options_are_checked_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], sentence: str | None
) -> None:
    register(monkeypatch, "mine", f"{__name__}:needs_an_option")
    monkeypatch.setattr(EntryPoint, "load", lambda _entry: needs_an_option)
    if sentence is None:
        assert callable(rules.load(name, options))
    else:
        with pytest.raises(ConfigError, match=rf"^recommend\.(rule|options): .*{sentence}"):
            recommend.Policy.of((), RecommendSettings(rule=name, options=options))


def needs_an_option(memberships: Sequence[rules.Membership], /, *, factor: float) -> list[float]:
    return [factor * m.weight for m in memberships]


# --- rules that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (lambda ms: [1 / 0 for _ in ms], "the scoring rule 'mine' failed: ZeroDivisionError: division by zero"),
        (lambda _: [], "returned 0 parts for 1 memberships; it must return one for each"),
        (lambda _: [1.0, 2.0], "returned 2 parts for 1 memberships"),
        (lambda _: None, "failed: TypeError: 'NoneType' object is not iterable"),
        (lambda _: ["much"], "failed: ValueError: could not convert string to float"),
        (lambda _: [math.nan], "whose sum is no finite number"),
        (lambda _: [-math.inf], "whose sum is no finite number"),
    ],
)
def test_a_rule_that_fails_says_so(rule: Callable[..., Any], sentence: str) -> None:
    """Whatever it does, it ends in one error with the rule's name: the record's dead letter has its sentence."""
    with pytest.raises(rules.RuleFailed, match=sentence):
        rules.judge("mine", rule, (membership(),))


@pytest.mark.parametrize("part", [1, True, Decimal("1.0")])
def test_any_number_is_a_part(part: Any) -> None:
    """And a float in the record: others would not go on the wire, or as a text."""
    (judged,) = rules.judge("mine", lambda _: (part,), (membership(),))
    assert type(judged) is float
    assert judged == 1.0


def test_a_rule_that_fails_leaves_the_stock_as_it_was() -> None:
    """Nothing of the record is applied, so it can be driven again when the rule is mended."""

    def only_one(memberships: Sequence[rules.Membership], /) -> list[float]:
        return [1.0]

    def policy(rule: Any) -> recommend.Policy:
        conditions = {name: ConditionRule(name=name) for name in (A, B)}
        return recommend.Policy(conditions, "only-one", rule, threshold=1.0, expiry=0.0)

    day = Day()
    first = recommend.apply(None, day.enter("09:00:00", A), 0, policy(only_one)).standing
    second = day.enter("09:01:00", B)
    with pytest.raises(rules.RuleFailed):
        recommend.apply(first, second, 1, policy(only_one))
    (revision,) = recommend.apply(first, second, 1, policy(rules.sum_of_weights)).revisions
    assert (revision.revision, revision.score) == (2, 2.0)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("nowhere.at_all:rule", "can't be loaded"),
        ("streams.rules:nothing", "can't be loaded"),
        ("streams.rules:GROUP", "is not a function"),
    ],
)
def test_broken_rule_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, value: str, sentence: str) -> None:
    """A rule that can't be used is said so by the setting's name."""
    register(monkeypatch, "mine", value)
    with pytest.raises(ConfigError, match=rf"recommend\.rule: 'mine' .*{sentence}"):
        rules.load("mine")


def test_unknown_rule_names_the_known() -> None:
    """An unknown rule is a wrong setting; the sentence names what there is."""
    with pytest.raises(ConfigError, match=r"recommend\.rule: there is no scoring rule 'best'; known: .*sum"):
        rules.load("best")


# --- docs/rules.md ----------------------------------------------------------------------------------------------------


class Day:
    """One stock's day: the records that the examples' words stand for."""

    day = date(2026, 3, 2)

    def __init__(self) -> None:
        self.visits: dict[str, tuple[int, datetime]] = {}

    def at(self, clock: str) -> datetime:
        return datetime.fromisoformat(f"{self.day}T{clock}+09:00")

    def enter(self, clock: str, name: str) -> Transition:
        self.visits[name] = (self.visits.get(name, (0, SINCE))[0] + 1, self.at(clock))
        return self._transition(clock, name, "entered")

    def leave(self, clock: str, name: str) -> Transition:
        return self._transition(clock, name, "exited")

    def _transition(self, clock: str, name: str, kind: Literal["entered", "exited"]) -> Transition:
        entry, since = self.visits[name]
        at = self.at(clock)
        return Transition(
            id=transition_id("main", name, "005930", self.day, entry, kind), account="main", condition=name,
            code="005930", kind=kind, origin="realtime", date=self.day, entry=entry, at=at, since=since, event_id="e",
            session="a", received_at=at.astimezone(UTC),
        )  # fmt: skip

    def record(self, clock: str, words: str) -> StockRecord:
        at = self.at(clock)
        match words.split(" ", 1):
            case "enters", name:
                return self.enter(clock, name)
            case "leaves", name:
                return self.leave(clock, name)
            case by, "recommends it":
                return Recommend(id=clock, code="005930", by=by, at=at)
            case by, "withdraws it":
                return Withdraw(id=clock, code="005930", by=by, at=at)
            case "the", "day ends":
                return Due(id=clock, kind="day-end", at=day_end(self.day), account="main", code="005930")
            case "the", later if later.endswith("has passed"):
                return Due(id=clock, kind="hold", at=at, account="main", code="005930")
        found = re.fullmatch(r"a search of (.+) finds it", words)
        assert found is not None, words
        return SearchReason(
            id=clock, account="main", condition=found[1], code="005930", date=self.day, at=at,
            received_at=at.astimezone(UTC), search_id=clock,
        )  # fmt: skip


class Example(NamedTuple):
    settings: dict[str, Any]
    rows: list[list[str]]


def examples() -> list[Example]:
    """Each settings block of the page that a table of what happens follows."""
    found = re.findall(r"```toml\n([^`]*)```\n\n\| KST [^\n]*\n\|[-|]*\|\n((?:\|[^\n]*\n)+)", PAGE)
    return [
        Example(tomllib.loads(block), [line.strip("| ").split(" | ") for line in table.splitlines()])
        for block, table in found
    ]


def as_told(reasons: Sequence[Reason]) -> str:
    return ", ".join(f"{reason.condition or reason.by} {reason.score:g}" for reason in reasons) or "–"


@pytest.fixture(scope="module")
def own_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed as pip does it."""
    source, target = tmp_path_factory.mktemp("my-rules"), tmp_path_factory.mktemp("installed")
    for name, language in (("my_rules.py", "python"), ("pyproject.toml", "toml")):
        (text,) = re.findall(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", PAGE, re.DOTALL)
        (source / name).write_text(text, encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.settings["recommend"].get("rule", "hand"))
def test_every_example_on_the_page(example: Example, own_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each row: the parts of the score, the score, and what was told."""
    monkeypatch.syspath_prepend(str(own_package))
    conditions = [ConditionRule(**condition) for condition in example.settings["conditions"]]
    policy = recommend.Policy.of(conditions, RecommendSettings(**example.settings["recommend"]))
    standing: recommend.Standing | None = None
    day, told = Day(), []
    for position, (clock, words, *_) in enumerate(example.rows):
        outcome = recommend.apply(standing, day.record(clock, words), position, policy)
        opens = standing is None or standing.opening is None
        standing = outcome.standing
        assert standing is not None
        reasons, score = recommend.weigh(standing, policy)
        verbs = {
            revision: "closes" if revision.state == "closed" else "opens" if opens else "changes"
            for revision in outcome.revisions
        }
        said = ", ".join(f"{verb} ({revision.cause})" for revision, verb in verbs.items()) or "–"
        told.append([clock, words, as_told(reasons), f"{score:g}", said])
    assert told == example.rows


def test_the_page_has_an_example_of_every_rule() -> None:
    assert {example.settings["recommend"].get("rule", "hand") for example in examples()} == {
        *rules.BUILT_IN,
        "strongest",
        "hand",
    }


def test_a_rule_is_told_apart_by_where_it_is_installed(own_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package the rule is unknown; with it, it is among the known ones."""
    with pytest.raises(ConfigError, match="no scoring rule 'strongest'"):
        rules.load("strongest")
    monkeypatch.syspath_prepend(str(own_package))
    with pytest.raises(ConfigError, match=r"known: .*strongest, sum"):
        rules.load("best")
