"""Oversight: what is asked of a window is answered about the decisions in it, and no others."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from credit_risk import groups, outcomes, oversight, windows
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import instant
from credit_risk.decisions import Call, new_id
from credit_risk.errors import RequestInvalid
from credit_risk.oversight import Oversight, allowed, sample
from credit_risk.retraining import Limit, Limits, MonitoringPolicy
from credit_risk.schema import UNSEEN
from credit_risk.windows import HOUR, Window
from tests import toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from credit_risk.policy import DecisionName
    from credit_risk.schema import Schema

DAY = 24 * HOUR
FIRST = NOON // HOUR * HOUR
WINDOW = Window(FIRST, FIRST + DAY)
OWN = Sealing([b"g" * KEY_BYTES])
WATCHED = MonitoringPolicy(
    portfolio=toys.NAME,
    version="1.0.0",
    limits=Limits(score_psi=Limit(watch=0.1, recommend=0.25), age_days=Limit(watch=365)),
)
ROWS = 400


class Watched:
    """A log of decisions, counted, and who oversees the package that made them."""

    def __init__(self, log: SqlAuditLog, package: ModelPackage) -> None:
        self.log = log
        self.package = package
        self.records = decided(package, toys.applications(ROWS))
        self.oversight = Oversight(log, package)
        self.put(*self.records)

    def put(self, *records: Record) -> None:
        """Put records into the log, and count what there is."""
        self.log.append(records).result()
        known = windows.known(self.package)
        done = False
        while not done:
            batch = windows.count(
                self.log, toys.NAME, lambda v: known if v == self.package.version else None
            )
            self.log.append((), alongside=windows.keep(batch)).result()
            done = batch.done

    def close(self, decision: Record, made: DecisionName) -> None:
        """Have people decide."""
        review = replace(
            decision,
            id=new_id(),
            kind="review",
            time=decision.time + HOUR,
            about=decision.id,
            decision=made,
            body={},
            personal=None,
        )
        self.log.append([review]).result()

    def with_decision(self, name: str) -> Record:
        """The first decision of that kind."""
        return next(record for record in self.records if record.decision == name)


@pytest.fixture
def watched(tmp_path: Path, trees_package: ModelPackage) -> Iterator[Watched]:
    """In SQLite."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield Watched(log, trees_package)


def is_json(document: dict[str, Any]) -> bool:
    """Whether it comes back from JSON as it is."""
    return bool(json.loads(json.dumps(document, allow_nan=False)) == document)


def test_drift_of_a_window_is_of_its_decisions(watched: Watched) -> None:
    """Those that reference applicants led to are stable; the answer says what was compared."""
    found = watched.oversight.drift(WINDOW)

    assert (found["decisions"], found["not_counted"], found["rows"]) == (ROWS, 0, ROWS)
    assert found["verdict"] == "stable"
    assert found["model_version"] == watched.package.version
    assert (found["from"], found["to"]) == (
        *("2023-11-14T22:00:00.000000Z", "2023-11-15T22:00:00.000000Z"),
    )
    assert [field["field"] for field in found["fields"]] == list(watched.package.schema.names)
    assert is_json(found)


def test_drift_says_what_it_could_not_count_and_who_else_decided(watched: Watched) -> None:
    """A decision whose application is gone, and those of other packages."""
    record = watched.records[0]
    sealed = replace(record, id=new_id(), personal=None)
    watched.put(sealed, replace(record, id=new_id(), model_version="0" * 12))

    found = watched.oversight.drift(WINDOW)
    assert (found["decisions"], found["not_counted"], found["rows"]) == (ROWS + 1, 1, ROWS)
    assert found["other_versions"] == {"0" * 12: 1}


def test_an_empty_window_has_too_few(watched: Watched) -> None:
    """And no verdict."""
    found = watched.oversight.drift(Window(FIRST + DAY, FIRST + 2 * DAY))

    assert (found["decisions"], found["verdict"]) == (0, "too-few")
    assert is_json(found)


def test_drift_of_given_applicants_scores_those_it_can(watched: Watched) -> None:
    """One of a category nobody has heard of has no PD, and is told as such."""
    rows = [dict(row) for row in toys.applications(ROWS, seed=5)]
    name = next(s.name for s in watched.package.schema.fields if s.is_category)
    for row in rows[: ROWS // 4]:
        row[name] = "Sentinel-6021023"

    found = watched.oversight.drift_of(sample(watched.package.schema, rows))
    field = next(field for field in found["fields"] if field["field"] == name)
    assert field["unseen"]["share"] == 0.25
    assert field["verdict"] == "major"
    assert found["score"]["missing"]["share"] == 0.25
    assert "Sentinel" not in json.dumps(found)
    assert is_json(found)


def test_performance_is_of_the_outcomes_of_the_window(watched: Watched) -> None:
    """Beside how many were accepted, by the server and by people, in the month of decision."""
    referred, declined = watched.with_decision("REVIEW"), watched.with_decision("DECLINE")
    approved = [record for record in watched.records if record.decision == "APPROVE"]
    watched.close(referred, "APPROVE")
    watched.close(declined, "APPROVE")
    watched.close(approved[0], "DECLINE")
    now = NOON + 400 * DAY
    told = [
        {"decision_id": r.id, "defaulted": i % 3 == 0, "observed": str(instant(now).date())}
        for i, r in enumerate(watched.records[:150])
    ]
    outcomes.add(watched.log, toys.NAME, told, Call("/outcomes", "r", at=now))

    found = watched.oversight.performance(WINDOW, now, 12)
    assert (found["rows"], found["defaults"]) == (150, 50)
    accepted = {record.id for record in approved[1:]} | {referred.id, declined.id}
    covered = len(accepted & {record.id for record in watched.records[:150]})
    assert found["accepted"] == len(approved) + 1
    assert found["coverage"] == found["vintages"][0]["coverage"] == covered / found["accepted"]
    others = f"{150 - covered} of the outcomes are of applications that were not accepted here"
    assert any(caveat.startswith(others) for caveat in found["caveats"])
    assert found["vintages"][0]["month"] == "2023-11"
    assert found["vintages"][0]["mature"] is True
    assert found["figures"]["default_rate"]["value"] == pytest.approx(1 / 3)
    assert found["expected_of_all"]["auc"]["value"] > 0.5
    assert is_json(found)
    nothing = watched.oversight.performance(Window(FIRST + DAY, FIRST + 2 * DAY), now, 12)
    assert (nothing["rows"], nothing["accepted"], nothing["figures"]) == (0, 0, None)


def test_fairness_is_of_final_decisions_with_a_group(watched: Watched) -> None:
    """Those of people count, and what waits for one does not."""
    referred = [record for record in watched.records if record.decision == "REVIEW"]
    watched.close(referred[0], "APPROVE")
    members = [
        groups.Member(record.id, "f" if i % 2 else "m")
        for i, record in enumerate(watched.records[:300])
    ]
    groups.add(watched.log, OWN, toys.NAME, "sex", members)

    found = watched.oversight.fairness(WINDOW, OWN, "sex", reference="m")
    open_ones = {record.id for record in referred[1:]}
    final = [member for member in members if member.decision_id not in open_ones]
    known = found["rows"] - found["unknown"]
    assert known == len(final) < 300
    assert found["rows"] == ROWS - len(open_ones)
    assert (found["decisions"], found["few"]) == (ROWS, 0)
    by_name = {group["name"]: group for group in found["groups"]}
    assert by_name["m"]["rows"] == sum(member.value == "m" for member in final)
    assert by_name["f"]["ratio"]["value"] > 0
    assert found["reference"] == "m"
    assert is_json(found)
    nobody = watched.oversight.fairness(WINDOW, SEALING, "sex")
    assert nobody["unknown"] == nobody["rows"] == found["rows"]
    assert nobody["not_enough"] == "no group has 30 applicants"
    with pytest.raises(RequestInvalid, match="/reference"):
        watched.oversight.fairness(WINDOW, OWN, "sex", reference="x")


def test_an_attribute_by_which_nobody_is_grouped_is_refused(watched: Watched) -> None:
    """A slip of the pen is none of too few applicants; a window without members is no slip."""
    with pytest.raises(RequestInvalid, match=r"/attribute: No groups by it .* nor are there any"):
        watched.oversight.fairness(WINDOW, OWN, "sex")
    for attribute in ("sex", "age_band"):
        members = [groups.Member(watched.records[0].id, "f")]
        groups.add(watched.log, OWN, toys.NAME, attribute, members)

    with pytest.raises(RequestInvalid, match=r"are some by age_band, sex") as refused:
        watched.oversight.fairness(WINDOW, OWN, "sxe")
    assert "sxe" not in str(refused.value)
    later = watched.oversight.fairness(Window(FIRST + 2 * DAY, FIRST + 3 * DAY), OWN, "sex")
    assert later["not_enough"] == "no group has 30 applicants"


def test_windows_that_differ_by_one_applicant_tell_nothing_of_its_group(watched: Watched) -> None:
    """One more hour with one more decision in it is no other window."""
    (alone,) = decided(watched.package, toys.applications(1, seed=8), start=NOON - 3 * HOUR)
    watched.put(alone)
    members = [groups.Member(record.id, "f") for record in (*watched.records, alone)]
    groups.add(watched.log, OWN, toys.NAME, "sex", members)

    without = watched.oversight.fairness(WINDOW, OWN, "sex")
    with_one = watched.oversight.fairness(Window(FIRST - 3 * HOUR, WINDOW.until), OWN, "sex")
    assert without == with_one
    assert (without["from"], without["decisions"]) == ("2023-11-14T00:00:00.000000Z", ROWS + 1)


def test_an_attribute_of_too_many_values_is_none_of_groups(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody gave ages."""
    monkeypatch.setattr(oversight, "GROUPS_MOST", 2)
    members = [groups.Member(r.id, str(i)) for i, r in enumerate(watched.records[:20])]
    groups.add(watched.log, OWN, toys.NAME, "age", members)

    with pytest.raises(RequestInvalid, match="/attribute: More than 2 groups"):
        watched.oversight.fairness(WINDOW, OWN, "age")


def test_a_check_of_retraining_compares_the_last_weeks(watched: Watched) -> None:
    """With the policy it went by; a year after the first decision, age is a reason."""
    now = watched.records[-1].time + 1
    found = watched.oversight.retraining(WATCHED, now)

    assert [window["rows"] for window in found["windows"]] == [0] * 7 + [ROWS]
    assert found["windows"][-1]["to"] == "2023-11-14T23:00:00.000000Z"
    for before, after in zip(found["windows"][:-1], found["windows"][1:], strict=True):
        assert before["to"] == after["from"]
    assert found["verdict"] == "NOT_NEEDED"
    assert found["monitoring_policy"]["version"] == "1.0.0"
    assert is_json(found)
    later = watched.oversight.retraining(WATCHED, now + 366 * DAY)
    assert later["verdict"] == "WATCH"
    assert any("Age of the model" in reason for reason in later["reasons"])


def test_no_model_is_as_old_as_a_clock_that_was_not_set(watched: Watched) -> None:
    """It began when its other records say, in whole days; with none of them, nobody knows."""
    policy = WATCHED.model_copy(update={"limits": Limits(age_days=Limit(watch=365))})
    unset = decided(watched.package, toys.applications(3), start=7)
    watched.put(*unset)
    nothing = replace(watched.package, version="0" * 12)
    watched.put(replace(unset[0], id=new_id(), model_version=nothing.version))

    (found,) = watched.oversight.retraining(policy, NOON + 9 * DAY + HOUR)["criteria"]
    assert (found["value"], found["state"]) == (9, "fine")
    (unknown,) = Oversight(watched.log, nothing).retraining(policy, NOON)["criteria"]
    assert (unknown["value"], unknown["state"]) == (None, "unknown")


def test_a_check_of_retraining_is_of_outcomes_of_decisions_that_had_time(watched: Watched) -> None:
    """However many were accepted since; those who default first are no evidence."""
    policy = WATCHED.model_copy(update={"limits": Limits(auc_loss=Limit(watch=0.02))})
    old = [record for record in watched.records if record.decision == "APPROVE"]
    since = decided(watched.package, toys.applications(ROWS), start=NOON + 380 * DAY)
    watched.put(*since)
    middle = float(np.median([record.body["probability_of_default"] for record in old]))
    for records in (old, [record for record in since if record.decision == "APPROVE"]):
        call = Call("/outcomes", "request-1", at=records[-1].time + 20 * DAY)
        rows = [
            {
                "decision_id": record.id,
                "defaulted": record.body["probability_of_default"] < middle,
                "observed": instant(call.at).date().isoformat(),
            }
            for record in records
        ]
        outcomes.add(watched.log, toys.NAME, rows, call)

    young = watched.oversight.retraining(policy, old[-1].time + 100 * DAY)["criteria"][0]
    assert (young["state"], young["value"]) == ("unknown", None)
    assert young["detail"].startswith("0 outcomes are known, and 100 are needed, of decisions")
    grown = watched.oversight.retraining(policy, since[-1].time + 21 * DAY)["criteria"][0]
    assert grown["state"] == "watch"
    assert grown["value"] > 0.3


def test_a_sample_may_hold_what_no_application_may(schema: Schema) -> None:
    """Out of range, of an unknown category, and with fields left out."""
    one = dict(toys.SAFE)
    numeric = next(s for s in schema.fields if not s.is_category)
    category = next(s for s in schema.fields if s.is_category)
    rows = sample(schema, [one, one | {numeric.name: 1e12, category.name: "x"}, {}])

    assert rows.shape == (3, len(schema.fields))
    assert (rows[0] == schema.vector(one)).all()
    assert rows[1, schema.index[numeric.name]] == 1e12
    assert rows[1, schema.index[category.name]] == UNSEEN
    assert np.isnan(rows[2]).all()
    assert allowed(schema, rows).tolist() == [True, False, False]


def test_what_the_schema_allows_is_what_it_takes(schema: Schema) -> None:
    """Row by row, as the server would."""
    rows = schema.matrix(toys.applications(50))
    assert allowed(schema, rows).all()
    for spec in schema.fields:
        changed = rows[:1].copy()
        changed[0, schema.index[spec.name]] = np.nan
        assert allowed(schema, changed).tolist() == [spec.nullable]
        if spec.type == "integer":
            changed[0, schema.index[spec.name]] = float(spec.minimum or 0) + 0.5
            assert not allowed(schema, changed).any()


@pytest.mark.parametrize(
    ("rows", "pointer"),
    [
        (None, "/applications"),
        ({}, "/applications"),
        ([], "/applications"),
        ([toys.SAFE] * (oversight.SAMPLE_ROWS_MAX + 1), "/applications"),
        ([toys.SAFE, 7], "/applications/1"),
        ([{"surname": "Sentinel"}], "/applications/0/surname"),
        ([{"age": "Sentinel"}], "/applications/0/age"),
        ([{"age": True}], "/applications/0/age"),
        ([{"age": 10**400}], "/applications/0/age"),
        ([{"age": [1]}], "/applications/0/age"),
        ([{"age": math.inf}], "/applications/0/age"),
        ([{"age": math.nan}], "/applications/0/age"),
    ],
)
def test_what_is_no_sample_is_refused_by_its_place(
    schema: Schema, rows: object, pointer: str
) -> None:
    """Without the value."""
    with pytest.raises(RequestInvalid) as caught:
        sample(schema, rows)

    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert "Sentinel" not in str(caught.value)


def test_a_category_is_a_string(schema: Schema) -> None:
    """Not its place in the list; and after many faults it is enough."""
    name = next(s.name for s in schema.fields if s.is_category)

    with pytest.raises(RequestInvalid, match="a string or null") as caught:
        sample(schema, [{name: 1}] * 500)
    assert len(caught.value.errors) == 100
    with pytest.raises(RequestInvalid, match="Unknown field") as caught:
        sample(schema, [{f"x{number}": 1 for number in range(500)}])
    assert len(caught.value.errors) == 100
