"""Every query of dashboards, rules and runbook asks for series and labels that there are."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.__main__ import FOLDER
from tests import declared
from tests.promql import TARGET, Mistaken, Reader, filled

ROOT = Path(__file__).parents[2]
RULES = ROOT / "prometheus" / "rules"
RUNBOOK = ROOT / "docs" / "runbook.md"
EXTERNAL = {
    # Prometheus itself makes these of each scrape, and of each alert.
    "up": TARGET,
    "scrape_duration_seconds": TARGET,
    "ALERTS": TARGET | {"alertname", "alertstate", "severity", "portfolio"},
    # The OpenTelemetry Collector's own metrics; with or without the suffix, as it is configured.
    **{
        f"otelcol_{counted}_{of}{suffix}": TARGET | labels
        for counted, labels in (
            ("exporter_send_failed", {"exporter"}),
            ("exporter_enqueue_failed", {"exporter"}),
            ("receiver_refused", {"receiver", "transport"}),
        )
        for of in ("spans", "log_records")
        for suffix in ("", "_total")
    },
    # Tempo's metrics generator, processor span-metrics.
    "traces_spanmetrics_latency_bucket": frozenset(
        {"service", "span_name", "span_kind", "status_code", "le"}
    ),
}


TOTALS = "credit:decisions_unrecorded:sum"
"""Compares counters as they stand: not what they grow by, but that one never passes the other."""


def exposed() -> dict[str, frozenset[str]]:
    """Labels of the series that the server's metrics make, by name."""
    found = {}
    for name, kind, own, _ in declared.metrics():
        labels = TARGET | set(own)
        if kind == "histogram":
            found[f"{name}_bucket"] = labels | {"le"}
            found[f"{name}_count"] = found[f"{name}_sum"] = labels
        else:
            found[name] = labels
    return found


def rules() -> list[dict[str, Any]]:
    """Recording rules, then alerts."""
    return [
        rule
        for name in ("recording.yaml", "alerts.yaml")
        for group in yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def recorded(reading: Reader, rule: dict[str, Any]) -> frozenset[str]:
    """The labels of a recorded series."""
    return reading.labels(rule["expr"], totals=rule.get("record") == TOTALS)


@cache
def known() -> dict[str, frozenset[str]]:
    """Labels of all series that there are, those of rules included, by name."""
    found = EXTERNAL | exposed()
    reading = Reader(found)
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = recorded(reading, rule)
    return found


def reader() -> Reader:
    """Reads queries about what is exposed and recorded."""
    return Reader(known())


TARGETS = [
    pytest.param(target, id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in sorted(FOLDER.glob("*.json"))
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    for target in panel.get("targets", ())
    if panel["type"] != "logs"
]
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in rules() if "alert" in rule]


@pytest.mark.parametrize("target", TARGETS)
def test_a_panel_asks_for_what_there_is_and_names_it_by_labels_it_has(
    target: dict[str, Any],
) -> None:
    """Name, matchers, grouping, joins; and the legend's labels are those of the answer."""
    labels = reader().labels(filled(target["expr"]))

    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_watches_what_there_is_and_speaks_of_labels_it_has(alert: dict[str, Any]) -> None:
    """As above, of its summary and description."""
    labels = reader().labels(alert["expr"])

    said = " ".join(alert["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels


def test_the_runbooks_queries_ask_for_what_there_is() -> None:
    """Each line of a block of PromQL."""
    reading = reader()
    blocks = re.findall(r"```promql\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    queries = [line for block in blocks for line in block.splitlines()]

    assert len(queries) >= 6
    assert all(isinstance(reading.labels(query), frozenset) for query in queries)


def test_every_recorded_series_is_shown_or_watched() -> None:
    """A rule whose result nobody reads costs and says nothing."""
    reading = reader()
    for rule in rules():
        recorded(reading, rule)
    for target in TARGETS:
        reading.labels(filled(target.values[0]["expr"]))  # type: ignore[index]

    assert {rule["record"] for rule in rules() if "record" in rule} <= reading.seen


def test_every_metric_of_the_server_is_shown() -> None:
    """On some dashboard, or by a rule that one shows."""
    reading = reader()
    for target in TARGETS:
        reading.labels(filled(target.values[0]["expr"]))  # type: ignore[index]

    def family(name: str) -> str:
        return re.sub(r"_(bucket|sum|count)$", "", name)

    assert {family(name) for name in exposed()} - {family(name) for name in reading.seen} == set()


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(credit_nothing)", "no series credit_nothing"),
        ('credit_ready{portfolio="a"}', "credit_ready has no portfolio"),
        ("sum by (route) (credit_ready)", "has no route"),
        ("credit_decisions_total", "is a counter"),
        ("sum by (job) (credit_ready) / sum by (instance) (credit_ready)", "beside"),
        ("sum by (job) (credit_ready) / on (instance) credit_ready", "not on both sides"),
    ],
)
def test_a_wrong_query_is_seen(expression: str, wrong: str) -> None:
    """What the tests above stand on."""
    with pytest.raises(Mistaken, match=wrong):
        reader().labels(expression)
