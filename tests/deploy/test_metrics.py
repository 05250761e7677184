"""The figures of all roles: named as Prometheus wants it, and on their page."""

from __future__ import annotations

import re

import pytest

from deploy import metrics
from deploy.metrics import Figure, figures

UNITS = ("_seconds", "_bytes", "_records", "_rows", "_ratio")


def test_the_page_is_fresh() -> None:
    """docs/metrics.md is what the code declares now (`make docs`)."""
    assert metrics.FILE.read_text(encoding="utf-8") == metrics.text()


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: figure.name)
def test_a_figure_is_named_as_prometheus_wants_it(figure: Figure) -> None:
    """Snake case with the product's prefix; distributions and moments have a unit; it says what it is about."""
    assert re.fullmatch(r"hitstream(_[a-z0-9]+)+", figure.name)
    assert figure.kind in ("counter", "gauge", "histogram")
    assert figure.kind != "histogram" or figure.name.endswith(UNITS)
    assert ("timestamp" in figure.name) == figure.name.endswith("_timestamp_seconds")
    assert figure.words.endswith((".", "`")), "a sentence"
    assert not {"code", "id", "offset", "session", "connection"} & set(figure.labels), "labels with no end of values"


def test_values_are_of_labels_that_there_are() -> None:
    labels = {(figure.name, label) for figure in figures() for label in figure.labels}
    assert metrics.values().keys() <= labels
