"""What monitoring found, in the table of it: the newest of each window, and the windows before.

A result is of a kind, such as drift, and of a window of decisions of one package. Found again for
the same window it takes the place of the one before; those of earlier windows stay, as the history.
Two jobs at once leave one result of each window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.tables import MONITORING_RESULTS
from credit_risk.decisions import new_id

if TYPE_CHECKING:
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Alongside
    from credit_risk.windows import Window

_R = MONITORING_RESULTS.c


class Result(NamedTuple):
    """Something found of a package's decisions from ``since`` on and before ``until``.

    Times are microseconds since the epoch; ``time`` is when it was found. ``body`` is JSON.
    """

    portfolio: str
    model_version: str
    kind: str
    since: int
    until: int
    time: int
    body: dict[str, Any]


def keep(results: Sequence[Result]) -> Alongside:
    """What writes results, for `SqlAuditLog.append`."""
    return partial(_keep, results)


def find(
    records: SqlRecords, portfolio: str, version: str, kind: str, window: Window
) -> list[Result]:
    """The results on record whose windows lie within one, in order of their windows.

    Raises:
        RecordingFailed: the database fails.
    """
    columns = [_R[name] for name in Result._fields]
    found = sa.select(*columns).where(
        *(_R.portfolio == portfolio, _R.kind == kind, _R.model_version == version),
        *(_R.since >= window.since, _R.until <= window.until),
    )
    with records.reading() as connection:
        rows = connection.execute(found.order_by(_R.since, _R.until)).all()
    return [Result._make((*row[:-1], pydantic_core.from_json(row.body))) for row in rows]


def _keep(results: Sequence[Result], connection: sa.Connection) -> None:
    for result in results:
        same = [getattr(_R, name) == getattr(result, name) for name in Result._fields[:5]]
        connection.execute(sa.delete(MONITORING_RESULTS).where(*same))
    rows = [
        {
            "id": new_id(),
            **result._asdict(),
            "body": pydantic_core.to_json(result.body, inf_nan_mode="null").decode(),
        }
        for result in results
    ]
    if rows:
        connection.execute(sa.insert(MONITORING_RESULTS), rows)
