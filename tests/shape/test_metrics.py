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

TOP = Path(__file__).parents[2]
RUNBOOK = TOP / "deployments" / "README.md"
LABELS = {"outcome", "reason", "state", "operation", "remedy", "word", "event_type", "schema_version"}
"""Each has values from a list of ours, or from the registry. What a sender may choose would let it grow the
series at will."""

Metric = Counter | Gauge | Histogram


def _metrics() -> dict[str, Metric]:
    """Every metric of ours by the name that Prometheus shows."""
    found = {}
    for metric in (*vars(metrics).values(), *vars(gateway_metrics).values()):
        if isinstance(metric, Metric):
            [family] = metric.describe()
            found[family.name + ("_total" if isinstance(metric, Counter) else "")] = metric
    return found


def _table(heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading of the runbook, by their first cell."""
    section = RUNBOOK.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        # A bar inside a cell is written with a backslash before it.
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_the_runbook_explains_every_metric_and_no_other() -> None:
    assert set(_table("Metrics")) == set(_metrics())


@pytest.mark.parametrize("name", _metrics())
def test_the_runbook_names_the_labels_of_a_metric(name: str) -> None:
    labels, meaning, _ = _table("Metrics")[name]

    assert re.findall(r"`(\w+)`", labels) == list(_metrics()[name]._labelnames)
    assert meaning


@pytest.mark.parametrize("name", _metrics())
def test_a_label_has_values_from_a_list_of_ours(name: str) -> None:
    assert set(_metrics()[name]._labelnames) <= LABELS


@pytest.mark.parametrize("name", _metrics())
def test_a_metric_says_whose_it_is_and_in_which_unit(name: str) -> None:
    metric = _metrics()[name]

    assert name.startswith("gateway_" if metric in vars(gateway_metrics).values() else "processor_")
    assert metric._documentation.endswith(".")
    assert not re.search(r"_(ms|s|milliseconds|kb)(_|$)", name), "seconds and bytes, whole words"


def test_an_alert_names_only_metrics_and_labels_that_exist() -> None:
    known = set(_metrics())
    for alert, (expression, _) in _table("Alerts").items():
        for name, selector in re.findall(r"((?:processor|gateway)_\w+)(?:\{([^}]*)\})?", expression):
            assert name in known, alert
            assert set(re.findall(r"(\w+)=", selector)) <= set(_metrics()[name]._labelnames), alert


def test_the_values_in_alerts_exist() -> None:
    text = "\n".join(expression for expression, _ in _table("Alerts").values())

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


def test_the_runbook_says_of_every_reason_what_to_do() -> None:
    assert list(_table("Rejections")) == [reason.value for reason in Reason]


@pytest.mark.parametrize("page", ["README.md", "sql/README.md"])
def test_a_page_that_lists_reasons_lists_all_of_them(page: str) -> None:
    path = TOP / page
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = {
        reason.value for reason in Reason if re.search(rf"^(?:\| |#+ )`{reason.value}`", text, re.MULTILINE)
    }

    assert named in (set(), {reason.value for reason in Reason})
