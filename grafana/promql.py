"""PromQL as the panels write it, with shorthands for what every selector needs.

One dashboard never mixes two deployments:

- ``@job``: the deployment,
- ``@server``: and the servers chosen,
- ``@portfolio``: and the portfolio,
- ``@model``: and the model version,
- ``@drift``: deployment, portfolio and model version, for recorded series that have no instance,
- ``@monitor``: as ``@drift``, of the job that watches the deployment, which is scraped under the
  deployment's name with ``-monitor`` behind it,
- ``@watched``: of that job, and of the portfolio,
- ``@scoring``: the routes that objectives are about.

Nothing is divided by zero, and a quantile of nothing is left out, so that no panel shows NaN.
"""

from __future__ import annotations

# In this order: longer ones lead to shorter ones.
_SHORTHANDS = {
    "@scoring": 'route=~"/predict|/predict/batch|/predict/explain|/explain"',
    "@monitor": '@watched,model_version="$model_version"',
    "@watched": 'job="${job}-monitor",portfolio="$portfolio"',
    "@portfolio": '@server,portfolio="$portfolio"',
    "@model": '@server,portfolio="$portfolio",model_version="$model_version"',
    "@drift": '@job,portfolio="$portfolio",model_version="$model_version"',
    "@server": '@job,instance=~"$instance"',
    "@job": 'job="$job"',
}
RANGE = "$__range"
"""All of the time shown."""
INTERVAL = "$__rate_interval"
"""As short a time as a rate can be told over."""


def written_out(text: str) -> str:
    """A query without shorthands."""
    for short, long in _SHORTHANDS.items():
        text = text.replace(short, long)
    return text


def rate(series: str, *by: str) -> str:
    """What a counter grows by in a second, added up by labels."""
    return f"sum{_by(by)} (rate({series}[{INTERVAL}]))"


def increase(series: str, *by: str, over: str = RANGE) -> str:
    """What a counter grew by, added up by labels."""
    return f"sum{_by(by)} (increase({series}[{over}]))"


def quantile(q: float, histogram: str, selector: str, *by: str) -> str:
    """A quantile of what a histogram observed lately; nothing where it observed nothing."""
    buckets = rate(f"{histogram}_bucket{{{selector}}}", "le", *by)
    return f"histogram_quantile({q}, {buckets}) >= 0"


def share(part: str, whole: str) -> str:
    """Parts of one number; nothing where it is 0."""
    return f"{part} / on () group_left () ({whole} > 0)"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
