"""The job: everything that monitoring has to say about a portfolio, computed and put on record.

A run counts the decisions that nobody has counted yet, and never reads one twice; then it looks at
each package that decided lately. Results of days that are over stay as they are, unless decisions
of them came late. What was found goes into the table of results, and makes metrics and reports.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from credit_risk import challenges, contests, groups, stability, windows
from credit_risk.audit.records import instant
from credit_risk.audit.tables import LAST_PLACE
from credit_risk.drift import LEAST_ROWS, Drift
from credit_risk.errors import Conflict, EvidenceInvalid, RequestInvalid
from credit_risk.fairness import Fairness
from credit_risk.oversight import Oversight
from credit_risk.performance import Performance
from credit_risk.retraining import Check
from credit_risk.windows import DAY, DAYS_MOST, Window
from monitoring import multivariate, results
from monitoring.charts import Day
from monitoring.report import Monitored
from monitoring.results import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.challenger import Contest
    from credit_risk.documents import Document
    from credit_risk.package import ModelPackage
    from credit_risk.retraining import MonitoringPolicy
    from credit_risk.windows import Known

    Look = Callable[[str], ModelPackage | None]
    Told = Callable[[int, int], None]

    D = TypeVar("D", bound=Document)

logger = logging.getLogger("credit_risk.monitoring")

_WEEK = 7 * DAY
SHOWN_DAYS = 90
"""Days that a report goes back; packages that decided in none of them are not looked at."""
WINDOW_DAYS = 7
"""Days that are compared with the reference together, today among them."""
_NICEST = 19


@dataclass(frozen=True)
class Portfolio:
    """A portfolio to look at.

    Args:
        name: its name.
        policy: how it is watched.
        look: its packages, by version; None where one is not installed.
        deciding: the version that decides now, None where none does.
        groups: what opens the groups of its applicants, None where there are no keys.
    """

    name: str
    policy: MonitoringPolicy
    look: Look
    deciding: str | None = None
    groups: Sealing | None = None


def run(log: SqlAuditLog, portfolio: Portfolio, now: int, told: Told) -> list[Monitored]:
    """Look at a portfolio once.

    Args:
        log: its records, which the results go beside.
        portfolio: whose packages.
        now: microseconds since the epoch.
        told: is told how many records were gone through, and of how many.

    Returns:
        What is known of each package that decided within `SHOWN_DAYS` and is installed; the one
        that decides is the first.

    Raises:
        RecordingFailed: the database fails; what was counted by then stays so.
        EvidenceInvalid: applicants were counted by another program; see `windows.forget`.
    """
    count(log, portfolio, told)
    today = now // DAY * DAY + DAY
    shown = Window(today - SHOWN_DAYS * DAY, today)
    versions = windows.versions(log, portfolio.name, shown)
    found = []
    for version in sorted(versions, key=lambda name: (name != portfolio.deciding, name)):
        package = portfolio.look(version)
        if package is not None:
            found.append(_look(log, portfolio, package, shown, now))
    return found


def count(log: SqlAuditLog, portfolio: Portfolio, told: Told) -> None:
    """Count the decisions that nobody counted yet, however many jobs do so at once.

    Raises:
        RecordingFailed: see `run`.
        EvidenceInvalid: see `run`.
    """
    known: dict[str, Known | None] = {}

    def look(version: str) -> Known | None:
        if version not in known:
            package = portfolio.look(version)
            known[version] = None if package is None else windows.known(package)
        return known[version]

    first: int | None = None
    while True:
        batch = windows.count(log, portfolio.name, look)
        try:
            log.append((), alongside=windows.keep(batch)).result()
        except Conflict:
            continue  # somebody else has counted these
        first = batch.after or 0 if first is None else first
        told(batch.upto - first, max(_last(log), batch.upto) - first)
        if batch.done:
            return


def forget(log: SqlAuditLog, portfolio: str) -> None:
    """Have everything counted anew by the next run; see `windows.forget`."""
    log.append((), alongside=windows.forget(portfolio)).result()


def give_way() -> None:
    """Have the calling thread, and no other one, work only while nobody else has to.

    For who computes; whoever writes must not be kept waiting, as others wait for the lock then.
    The priority of a process is that of its threads, one by one (Linux, sched(7)); while the log's
    thread writes, the one that computes waits for it, and so has the interpreter's lock no more.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)


def _look(
    log: SqlAuditLog, portfolio: Portfolio, package: ModelPackage, shown: Window, now: int
) -> Monitored:
    """What is known of a package; what was not known before is on record."""
    oversight = Oversight(log, package)
    found: list[Result] = []

    def keep(kind: str, window: Window, body: dict[str, Any]) -> dict[str, Any]:
        found.append(Result(package.portfolio, package.version, kind, *window, now, body))
        return body

    days = _days(log, oversight, shown, keep)
    recent = Window(shown.until - WINDOW_DAYS * DAY, shown.until)
    past = Window(shown.until - DAYS_MOST * DAY, shown.until)
    window = keep("drift", recent, _drift(oversight, recent))
    together = multivariate.look(log, package, recent)
    keep("multivariate", recent, together.model_dump(mode="json"))
    performance = keep(
        "performance", past, oversight.performance(past, now, portfolio.policy.outcome_months)
    )
    # Of the same days as all else here, and not up to this hour: one page has one figure of each.
    checked = keep("retraining", recent, oversight.retraining(portfolio.policy, shown.until - 1))
    fairness = [
        keep(f"fairness:{attribute}", past, body)
        for attribute, body in _groups(log, oversight, portfolio.groups, past)
    ]
    contest = fault = None
    try:
        contest = _contest(log, portfolio, package, past)
    except EvidenceInvalid as error:
        fault = f"nothing is known of the challenger: {error}"
    if contest is not None:
        keep("challenger", past, contest.model_dump(mode="json"))
    log.append((), alongside=results.keep(found)).result()
    titles = {spec.name: spec.title for spec in package.schema.fields}
    return Monitored(
        portfolio=package.portfolio,
        version=package.version,
        decides=package.version == portfolio.deciding,
        made=instant(now),
        titles=titles | {stability.SCORE: "Score (PD)"},
        days=days,
        window_days=WINDOW_DAYS,
        window=_read(Drift, window) if window["rows"] else None,
        together=together,
        estimate=oversight.expected(recent),
        performance=_read(Performance, performance),
        fairness=[_read(Fairness, body) for body in fairness],
        check=_read(Check, checked),
        contest=contest,
        fault=fault,
        weeks=_weeks(oversight, days, shown),
    )


def _contest(
    log: SqlRecords, portfolio: Portfolio, package: ModelPackage, window: Window
) -> Contest | None:
    """The challenger in force beside the package that decides, if anything is known of both.

    Raises:
        EvidenceInvalid: the record of the challenge, or a group, is not as it was written.
    """
    if package.version != portfolio.deciding:
        return None
    challenge = challenges.in_force(log, portfolio.name)
    other = None if challenge is None else portfolio.look(challenge.version)
    if other is None or other.version == package.version:
        return None
    found = contests.contest(log, package, other, window=window, groups_sealing=portfolio.groups)
    return found if found.rows or found.challenger_failures.failed else None


def _days(
    log: SqlRecords,
    oversight: Oversight,
    shown: Window,
    keep: Callable[[str, Window, dict[str, Any]], dict[str, Any]],
) -> list[Day]:
    """The days on which a package decided: those on record as they are, the others computed."""
    package = oversight.package
    of_package = (log, package.portfolio, package.version)
    before = {
        (result.since, result.until): result.body
        for result in results.find(*of_package, "drift", shown)
    }
    days = []
    for day in windows.days(*of_package, shown):
        window = Window(day.day, day.day + DAY)
        body = before.get(window)
        if body is None or body["decisions"] != day.rows or body["not_counted"]:
            now = _drift(oversight, window)
            body = keep("drift", window, now) if now != body else now
        date = datetime.fromtimestamp(day.day / 1e6, UTC).date()
        drift = _read(Drift, body) if body["rows"] else None
        days.append(Day(date, day.rows, day.approved, drift))
    return days


def _weeks(oversight: Oversight, days: Sequence[Day], shown: Window) -> list[Day]:
    """The same by whole weeks up to the last day, if most days have too few to be compared."""
    if not days or median(day.rows for day in days) >= LEAST_ROWS:
        return []
    weeks = []
    for since in range(shown.until - SHOWN_DAYS * DAY // _WEEK * _WEEK, shown.until, _WEEK):
        first, last = (instant(since + place * DAY).date() for place in (0, 6))
        of_it = [day for day in days if first <= day.day <= last]
        if of_it:
            body = _drift(oversight, Window(since, since + _WEEK))
            drift = _read(Drift, body) if body["rows"] else None
            rows, approved = sum(d.rows for d in of_it), sum(d.approved for d in of_it)
            weeks.append(Day(first, rows, approved, drift))
    return weeks


def _drift(oversight: Oversight, window: Window) -> dict[str, Any]:
    """Drift as it goes on record, which is for good: of a few, nothing that would be theirs."""
    found = oversight.drift(window)
    return found if found["rows"] >= LEAST_ROWS else {**found, "fields": [], "score": None}


def _groups(
    records: SqlRecords, oversight: Oversight, sealing: Sealing | None, window: Window
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What there is to say of groups, by attribute."""
    if sealing is None:
        return
    for attribute in groups.attributes(records, oversight.package.portfolio):
        try:
            body = oversight.fairness(window, sealing, attribute)
        except RequestInvalid as error:
            logger.warning("groups by %s are left out: %s", attribute, error)
            continue
        if body["groups"] or body["few"]:
            yield attribute, body


def _last(records: SqlRecords) -> int:
    """The place of the last record."""
    with records.reading() as connection:
        return connection.execute(LAST_PLACE).scalar_one()


def _read(kind: type[D], body: dict[str, Any]) -> D:
    """What was put on record as JSON, and says besides what it is of."""
    return kind.model_validate({name: body[name] for name in kind.model_fields})
