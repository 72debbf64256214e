"""The client's times against the server's own histogram of the same requests.

The server counts every request it answered in `credit_http_request_duration_seconds`. Read before
and after a run, the difference says how many requests the server saw and what share of them took
no longer than each bucket edge. If the two counts differ, requests were lost or somebody else
asked too, and neither figure should be trusted. Shares may differ: what lies between them is the
time on the connection, in the kernel's queue before the server looked, and in the generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.measurement import Samples

DURATION = "credit_http_request_duration_seconds"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Requests of one route: all of them, and those within each edge (seconds, cumulative)."""

    requests: int
    within: Mapping[float, int]

    def since(self, before: Histogram | None) -> Histogram:
        """What was counted after ``before``; None: nothing was counted by then."""
        if before is None:
            return self
        return Histogram(
            self.requests - before.requests,
            {edge: count - before.within.get(edge, 0) for edge, count in self.within.items()},
        )


@dataclass(frozen=True, slots=True)
class Edge:
    """Share of the requests that took at most ``seconds``, as either side saw it."""

    seconds: float
    server: float
    client: float


@dataclass(frozen=True, slots=True)
class RouteCheck:
    """One route as both sides saw it."""

    route: str
    server_requests: int
    client_requests: int
    edges: tuple[Edge, ...]

    @property
    def agrees(self) -> bool:
        """Whether both counted the same number of requests."""
        return self.server_requests == self.client_requests

    @property
    def widest(self) -> Edge | None:
        """The edge at which the shares differ most."""
        return max(self.edges, key=lambda e: abs(e.server - e.client), default=None)


def histograms(text: str) -> dict[str, Histogram]:
    """The server's histogram of request times by route, from Prometheus text."""
    within: dict[str, dict[float, int]] = {}
    for family in text_string_to_metric_families(text):
        if family.name != DURATION:
            continue
        for sample in family.samples:
            if sample.name == f"{DURATION}_bucket":
                edges = within.setdefault(sample.labels["route"], {})
                edges[float(sample.labels["le"])] = int(sample.value)
    return {
        route: Histogram(
            edges[math.inf], {edge: n for edge, n in sorted(edges.items()) if edge != math.inf}
        )
        for route, edges in within.items()
    }


def compare(
    before: Mapping[str, Histogram], after: Mapping[str, Histogram], samples: Samples
) -> tuple[RouteCheck, ...]:
    """Both sides' view of each route that the client called.

    Every request the client sent counts, answered or not.
    """
    checks = []
    for route in samples.routes:
        ms = samples.of(route).ms
        if not len(ms):
            continue
        seen = after.get(route, Histogram(0, {})).since(before.get(route))
        edges = tuple(
            Edge(edge, count / seen.requests, float(np.mean(ms <= edge * 1e3)))
            for edge, count in seen.within.items()
            if seen.requests
        )
        checks.append(RouteCheck(route, seen.requests, len(ms), edges))
    return tuple(checks)
