"""The house keeps its shape: imports run one way, and generated documents are fresh."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import asyncapi
from deploy.settings import example

ROOT = Path(__file__).parent.parent
PACKAGES = ("deploy", "producers", "sinks", "streams")

# What each package may import of the others; None means everything.
ALLOWED: dict[str, dict[str, set[str] | None]] = {
    "streams": {},
    "producers": {"streams": {"clients", "events", "tasks", "topics"}},
    "sinks": {"streams": {"clients", "events", "tasks", "topics"}},
    "deploy": {"streams": None, "producers": None, "sinks": None},
}


def imports(file: Path) -> Iterator[str]:
    """Every absolute module name that a file imports, wherever in the file."""
    package = list(file.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def crossings(package: str) -> Iterator[tuple[str, str]]:
    """Imports of another of our packages that are not allowed, as (file, module)."""
    for file in sorted((ROOT / package).rglob("*.py")):
        if "node_modules" in file.parts:
            continue
        for module in imports(file):
            other, *rest = module.split(".")
            if other not in PACKAGES or other == package:
                continue
            allowed = ALLOWED[package].get(other, set())
            if allowed is not None and (not rest or rest[0] not in allowed):
                yield str(file.relative_to(ROOT)), module


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    """`deploy → {producers, sinks} → streams`, and of streams only the contract and how a role stays and ends."""
    assert list(crossings(package)) == []


def test_the_import_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import the wrong way, absolute, relative or inside a function, is found."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "sinks" / "live").mkdir(parents=True)
    (tmp_path / "sinks" / "live" / "a.py").write_text(
        "from streams import rules\n"
        "def f():\n"
        "    import producers.rest\n"
        "from streams.events import Gap\n"
        "from .. import consumer\n"
    )
    assert [module for _, module in crossings("sinks")] == ["streams.rules", "producers.rest"]


def test_asyncapi_is_fresh() -> None:
    """docs/asyncapi.yaml is what the contract says now (`make docs`)."""
    assert asyncapi.FILE.read_text(encoding="utf-8") == asyncapi.text()


def test_example_settings_are_fresh() -> None:
    """hitstream.example.toml is what `hitstream config --example` prints (`make docs`)."""
    assert (ROOT / "hitstream.example.toml").read_text(encoding="utf-8") == example()
