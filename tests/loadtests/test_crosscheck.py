"""The client's count and times against the server's own histogram."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from loadtests import crosscheck
from loadtests.crosscheck import Histogram
from monitoring.metrics import LATENCY_BUCKETS, Metrics
from tests.loadtests.traffic import samples


def test_the_histogram_is_read_as_the_server_writes_it() -> None:
    """Every edge of every route, cumulative, without the one at infinity."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for seconds in (0.0007, 0.003, 0.004, 9.0):
        metrics.http.duration.labels("/predict").observe(seconds)
    metrics.http.duration.labels("/explain").observe(0.02)

    read = crosscheck.histograms(generate_latest(registry).decode())

    assert read["/predict"].requests == 4
    assert tuple(read["/predict"].within) == LATENCY_BUCKETS
    assert read["/predict"].within[0.001] == 1
    assert read["/predict"].within[0.005] == 3
    assert read["/predict"].within[5.0] == 3
    assert read["/explain"].requests == 1


def test_only_what_was_counted_in_between_is_compared() -> None:
    """Ten were answered before; shares are of the four since."""
    before = {"/predict": Histogram(10, {0.001: 10, 0.005: 10})}
    after = {"/predict": Histogram(14, {0.001: 11, 0.005: 14})}

    (check,) = crosscheck.compare(before, after, samples([0.9, 1.0, 4.0, 6.0]))

    assert (check.server_requests, check.client_requests, check.agrees) == (4, 4, True)
    assert [(e.seconds, e.server, e.client) for e in check.edges] == [
        (0.001, 0.25, 0.5),
        (0.005, 1.0, 0.75),
    ]
    assert check.widest is not None
    assert abs(check.widest.server - check.widest.client) == pytest.approx(0.25)


@pytest.mark.parametrize("server", [3, 5])
def test_a_request_lost_or_one_too_many_is_flagged(server: int) -> None:
    """Failed ones count: the server saw them too, or they were lost."""
    after = {"/predict": Histogram(server, {0.005: server})}

    (check,) = crosscheck.compare({}, after, samples([1.0] * 4, failed=[0]))

    assert not check.agrees


def test_routes_are_checked_each_by_itself() -> None:
    """Those the client called, and a route the server never saw."""
    after = {"/predict": Histogram(2, {0.005: 2}), "/readyz": Histogram(9, {0.005: 9})}

    checks = crosscheck.compare({}, after, samples([1.0] * 3, route=[0, 0, 2]))

    assert [(c.route, c.server_requests, c.client_requests) for c in checks] == [
        ("/predict", 2, 2),
        ("/explain", 0, 1),
    ]
    assert checks[1].edges == ()
    assert checks[1].widest is None
