"""A pack says what can be shown, what of it does not hold, and what is missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk import regimes
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import RECORDS
from credit_risk.audit.verification import verify
from credit_risk.evidence import folders, packs
from tests import toys
from tests.evidence.packing import REGIME, REGIMES, activation, approval, pack
from tests.recorded import NOON, decided

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage


def test_every_topic_a_regime_may_ask_for_has_a_title() -> None:
    """And no other."""
    assert set(packs.TITLES) == set(get_args(regimes.Evidence))


def test_what_does_not_hold_is_told_at_the_top(
    tmp_path: Path, made: ModelPackage, log: SqlAuditLog
) -> None:
    """Of the records, and of the decisions made again; on the page before anything else."""
    log.append(decided(made, toys.applications(5))).result()
    with closing(sqlite3.connect(tmp_path / "records.db")) as database, database:
        database.execute("UPDATE records SET body = replace(body, 'LOW', 'HIGH')")
    key = Ed25519PrivateKey.generate().public_key()
    findings = packs.Findings(packs.replayed(made, log, 10), verify(log.reading, [key]))

    found = packs.pack(made, REGIME, "regime's", log, findings, made_at=NOON)
    folders.write(found, made, REGIMES / "us-ecoa.yaml", tmp_path / "pack")

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

    few = packs.replayed(made, log, 12, lambda done, total: told.append((done, total)))
    every = packs.replayed(made, log, 1_000)

    assert (few.records, every.records) == (12, 30)
    assert told == [(12, 12)]
    (statement,) = pack(made, log, packs.Findings(few))["topics"]["replay"]["statements"]
    assert statement["text"].endswith("that they name: MATCH 12.")
    assert packs.replayed(made, log, 0).records == 0


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

    replays = packs.replayed(made, log, 10)
    found = packs.Findings(replayed=replays, reviews="record 7 is altered")
    told = pack(made, log, found)

    assert {finding["topic"] for finding in told["findings"]} == {
        *("activation-history", "reviews", "replay")
    }
    assert replays.causes["record-invalid"] == 1
    assert len(told["topics"]["activation-history"]["tables"][0]["rows"]) == 1
