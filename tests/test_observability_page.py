"""docs/observability.md says what the code does."""

from __future__ import annotations

import inspect
import json
import logging
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from credit_risk.decisions import Call
from monitoring import traces
from monitoring.accounts import Accounts, Answered
from monitoring.logs import REQUESTS, Line
from monitoring.metrics import Metrics
from monitoring.traces import Traces
from tests import declared
from tests.declared import Declared

PAGE = (Path(__file__).parents[1] / "docs" / "observability.md").read_text(encoding="utf-8")


def row(metric: Declared) -> str:
    """A metric's row in the table."""
    return f"| `{metric.name}` | {', '.join(metric.labels)} | {metric.help} |"


@pytest.mark.parametrize("metric", declared.metrics(), ids=lambda metric: metric.name)
def test_every_metric_is_in_the_table(metric: Declared) -> None:
    """Name, labels and meaning as in the code."""
    assert row(metric) in PAGE


def test_no_metric_is_made_up() -> None:
    """Each row of the table is of one that there is."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `credit_")]

    assert rows == [row(metric) for metric in declared.metrics()]


def test_the_line_shown_is_one_that_the_server_prints(caplog: pytest.LogCaptureFixture) -> None:
    """Its fields, in their order."""
    (shown,) = re.findall(r"```json\n(.*)\n```", PAGE)
    caplog.set_level(logging.INFO, REQUESTS.name)
    accounts = Accounts(Metrics(CollectorRegistry()), Traces(0.0, None))
    call = Call("/predict", "request-1")

    accounts.answered(Answered(call, "POST", "/predict", 200, 0.1, {}, None, 1e9))
    accounts.flush()

    (record,) = caplog.records
    assert [*json.loads(shown)] == [*json.loads(Line().format(record))]


def test_every_attribute_of_a_span_is_named() -> None:
    """And none that no span has."""
    source = inspect.getsource(traces)
    made = {f"credit.{name}" for name in traces.OF_ANSWERS}
    made |= set(re.findall(r'"(credit\.[a-z_.]+)"', source))

    assert set(re.findall(r"`(credit\.[a-z_.]+)`", PAGE)) == made
