from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk import groups, outcomes, shadowing, windows
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import instant
from credit_risk.audit.tables import MONITORING_RESULTS
from credit_risk.challenges import challenge_record, in_force
from credit_risk.decisions import Call, new_id
from credit_risk.groups import Member
from credit_risk.oversight import Oversight
from credit_risk.retraining import Limit, Limits, MonitoringPolicy
from credit_risk.shadowing import Said
from credit_risk.windows import DAY, HOUR, Batch, Window
from monitoring import contested, job, report, results
from monitoring.job import Portfolio
from tests import toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from monitoring.report import Monitored

POLICY = MonitoringPolicy(
    portfolio=toys.NAME,
    version="1.0.0",
    limits=Limits(field_psi=Limit(watch=0.1), age_days=Limit(watch=365)),
)
OWN = Sealing([b"g" * KEY_BYTES])
TODAY = NOON // DAY * DAY
NOW = TODAY + 20 * HOUR
ROWS = 120


class Watched:
    """A log of decisions, and a portfolio that is watched."""

    def __init__(self, log: SqlAuditLog, package: ModelPackage) -> None:
        self.log = log
        self.package = package
        self.portfolio = Portfolio(toys.NAME, POLICY, self.look, package.version, OWN)
        self.told: list[tuple[int, int]] = []

    def look(self, version: str) -> ModelPackage | None:
        """The package, if it is that."""
        return self.package if version == self.package.version else None

    def decide(self, days_ago: int, rows: int = ROWS, seed: int = 11) -> list[Record]:
        """Put decisions of a day on record."""
        start = TODAY - days_ago * DAY + 9 * HOUR
        records = decided(self.package, toys.applications(rows, seed), start)
        self.log.append(records).result()
        return records

    def run(self, now: int = NOW) -> list[Monitored]:
        """Look at the portfolio."""
        return job.run(self.log, self.portfolio, now, lambda *told: self.told.append(told))

    def results(self) -> list[dict[str, Any]]:
        """Everything that is on record of it."""
        with self.log.reading() as connection:
            rows = connection.execute(sa.select(MONITORING_RESULTS)).mappings()
            return [dict(row) for row in rows]


@pytest.fixture
def watched(tmp_path: Path, trees_package: ModelPackage) -> Iterator[Watched]:
    """In SQLite."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield Watched(log, trees_package)


def test_a_run_says_everything_about_a_package_and_puts_it_on_record(
    any_url: str, trees_package: ModelPackage
) -> None:
    """Days, the last week, outcomes, groups, and whether to think of retraining."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        watched = Watched(log, trees_package)
        records = watched.decide(8) + watched.decide(1, seed=12) + watched.decide(0, seed=13)
        told = [
            {"decision_id": r.id, "defaulted": i % 4 == 0, "observed": str(instant(NOW).date())}
            for i, r in enumerate(records)
        ]
        outcomes.add(log, toys.NAME, told, Call("test", new_id(), at=NOW))
        names = ["alone"] * 5 + ["north", "south"] * len(records)
        members = [Member(r.id, name) for r, name in zip(records, names, strict=False)]
        groups.add(log, OWN, toys.NAME, "region", members)

        (known,) = watched.run()
        stored = [row["body"] for row in watched.results()]

    assert (known.portfolio, known.version) == (toys.NAME, trees_package.version)
    assert known.decides
    assert [(day.day.day, day.rows) for day in known.days] == [(6, ROWS), (13, ROWS), (14, ROWS)]
    approved = [sum(r.decision == "APPROVE" for r in records[i : i + ROWS]) for i in (0, 120, 240)]
    assert [day.approved for day in known.days] == approved
    assert [day.drift.rows for day in known.days if day.drift is not None] == [ROWS] * 3
    assert known.window is not None
    assert known.window.rows == 2 * ROWS
    assert known.performance is not None
    assert known.performance.rows == len(records)
    assert known.estimate is not None
    assert known.together.verdict in {"missing", "too-few"}
    (fairness,) = known.fairness
    assert fairness.attribute == "region"
    assert {group.name for group in fairness.groups} == {"north", "south"}
    assert any('"north"' in body for body in stored)
    assert not any("alone" in body for body in stored)
    assert known.check.verdict == "NOT_NEEDED"
    assert set(known.titles) == {*trees_package.schema.names, "score"}


def test_days_of_too_few_are_shown_by_weeks_that_have_enough(watched: Watched) -> None:
    """As many as there are; where days have enough there are no weeks."""
    for days_ago in (0, 2, 6, 7):
        watched.decide(days_ago, 40, seed=days_ago)
    (known,) = watched.run()

    assert [(week.day.day, week.rows) for week in known.weeks] == [(1, 40), (8, 120)]
    assert [week.approved for week in known.weeks] == [
        known.days[0].approved,
        sum(day.approved for day in known.days[1:]),
    ]
    assert known.weeks[-1].drift == known.window
    assert "Drift, week by week" in report.page(known)
    for days_ago in (1, 3, 4, 5, 9):
        watched.decide(days_ago)
    (grown,) = watched.run()
    assert not grown.weeks
    assert "Drift, day by day" in report.page(grown)


def test_what_is_on_record_is_what_the_run_found(watched: Watched) -> None:
    """One result of each kind and window."""
    watched.decide(1)
    watched.run()

    found = watched.results()
    kinds = [row["kind"] for row in found]
    assert sorted(kinds) == ["drift", "drift", "multivariate", "performance", "retraining"]
    week = Window(TODAY - 6 * DAY, TODAY + DAY)
    stored = {
        (result.since, result.until): result.body
        for result in results.find(
            watched.log, toys.NAME, watched.package.version, "drift", Window(0, TODAY + DAY)
        )
    }
    assert set(stored) == {(TODAY - DAY, TODAY), week}
    oversight = Oversight(watched.log, watched.package)
    assert stored[week] == oversight.drift(week)
    assert {row["time"] for row in found} == {NOW}


def test_of_a_few_applicants_nothing_goes_on_record_but_their_number(watched: Watched) -> None:
    """It stays there for good, also when they are erased; day after day it is the same."""
    watched.decide(1, rows=5)
    (known,) = watched.run()
    assert watched.run()[0].days == known.days

    drifts = [json.loads(row["body"]) for row in watched.results() if row["kind"] == "drift"]
    assert [(body["rows"], body["fields"], body["score"]) for body in drifts] == [(5, [], None)] * 2
    assert known.window is not None
    assert (known.window.verdict, known.window.rows) == ("too-few", 5)
    page = report.page(known)
    assert "5 applicants are too few" in page
    assert "Who applies, against the reference" not in page


def test_the_week_that_is_checked_is_the_week_that_is_shown(watched: Watched) -> None:
    """Of whole days, with the same figures; so are the figures that PDs let expect."""
    watched.decide(8, seed=3)
    watched.decide(1)
    (known,) = watched.run()

    bodies = {row["kind"]: json.loads(row["body"]) for row in watched.results()}
    week = bodies["retraining"]["windows"][-1]
    assert (week["from"], week["to"], week["rows"]) == (
        *("2023-11-08T00:00:00.000000Z", "2023-11-15T00:00:00.000000Z", ROWS),
    )
    assert known.window is not None
    (psi,) = [one.value for one in known.check.criteria if one.measure == "field_psi"]
    assert psi in {field.psi for field in known.window.fields}
    oversight = Oversight(watched.log, watched.package)
    assert known.estimate == oversight.expected(Window(TODAY - 6 * DAY, TODAY + DAY))


def test_days_that_are_over_are_not_computed_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless decisions of them came late, or are counted that were not."""
    computed: list[Window] = []
    drift = Oversight.drift

    def noted(oversight: Oversight, window: Window) -> dict[str, Any]:
        computed.append(window)
        return drift(oversight, window)

    monkeypatch.setattr(Oversight, "drift", noted)
    watched.decide(2)
    watched.decide(1)
    week = Window(TODAY - 6 * DAY, TODAY + DAY)
    before, yesterday = Window(TODAY - 2 * DAY, TODAY - DAY), Window(TODAY - DAY, TODAY)

    first = watched.run()
    assert computed == [before, yesterday, week]
    computed.clear()
    assert [known.days for known in watched.run()] == [known.days for known in first]
    assert computed == [week]
    computed.clear()
    watched.decide(2, rows=5)
    watched.run()
    assert computed == [before, week]


def test_a_run_reads_no_decision_that_was_counted(watched: Watched) -> None:
    """It says how many records it went through, and of how many."""
    watched.decide(1)
    watched.run()
    assert watched.told == [(ROWS, ROWS)]
    watched.told.clear()
    watched.decide(0, rows=10)
    watched.run()
    assert watched.told == [(10, 10)]
    watched.told.clear()
    watched.run()
    assert watched.told == [(0, 0)]


def test_two_jobs_at_once_count_each_decision_once_and_leave_one_result(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes in between counting and writing."""
    watched.decide(1)
    other = Watched(watched.log, watched.package)
    counting = windows.count
    came: list[None] = []

    def interrupted(*arguments: Any) -> Batch:  # noqa: ANN401 - passed on
        batch = counting(*arguments)
        if not came:
            came.append(None)
            other.run()
        return batch

    monkeypatch.setattr(windows, "count", interrupted)
    (known,) = watched.run()

    assert [day.rows for day in known.days] == [ROWS]
    assert known.days[0].drift is not None
    assert known.days[0].drift.rows == ROWS
    keys = [(row["kind"], row["since"], row["until"]) for row in watched.results()]
    assert len(keys) == len(set(keys)) == 5


def test_the_package_that_decides_is_first_and_one_that_is_gone_is_left_out(
    watched: Watched, linear_package: ModelPackage
) -> None:
    """One that decided before is looked at as well, as long as it did lately."""
    both = {p.version: p for p in (watched.package, linear_package)}
    first, last = sorted(both)
    records = watched.decide(1)
    others = [replace(r, id=new_id(), model_version=last) for r in records[:20]]
    gone = [replace(r, id=new_id(), model_version="0" * 12) for r in records[:20]]
    long_ago = [
        replace(r, id=new_id(), model_version=first, time=r.time - 91 * DAY) for r in records[:20]
    ]
    watched.log.append(others + gone + long_ago).result()

    def names(deciding: str | None, look: Callable[[str], ModelPackage | None]) -> list[str]:
        portfolio = Portfolio(toys.NAME, POLICY, look, deciding)
        found = job.run(watched.log, portfolio, NOW, lambda *_: None)
        assert [known.decides for known in found] == [known.version == deciding for known in found]
        return [known.version for known in found]

    present = sorted({watched.package.version, last})
    assert names(last, both.get) == sorted(present, key=lambda name: name != last)
    assert names(None, both.get) == present


def test_the_challenger_in_force_is_compared_with_the_package_that_decides(
    watched: Watched, linear_package: ModelPackage, tmp_path: Path
) -> None:
    """Once it was asked about something; on record, and on a page of its own."""
    both = {p.version: p for p in (watched.package, linear_package)}
    watched.portfolio = replace(watched.portfolio, look=both.get)
    watched.log.append([challenge_record(toys.NAME, linear_package, None, 0.0)]).result()
    challenge = in_force(watched.log, toys.NAME)
    assert challenge is not None
    watched.decide(1)
    (known,) = watched.run()
    assert known.contest is None

    def shadow(connection: sa.Connection) -> None:
        state = shadowing.take(connection, challenge, "one", NOW)
        assert state is not None
        answer = Said(linear_package.version, 0.3, "REVIEW", "HIGH")
        while (chunk := shadowing.read(watched.log, toys.NAME, state.sequence)).decisions:
            said = [(made, answer) for made in chunk.decisions]
            state = shadowing.keep(connection, state, said, chunk.upto, NOW)

    watched.log.append((), alongside=shadow).result()
    (known,) = watched.run()
    assert known.contest is not None
    assert (known.contest.rows, known.contest.challenger) == (ROWS, linear_package.version)
    assert known.contest.from_to["APPROVE"]["REVIEW"] > 0
    (body,) = [row["body"] for row in watched.results() if row["kind"] == "challenger"]
    assert json.loads(body)["rows"] == ROWS
    index = report.write(tmp_path / "pages", [known]).read_text(encoding="utf-8")
    page = contested.name(toys.NAME, known.contest)
    assert f'href="{page}"' in index
    assert (tmp_path / "pages" / page).is_file()


def test_an_altered_record_of_the_challenge_is_told_and_the_rest_goes_on(
    watched: Watched, linear_package: ModelPackage
) -> None:
    """Nobody is known to challenge; decisions are counted and compared as ever."""
    made = challenge_record(toys.NAME, linear_package, None, 0.0)
    watched.log.append([replace(made, body={})]).result()
    watched.decide(1)

    (known,) = watched.run()

    assert known.fault is not None
    assert f"nothing is known of the challenger: record {made.id}" in known.fault
    assert (known.contest, known.days[0].rows) == (None, ROWS)
    assert "drift" in {row["kind"] for row in watched.results()}
    assert f"record {made.id}" in report.page(known)


def test_of_a_package_that_could_not_be_counted_by_nothing_is_compared(watched: Watched) -> None:
    """Decisions are counted; when everything is counted anew, applicants are as well."""
    watched.decide(1)
    without = replace(watched.portfolio, look=lambda _version: None)
    assert job.run(watched.log, without, NOW, lambda *_: None) == []

    (known,) = watched.run()
    assert [(day.rows, day.drift) for day in known.days] == [(ROWS, None)]
    assert known.window is None

    job.forget(watched.log, toys.NAME)
    (known,) = watched.run()
    assert known.days[0].drift is not None
    assert known.window is not None
    assert known.window.rows == ROWS


def test_without_keys_of_groups_nothing_is_said_about_them(watched: Watched) -> None:
    """Though some are on record."""
    records = watched.decide(1)
    member = Member(records[0].id, "north")
    groups.add(watched.log, OWN, toys.NAME, "region", [member])

    watched.portfolio = replace(watched.portfolio, groups=None)
    assert [known.fairness for known in watched.run()] == [[]]


def test_an_attribute_of_too_many_groups_keeps_nothing_else_from_being_said(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has taken a name for a group."""
    records = watched.decide(1)
    for attribute, number in (("name", ROWS), ("region", 2)):
        members = [Member(r.id, f"group {i % number}") for i, r in enumerate(records)]
        groups.add(watched.log, OWN, toys.NAME, attribute, members)

    (known,) = watched.run()
    assert [fairness.attribute for fairness in known.fairness] == ["region"]
    (warning,) = caplog.records
    assert "name" in warning.getMessage()
    assert "group 1" not in warning.getMessage()


def test_a_portfolio_without_decisions_has_nothing_to_look_at(watched: Watched) -> None:
    """That is no fault."""
    assert watched.run() == []
    assert watched.results() == []


def test_only_the_thread_that_computes_gives_way() -> None:
    """Whoever writes, and whoever else works in the process, goes on as before."""

    def priorities(threads: Sequence[int]) -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]

    here = threading.get_native_id()
    (before,) = priorities([here])
    found: list[int] = []

    def compute() -> None:
        job.give_way()
        found.extend(priorities([threading.get_native_id(), here]))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()

    assert found == [19, before]
