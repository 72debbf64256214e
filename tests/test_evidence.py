"""An evidence pack says what can be shown, what each statement rests on, and what is missing."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk import approvals, casework, evidence, groups, outcomes, package, regimes
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import Record, moment
from credit_risk.audit.tables import MONITORING_RESULTS, RECORDS
from credit_risk.audit.verification import verify
from credit_risk.decisions import Call, new_id, start_record
from credit_risk.errors import OutputRefused
from credit_risk.groups import Member
from credit_risk.retraining import Limit, Limits, MonitoringPolicy
from monitoring import job
from tests import signing, toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage

ROOT = Path(__file__).parent.parent
REGIMES = ROOT / "regimes"
REGIME = regimes.load(REGIMES, "us-ecoa")
EMPTY = evidence.Findings()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlAuditLog]:
    """An audit log in a file."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as opened:
        yield opened


@pytest.fixture
def made(tmp_path: Path) -> ModelPackage:
    """A toy package whose files are there."""
    return package.load(toys.write_package(tmp_path / "packages", "trees"))


def shipped() -> ModelPackage:
    """A real one."""
    folder = ROOT / "packages" / "personal-loans"
    return package.load(folder / (folder / "default").read_text().strip())


def pack(of: ModelPackage, log: SqlAuditLog | None, findings: evidence.Findings = EMPTY) -> Any:  # noqa: ANN401 - any JSON
    """What there is to show, having been JSON."""
    found = evidence.pack(of, REGIME, "regime's", log, findings, made_at=NOON)
    return json.loads(json.dumps(found, allow_nan=False))


def activation(of: ModelPackage, before: str | None, at: int) -> Record:
    """A record of somebody's switch to a package."""
    return Record(
        id=new_id(),
        kind="activation",
        time=at,
        portfolio=of.portfolio,
        request_id=new_id(),
        model_version=of.version,
        policy_version=of.policy_version,
        decision=None,
        status=None,
        body={"action": "activate", "by": "ops", "from": before, "to": of.version},
    )


def test_every_topic_a_regime_may_ask_for_has_a_title() -> None:
    """And no other."""
    assert set(evidence.TITLES) == set(get_args(regimes.Evidence))


def test_a_package_alone_shows_what_is_in_it(log: SqlAuditLog) -> None:
    """Figures of the shipped package, with the digests of the files they are from."""
    of = shipped()
    topics = pack(of, log)["topics"]

    shown = {name for name, topic in topics.items() if topic["missing"] is None}
    assert shown == {
        *("model-card", "data-provenance", "performance", "calibration", "reasons-method"),
        *("policy", "regime"),
    }
    (first, _) = topics["performance"]["statements"]
    assert f"ROC-AUC {of.metrics['hold_out']['roc_auc']:.4f}" in first["text"]
    assert first["sha256"] == of.digests["metrics.json"]
    assert len(topics["policy"]["tables"][0]["rows"]) == len(of.policy.bands)
    assert any("They came out" in s["text"] for s in topics["reasons-method"]["statements"])


def test_approvals_are_named_with_their_records(made: ModelPackage, log: SqlAuditLog) -> None:
    """The first one first, and one that was altered is a finding."""
    assert "Nobody has approved" in pack(made, log)["topics"]["approvals"]["missing"]
    records = [
        approvals.record(log, made, signing.approval(key, name, made.digest), NOON)
        for key, name in ((signing.ADA, "ada"), (signing.BEN, "ben"))
    ]
    log.append([replace(records[0], id=new_id(), body={"approver": "eve"})]).result()

    found = pack(made, log)
    topic = found["topics"]["approvals"]

    (table,) = topic["tables"]
    assert [row[1] for row in table["rows"]] == ["ada", "ben"]
    assert [row[3] for row in table["rows"]] == [record.id for record in records]
    (statement,) = topic["statements"]
    assert statement["text"].endswith("each with its signature on record: 2.")
    (finding,) = found["findings"]
    assert finding["topic"] == "approvals"
    assert finding["text"].endswith("it does not say what a server writes there.")


def test_decisions_are_counted_and_their_hashes_digested(
    made: ModelPackage, linear_package: ModelPackage, log: SqlAuditLog
) -> None:
    """Those of the package, and of no other."""
    records = decided(made, toys.applications(40))
    log.append(records[:15]).result()
    log.append(decided(linear_package, toys.applications(5))).result()
    log.append(records[15:]).result()

    topic = pack(made, log)["topics"]["decisions"]

    with log.reading() as connection:
        ours = sa.select(RECORDS.c.hash).where(RECORDS.c.model_version == made.version)
        hashes = connection.execute(ours.order_by(RECORDS.c.sequence)).scalars().all()
    (statement,) = topic["statements"]
    approved = sum(record.decision == "APPROVE" for record in records)
    assert statement["text"].startswith("40 decisions from 2023-11-14T22:13:20.000000Z to ")
    assert f"{approved / 40:.1%} were approvals" in statement["text"]
    assert statement["sha256"] == hashlib.sha256(b"".join(hashes)).hexdigest()
    assert len(hashes) == 40
    assert sum(int(row[2]) for row in topic["tables"][0]["rows"]) == 40


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


def test_activations_are_listed_with_their_hashes(
    made: ModelPackage, linear_package: ModelPackage, log: SqlAuditLog
) -> None:
    """To the package and away from it, the oldest first."""
    there, away = activation(made, None, 1), activation(linear_package, made.version, 2)
    for record in (there, away, activation(linear_package, "another", 3)):
        log.append([record]).result()

    topic = pack(made, log)["topics"]["activation-history"]

    rows = topic["tables"][0]["rows"]
    assert [row[5] for row in rows] == [there.id, away.id]
    assert all(re.fullmatch("[0-9a-f]{64}", row[6]) for row in rows)
    (statement,) = topic["statements"]
    digest = hashlib.sha256(b"".join(bytes.fromhex(row[6]) for row in reversed(rows))).hexdigest()
    assert statement["sha256"] == digest


def test_an_activation_that_does_not_say_which_is_a_finding(
    made: ModelPackage, log: SqlAuditLog
) -> None:
    """Its hash may fit; the others are listed."""
    sound, other = activation(made, None, 1), activation(made, None, 2)
    log.append([sound, replace(other, body={"to": made.version, "from": ["x"]})]).result()

    found = pack(made, log)

    (finding,) = found["findings"]
    told = f"Record {other.id} of an activation: it does not say what a server writes there."
    assert finding == {"topic": "activation-history", "text": told}
    rows = found["topics"]["activation-history"]["tables"][0]["rows"]
    assert [row[5] for row in rows] == [sound.id, other.id]


def test_a_package_that_nobody_activated_decides_since_its_first_start(
    made: ModelPackage, linear_package: ModelPackage, log: SqlAuditLog
) -> None:
    """As a shipped default does; before that, it never did."""
    topic = pack(made, log)["topics"]["activation-history"]
    assert "no server has started with it" in topic["missing"]
    first, second = (replace(start_record(made), time=NOON + i) for i in range(2))
    log.append([first, start_record(linear_package), second]).result()

    topic = pack(made, log)["topics"]["activation-history"]

    told = [statement["text"] for statement in topic["statements"]]
    assert told[0].startswith(f"Workers started with it 2 times, from {moment(NOON)} to ")
    assert "Nobody activated it: it decides since the first of these starts" in told[1]
    log.append([activation(made, None, 1)]).result()
    topic = pack(made, log)["topics"]["activation-history"]
    assert not any("Nobody activated it" in s["text"] for s in topic["statements"])
    assert len(topic["tables"]) == 1


def test_reviews_are_those_of_the_packages_own_decisions(
    made: ModelPackage, linear_package: ModelPackage, log: SqlAuditLog
) -> None:
    """In sentences and a table, and none of another package's; what waits is told too."""
    declined = [r for r in decided(made, toys.applications(60)) if r.decision == "DECLINE"][:2]
    log.append([*declined, *decided(linear_package, [toys.RISKY])]).result()
    for record in [*declined, *log.find(model_version=linear_package.version)]:
        log.append([approval(record)]).result()

    found = casework.summary(log, made.portfolio, model_version=made.version)
    topic = pack(made, log, evidence.Findings(reviews=found))["topics"]["reviews"]

    first, second = topic["statements"]
    assert first["rests_on"].startswith("2 records of reviews of the package's decisions")
    assert first["text"].startswith("Reviews closed: 2, of which 2 approved and 0 declined.")
    assert "Decisions proposed to a second person: 0" in second["text"]
    assert topic["tables"][0]["rows"] == [
        ["low-side", "DECLINE", "2", "2", "100.00%", "COMPENSATING_FACTORS 2"]
    ]
    none = casework.summary(log, made.portfolio, model_version="another")
    assert none["reviews"]["closed"] == none["waiting_now"] == 0


def approval(of: Record) -> Record:
    """The record of a review that approved what the server declined."""
    body = {
        "step": 1,
        "action": "close",
        "reviewer": "ada",
        "decision": "APPROVE",
        "override": "low-side",
        "reviewed": "DECLINE",
        "reviewers": ["ada"],
        "reasons": ["COMPENSATING_FACTORS"],
    }
    return replace(of, id=new_id(), kind="review", body=body, about=of.id, personal=None)


def test_what_does_not_hold_is_told_at_the_top(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Of the records, and of the decisions made again; on the page before anything else."""
    log.append(decided(made, toys.applications(5))).result()
    with closing(sqlite3.connect(tmp_path / "records.db")) as database, database:
        database.execute("UPDATE records SET body = replace(body, 'LOW', 'HIGH')")
    key = Ed25519PrivateKey.generate().public_key()
    findings = evidence.Findings(evidence.replayed(made, log, 10), verify(log.reading, [key]))

    found = evidence.pack(made, REGIME, "regime's", log, findings, made_at=NOON)
    evidence.write(found, made, REGIMES / "us-ecoa.yaml", tmp_path / "pack")

    assert [one["topic"] for one in found["findings"]] == ["record-integrity", "replay"]
    page = (tmp_path / "pack" / "index.html").read_text()
    top = page[: page.index("What the regime asks for</h2>")]
    assert "2 things do not hold" in top
    assert all(one["text"].replace("'", "&#39;") in top for one in found["findings"])
    assert pack(made, log)["findings"] == []


def test_the_newest_decisions_are_made_again(made: ModelPackage, log: SqlAuditLog) -> None:
    """As many as asked for, and what came out is told."""
    log.append(decided(made, toys.applications(30))).result()
    told: list[tuple[int, int]] = []

    few = evidence.replayed(made, log, 12, lambda done, total: told.append((done, total)))
    every = evidence.replayed(made, log, 1_000)

    assert (few.records, every.records) == (12, 30)
    assert told == [(12, 12)]
    (statement,) = pack(made, log, evidence.Findings(few))["topics"]["replay"]["statements"]
    assert statement["text"].endswith("that they name: MATCH 12.")
    assert evidence.replayed(made, log, 0).records == 0


def test_what_was_found_of_the_records_is_told(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Under the head of the chain."""
    log.append(decided(made, toys.applications(3))).result()
    key = Ed25519PrivateKey.generate().public_key()
    whole = verify(log.reading, [key])
    statements = pack(made, log, evidence.Findings(integrity=whole))["topics"]["record-integrity"][
        "statements"
    ]

    assert statements[0]["text"].startswith("Verified: 3 records and 0 checkpoints, with the key")
    assert statements[0]["text"].endswith("All are as they were written.")
    assert any(s["text"].startswith("Note: there is no checkpoint") for s in statements)
    with closing(sqlite3.connect(tmp_path / "records.db")) as database, database:
        database.execute("UPDATE records SET status = 201 WHERE sequence = 2")
        database.execute("INSERT INTO reviews VALUES ('d-1', 'toy', 1, 'open', '', 0, '', 0)")
    broken = evidence.Findings(integrity=verify(log.reading, [key]))
    found = pack(made, log, broken)
    texts = [s["text"] for s in found["topics"]["record-integrity"]["statements"]]
    assert "NOT as they were written" in texts[0]
    assert "record 2" in texts[1]
    assert texts[-2] == (
        "Queue of reviews: extra: decision d-1 is in the queue, and does not wait."
    )
    assert [finding["text"] for finding in found["findings"]][1:] == [
        "The queue of reviews is not what the records say, in 1 cases."
    ]
    assert statements[0]["rests_on"].startswith("the head of chain ")
    assert statements[0]["rests_on"].endswith("record 3")


@pytest.mark.parametrize("recorded", [False, True])
def test_what_is_missing_says_why_and_counts_as_missing(
    made: ModelPackage, log: SqlAuditLog, *, recorded: bool
) -> None:
    """In the topic and in the sections that ask for it."""
    found = pack(made, log if recorded else None)
    topics = found["topics"]

    asked = {name for section in REGIME.sections for name in section.requires}
    assert set(found["missing"]) == {n for n in asked if topics[n]["missing"] is not None}
    assert all(topic["missing"] or topic["statements"] for topic in topics.values())
    assert {"decisions", "activation-history", "reviews"} <= set(found["missing"])
    for section, given in zip(REGIME.sections, found["sections"], strict=True):
        assert [one["topic"] for one in given["requires"]] == [*section.requires]


def test_a_pack_is_a_folder_that_can_be_checked(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Every file is in the sums, and every file a statement rests on is there, as it says."""
    log.append(decided(made, toys.applications(1))).result()
    folder = tmp_path / "pack"
    file = REGIMES / "us-ecoa.yaml"
    found = evidence.pack(
        made, REGIME, evidence.sha256_of(file), log, evidence.Findings(), made_at=NOON
    )

    evidence.write(found, made, file, folder)

    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest
    rests = {
        (s["rests_on"], s["sha256"]) for t in found["topics"].values() for s in t["statements"]
    }
    assert {name for name, _ in rests} & set(sums)
    assert all(sums[name] == digest for name, digest in rests if name in sums)
    page = (folder / "index.html").read_text()
    for topic in found["topics"].values():
        assert topic["title"] in page
    assert f"<h1>{made.schema.title}: model {made.version}</h1>" in page
    assert "<h1>A toy</h1>" in page
    assert all(f'href="{name}"' in page for name, _ in rests if name in sums)
    assert all(f'id="section-{section.id}"' in page for section in REGIME.sections)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, made: ModelPackage) -> None:
    """A pack never mixes with another."""
    with pytest.raises(OutputRefused, match="is there already"):
        evidence.write(pack(made, None), made, REGIMES / "us-ecoa.yaml", tmp_path)


def test_altered_records_are_findings_and_the_rest_is_shown(
    made: ModelPackage, log: SqlAuditLog
) -> None:
    """An activation and a review that nobody can believe are named, and told of no further."""
    declined = [r for r in decided(made, toys.applications(60)) if r.decision == "DECLINE"][:2]
    log.append([activation(made, None, 1), activation(made, None, 2), *declined]).result()
    log.append([approval(declined[0])]).result()
    with log._writing.begin() as connection:  # noqa: SLF001 - the way of an intruder
        kind, sequence = RECORDS.c.kind, RECORDS.c.sequence
        for spoiled in (kind == "review", sequence == 2, sequence == 3):
            connection.execute(sa.update(RECORDS).where(spoiled).values(body="["))

    replays = evidence.replayed(made, log, 10)
    found = evidence.Findings(replayed=replays, reviews="record 7 is altered")
    told = pack(made, log, found)

    assert {finding["topic"] for finding in told["findings"]} == {
        *("activation-history", "reviews", "replay")
    }
    assert replays.causes["record-invalid"] == 1
    assert len(told["topics"]["activation-history"]["tables"][0]["rows"]) == 1
