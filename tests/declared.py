"""The metrics that are declared, as they are exposed: for the tests that hold others to them."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.gauges import JobMetrics
from monitoring.metrics import Metrics, WorkerMetrics


class Declared(NamedTuple):
    """A metric: its name as in ``GET /metrics``, its type, its labels and what it means.

    Samples of a histogram have their usual suffixes and the label ``le`` besides.
    """

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def metrics() -> list[Declared]:
    """Every metric, of servers and of the monitoring job."""
    return of_servers() + of_the_job()


def of_servers() -> list[Declared]:
    """Those of servers, in the order of `monitoring.metrics`."""
    of_worker = _collectors(WorkerMetrics(CollectorRegistry()))
    return [_declared(metric) for metric in collectors(Metrics(CollectorRegistry())) + of_worker]


def of_the_job() -> list[Declared]:
    """Those of the monitoring job, in the order of `monitoring.gauges`."""
    return [_declared(metric) for metric in collectors(JobMetrics(CollectorRegistry()))]


def collectors(declared: Metrics | JobMetrics) -> list[Counter | Gauge | Histogram]:
    """The metrics themselves."""
    return [metric for group in vars(declared).values() for metric in _collectors(group)]


def _collectors(group: object) -> list[Counter | Gauge | Histogram]:
    return list(vars(group).values())


def _declared(metric: Counter | Gauge | Histogram) -> Declared:
    (family,) = metric.describe()
    labels = tuple(metric._labelnames)  # noqa: SLF001 - there is no other way
    if isinstance(metric, Gauge) and metric._multiprocess_mode == "liveall":  # noqa: SLF001
        labels += ("pid",)
    name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
    return Declared(name, family.type, labels, family.documentation)
