"""The metrics that are declared, as they are exposed: for the tests that hold others to them."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.metrics import Metrics


class Declared(NamedTuple):
    """A metric: its name as in ``GET /metrics``, its type, its labels and what it means.

    Samples of a histogram have their usual suffixes and the label ``le`` besides.
    """

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def metrics() -> list[Declared]:
    """Every metric, in the order of `monitoring.metrics`."""
    return [_declared(metric) for metric in collectors(Metrics(CollectorRegistry()))]


def collectors(declared: Metrics) -> list[Counter | Gauge | Histogram]:
    """The metrics themselves."""
    return [metric for group in vars(declared).values() for metric in vars(group).values()]


def _declared(metric: Counter | Gauge | Histogram) -> Declared:
    (family,) = metric.describe()
    labels = tuple(metric._labelnames)  # noqa: SLF001 - there is no other way
    if isinstance(metric, Gauge) and metric._multiprocess_mode == "liveall":  # noqa: SLF001
        labels += ("pid",)
    name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
    return Declared(name, family.type, labels, family.documentation)
