"""What became of decisions, and what was found in them, as it stands."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import sqlalchemy as sa

from credit_risk import groups, outcomes
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import MONITORING_RESULTS
from credit_risk.decisions import Call
from credit_risk.groups import Member
from credit_risk.retraining import Limit, Limits, MonitoringPolicy
from monitoring import job
from tests import toys
from tests.evidence.packing import pack
from tests.recorded import NOON, decided

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage


def test_outcomes_are_counted_as_they_stand(made: ModelPackage, log: SqlAuditLog) -> None:
    """And their corrections beside them; without one, the topic is missing."""
    records = decided(made, toys.applications(4))
    log.append(records).result()
    assert "No outcome" in pack(made, log)["topics"]["outcomes"]["missing"]
    told = [
        {"decision_id": record.id, "defaulted": i == 0, "observed": f"2024-11-{i + 1:02}"}
        for i, record in enumerate(records[:3])
    ]
    call = Call("/outcomes", "r-1")
    outcomes.add(log, toys.NAME, told, call)
    outcomes.add(log, toys.NAME, [told[1] | {"observed": "2024-12-31"}], call)

    topic = pack(made, log)["topics"]["outcomes"]
    known, corrected = (statement["text"] for statement in topic["statements"])
    assert known.startswith("Outcomes known of 3 decisions, observed from 2024-11-01 to 2024-12-31")
    assert known.endswith(": 1 defaulted, 33.33%.")
    assert corrected == "Corrections on record: 1."
    assert "4 records of outcomes" in topic["statements"][0]["rests_on"]


def test_what_monitoring_found_last_is_shown_with_what_it_was_found_in(
    made: ModelPackage, log: SqlAuditLog
) -> None:
    """Drift, figures of outcomes, groups, and whether to retrain; before the first run, nothing."""
    before = pack(made, log)["topics"]
    assert "has put nothing" in before["drift"]["missing"]
    assert "has put nothing" in before["fairness"]["missing"]
    records = decided(made, toys.applications(300), NOON - 3_600_000_000)
    log.append(records).result()
    told = [
        {"decision_id": record.id, "defaulted": i % 4 == 0, "observed": "2023-11-14"}
        for i, record in enumerate(records)
    ]
    outcomes.add(log, toys.NAME, told, Call("/outcomes", "r-1", at=NOON))
    own = Sealing([b"g" * KEY_BYTES])
    members = [Member(r.id, ("north", "south")[i % 2]) for i, r in enumerate(records)]
    groups.add(log, own, toys.NAME, "region", members)
    policy = MonitoringPolicy(
        portfolio=toys.NAME, version="1.0.0", limits=Limits(field_psi=Limit(watch=0.1))
    )
    watched = job.Portfolio(toys.NAME, policy, lambda _: made, made.version, own)
    (known,) = job.run(log, watched, NOON, lambda *_: None)

    topics = pack(made, log)["topics"]

    assert known.window is not None
    drift = topics["drift"]
    first, last = drift["statements"]
    assert first["text"].startswith(
        f"300 applicants, compared with the package's reference: {known.window.verdict}"
    )
    with log.reading() as connection:
        bodies = connection.scalars(sa.select(MONITORING_RESULTS.c.body)).all()
    assert first["sha256"] in {hashlib.sha256(body.encode()).hexdigest() for body in bodies}
    (table,) = drift["tables"]
    assert {row[0] for row in table["rows"]} >= {spec.name for spec in made.schema.fields}
    assert last["text"].startswith(f"Whether to retrain: {known.check.verdict}.")
    assert any("have an outcome" in said["text"] for said in topics["outcomes"]["statements"])
    (fairness,) = topics["fairness"]["statements"]
    assert fairness["text"].startswith(f"By region: {known.fairness[0].rows} decisions, ")
    assert [row[0] for row in topics["fairness"]["tables"][0]["rows"]] == ["north", "south"]
