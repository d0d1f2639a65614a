"""Metrics, reasons and remedies have the same names wherever they are written."""

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from processor.database.sqlstates import Remedy
from processor.errors import Reason
from processor.model import Outcome
from processor.runtime import metrics
from producers.gateway import metrics as gateway_metrics
from producers.gateway.grpc import metrics as grpc_measures
from producers.gateway.http import measures

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "reference" / "metrics.md"
ALERTS = TOP / "docs" / "howto" / "alerts.md"
REJECTIONS = TOP / "docs" / "howto" / "rejections.md"
LABELS = {"outcome", "reason", "state", "operation", "remedy", "event_type", "schema_version"} | {
    "word",
    "route",
    "method",
    "status",
}
"""Each has values from a list of ours, or from the registry. What a sender may choose would let it grow the
series at will."""

MODULES = (metrics, gateway_metrics, measures, grpc_measures)
Metric = Counter | Gauge | Histogram


def _metrics() -> dict[str, Metric]:
    """Every metric of ours by the name that Prometheus shows."""
    found = {}
    for metric in (value for module in MODULES for value in vars(module).values()):
        if isinstance(metric, Metric):
            [family] = metric.describe()
            found[family.name + ("_total" if isinstance(metric, Counter) else "")] = metric
    return found


def _table(page: Path) -> dict[str, list[str]]:
    """The rows of the first table of a page, by their first cell."""
    table = re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)[0]
    rows = [
        # A bar inside a cell is written with a backslash before it.
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
    ]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def _explained() -> dict[str, list[str]]:
    """The rows of the page of metrics, by their first cell."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert len(rows) == len({row[0] for row in rows})
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_reference_explains_every_metric_and_no_other() -> None:
    assert set(_explained()) == set(_metrics())


@pytest.mark.parametrize("name", _metrics())
def test_the_reference_has_the_type_and_the_labels_of_a_metric(name: str) -> None:
    kind, labels, meaning, _ = _explained()[name]

    assert kind == type(_metrics()[name]).__name__.lower()
    assert re.findall(r"`(\w+)`", labels) == list(_metrics()[name]._labelnames)
    assert meaning


@pytest.mark.parametrize("name", _metrics())
def test_a_label_has_values_from_a_list_of_ours(name: str) -> None:
    assert set(_metrics()[name]._labelnames) <= LABELS


@pytest.mark.parametrize("name", _metrics())
def test_a_metric_says_whose_it_is_and_in_which_unit(name: str) -> None:
    metric = _metrics()[name]

    assert name.startswith("processor_" if metric in vars(metrics).values() else "gateway_")
    assert metric._documentation.endswith(".")
    assert not re.search(r"_(ms|s|milliseconds|kb)(_|$)", name), "seconds and bytes, whole words"


def test_an_alert_names_only_metrics_and_labels_that_exist() -> None:
    known = set(_metrics())
    for alert, (expression, _) in _table(ALERTS).items():
        for name, selector in re.findall(r"((?:processor|gateway)_\w+)(?:\{([^}]*)\})?", expression):
            assert name in known, alert
            assert set(re.findall(r"(\w+)=", selector)) <= set(_metrics()[name]._labelnames), alert


def test_the_values_in_alerts_exist() -> None:
    text = "\n".join(expression for expression, _ in _table(ALERTS).values())

    remedies = {
        remedy
        for values in re.findall(r'remedy=~"([^"]*)"', text)
        for remedy in values.replace("\\", "").split("|")
    }
    assert remedies
    assert remedies <= {remedy.name.lower() for remedy in Remedy}
    assert set(re.findall(r'outcome="(\w+)"', text)) <= {outcome.value for outcome in Outcome}


def test_reasons_are_the_same_in_python_and_in_the_tables() -> None:
    """The last migration that names the constraint is the one that holds."""
    constraints = [
        found[1]
        for path in sorted((TOP / "sql" / "migrations").glob("*.sql"))
        for found in re.finditer(
            r"rejection_reason_known CHECK \(reason IN \(([^)]*)\)\)", path.read_text(encoding="utf-8")
        )
    ]

    assert set(re.findall(r"'(\w+)'", constraints[-1])) == {reason.value for reason in Reason}


def test_the_page_of_rejections_says_of_every_reason_what_to_do() -> None:
    assert list(_table(REJECTIONS)) == [reason.value for reason in Reason]


@pytest.mark.parametrize("page", ["README.md", "docs/reference/queries.md"])
def test_a_page_that_lists_reasons_lists_all_of_them(page: str) -> None:
    path = TOP / page
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = {
        reason.value for reason in Reason if re.search(rf"^(?:\| |#+ )`{reason.value}`", text, re.MULTILINE)
    }

    assert named in (set(), {reason.value for reason in Reason})
