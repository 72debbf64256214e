"""Accounts: noted at once, counted and told later, once each."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from credit_risk.batching import Batched
from credit_risk.decisions import Call
from credit_risk.reviews import Closing
from credit_risk.scoring import decide
from monitoring.accounts import Accounts, Answered
from monitoring.metrics import Metrics
from monitoring.traces import Traces
from tests import toys

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

DECIDED = {"decision_id": "d-1", "decision": "DECLINE"}
ANSWERED = Answered(Call("/predict", "r-1"), "POST", "/predict", 200, 0.0021, DECIDED, None, 1e9)
REFUSED = Answered(Call("", "r-2"), "POST", "/predict", 422, 0.0003, {}, "/problems/x", 1e9)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Nothing counted yet."""
    return CollectorRegistry()


@pytest.fixture
def accounts(registry: CollectorRegistry) -> Accounts:
    """Nothing noted yet."""
    return Accounts(Metrics(registry), Traces(1.0, None))


def test_nothing_is_counted_before_its_time(
    accounts: Accounts, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Noting is all that whoever answers waits for."""
    caplog.set_level(logging.INFO)
    accounts.answered(ANSWERED)
    labels = {"route": "/predict", "status_class": "2xx", "problem": "none"}
    assert registry.get_sample_value("credit_http_requests_total", labels) is None
    assert caplog.records == []

    accounts.flush()
    assert registry.get_sample_value("credit_http_requests_total", labels) == 1
    assert len(caplog.records) == 1


def test_everything_is_counted_once(
    accounts: Accounts, registry: CollectorRegistry, any_package: ModelPackage
) -> None:
    """However often it is flushed, and whatever came between."""
    (decision,) = decide(any_package, [toys.RISKY])
    for _ in range(3):
        for _ in range(5):
            accounts.answered(ANSWERED)
            accounts.decided(any_package, [toys.RISKY, toys.RISKY], [decision, decision])
        accounts.answered(REFUSED)
        accounts.recorded("decision", 5)
        accounts.reviewed(toys.NAME, Closing("APPROVE", ("ada",), ("R", "S"), "low-side", 1))
        accounts.reviewed(toys.NAME, Closing("DECLINE", ("ada",), ("R",), None, 1))
        accounts.keyed("replayed")
        accounts.batched(Batched(any_package, 5, 0.001, 2, 1.0, 2.0))
        accounts.flush()
        accounts.flush()

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    requests, route = "credit_http_requests_total", "/predict"
    assert sample(requests, route=route, status_class="2xx", problem="none") == 15
    assert sample(requests, route=route, status_class="4xx", problem="x") == 3
    assert sample("credit_http_request_duration_seconds_count", route="/predict") == 18
    assert sample("credit_http_request_duration_seconds_sum", route="/predict") == pytest.approx(
        15 * 0.0021 + 3 * 0.0003
    )
    assert sample("credit_records_written_total", kind="decision") == 15
    assert sample("credit_idempotent_requests_total", outcome="replayed") == 3
    assert sample("credit_batch_rows_sum") == 15
    assert sample("credit_batch_rows_count") == 3
    assert sample("credit_batch_wait_seconds_sum") == pytest.approx(0.003)
    assert sample("credit_batch_queue_rows") == 2
    closed = {"portfolio": toys.NAME, "reason": "R"}
    by_decision = {"APPROVE": "low-side", "DECLINE": "none"}
    for name, override in by_decision.items():
        assert sample("credit_reviews_total", decision=name, override=override, **closed) == 3
    labels = {"portfolio": toys.NAME, "model_version": any_package.version}
    reached = {"decision": "DECLINE", "band": "VERY_HIGH"}
    reached["policy_version"] = any_package.policy_version
    assert sample("credit_decisions_total", **reached, **labels) == 30
    for reason in decision.reasons:
        assert sample("credit_reasons_total", code=reason.code, **labels) == 30


def test_a_line_tells_when_it_happened(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    """And not when somebody came to write it."""
    caplog.set_level(logging.INFO)
    accounts.answered(Answered(Call("/livez", "r-3"), "GET", "/livez", 200, 0.1, {}, None, 1_000.5))
    accounts.flush()

    (line,) = caplog.records
    assert line.created == pytest.approx(1_000.5)
    assert vars(line)["ms"] == pytest.approx(100.0)


def test_no_line_is_made_that_nobody_wants(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    """The level is a setting."""
    caplog.set_level(logging.WARNING, "credit_risk.requests")
    accounts.answered(ANSWERED)
    accounts.flush()

    assert caplog.records == []


def test_a_started_one_counts_by_itself_and_to_the_last(
    accounts: Accounts, registry: CollectorRegistry
) -> None:
    """What is noted right before the end is counted too, and the thread ends."""
    before = threading.active_count()
    labels = {"kind": "refusal"}
    accounts.start()
    accounts.recorded("refusal", 1)
    for _ in range(1_000):
        if registry.get_sample_value("credit_records_written_total", labels):
            break
        time.sleep(0.01)
    assert registry.get_sample_value("credit_records_written_total", labels) == 1

    accounts.recorded("refusal", 2)
    accounts.close()
    assert registry.get_sample_value("credit_records_written_total", labels) == 3
    assert threading.active_count() == before


def test_what_cannot_be_counted_is_told_once_and_holds_nothing_up(
    accounts: Accounts, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that ended would let everything that is noted later pile up."""
    times = 0

    def failing() -> None:
        nonlocal times
        times += 1
        raise ZeroDivisionError

    accounts.read(failing)
    accounts.start()
    for _ in range(1_000):
        accounts.recorded("refusal", 1)
        if times >= 3:
            break
        time.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        accounts.close()

    assert registry.get_sample_value("credit_records_written_total", {"kind": "refusal"})
    told = [record for record in caplog.records if record.name == "monitoring.accounts"]
    assert (times >= 3, len(told)) == (True, 1)
