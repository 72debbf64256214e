"""What records show of a package rests on these very records."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk import approvals, casework
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import moment
from credit_risk.audit.tables import RECORDS
from credit_risk.audit.verification import verify
from credit_risk.decisions import new_id, start_record
from credit_risk.evidence import packs
from tests import signing, toys
from tests.evidence.packing import activation, approval, pack
from tests.recorded import NOON, decided

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage


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
    topic = pack(made, log, packs.Findings(reviews=found))["topics"]["reviews"]

    first, second = topic["statements"]
    assert first["rests_on"].startswith("2 records of reviews of the package's decisions")
    assert first["text"].startswith("Reviews closed: 2, of which 2 approved and 0 declined.")
    assert "Decisions proposed to a second person: 0" in second["text"]
    assert topic["tables"][0]["rows"] == [
        ["low-side", "DECLINE", "2", "2", "100.00%", "COMPENSATING_FACTORS 2"]
    ]
    none = casework.summary(log, made.portfolio, model_version="another")
    assert none["reviews"]["closed"] == none["waiting_now"] == 0


def test_what_was_found_of_the_records_is_told(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Under the head of the chain."""
    log.append(decided(made, toys.applications(3))).result()
    key = Ed25519PrivateKey.generate().public_key()
    whole = verify(log.reading, [key])
    statements = pack(made, log, packs.Findings(integrity=whole))["topics"]["record-integrity"][
        "statements"
    ]

    assert statements[0]["text"].startswith("Verified: 3 records and 0 checkpoints, with the key")
    assert statements[0]["text"].endswith("All are as they were written.")
    assert any(s["text"].startswith("Note: there is no checkpoint") for s in statements)
    with closing(sqlite3.connect(tmp_path / "records.db")) as database, database:
        database.execute("UPDATE records SET status = 201 WHERE sequence = 2")
        database.execute("INSERT INTO reviews VALUES ('d-1', 'toy', 1, 'open', '', 0, '', 0)")
    broken = packs.Findings(integrity=verify(log.reading, [key]))
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
