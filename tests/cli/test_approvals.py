"""`credit-risk approve`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import typer

from credit_risk import approvals
from credit_risk.approvals import MOST
from credit_risk.audit.keys import key_id
from credit_risk.audit.log import open_log
from credit_risk.audit.records import new_id
from credit_risk.settings import Settings
from tests import toys
from tests.commands import Outcome, Place, refused
from tests.signing import ADA, BEN, EVE, approval, write_approvers, write_key

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def _approvers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ada and Ben may approve, and both have to."""
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", str(write_approvers(place.folder)))
    monkeypatch.setenv("CREDIT_RISK_REQUIRED_SIGNATURES", "2")


@pytest.mark.usefixtures("_approvers")
def test_two_approvers_sign_and_the_package_may_decide(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a key of their own, one of which has a passphrase; neither twice."""
    ada = str(write_key(place.folder, ADA))
    ben = str(write_key(place.folder, BEN, "sesame"))
    eve = str(write_key(place.folder, EVE))
    refused(run("models", "activate", place.linear), 1, "signed by 0 approvers")

    record = run("approve", place.linear, "--key", ada, "--json").json()
    assert record["kind"] == "approval"
    assert record["model_version"] == place.linear
    assert (record["body"]["approver"], record["body"]["key_id"]) == (
        "ada",
        key_id(ADA.public_key()),
    )
    refused(run("approve", place.linear, "--key", ada), 1, "ada has approved", "somebody else")
    refused(run("approve", place.linear, "--key", eve), 1, "none of those in the file of approvers")
    refused(run("models", "activate", place.linear), 1, "signed by 1 approvers (ada)")

    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "sesame")
    said = run("approve", place.linear, "--key", ben).out
    assert said.startswith(f"{toys.NAME}: ben answers for package {place.linear}, approved by ada,")

    rows = {row["version"]: row for row in run("models", "list", "--json").json()}
    assert rows[place.linear]["signers"] == ["ada", "ben"]
    assert rows[place.trees]["signers"] == []
    assert "ada, ben" in run("models", "list").out
    activated = run("models", "activate", place.linear, "--json").json()
    assert len(activated["body"]["signatures"]) == 2
    refused(run("models", "rollback"), 1, f"package {place.trees} is signed by 0 approvers")


@pytest.mark.usefixtures("_approvers")
def test_junk_beside_a_package_and_on_record_keeps_no_approval_out(
    run: Callable[..., Outcome], place: Place
) -> None:
    """However much there is; it is told how much."""
    run("approve", place.linear, "--key", str(write_key(place.folder, ADA)))
    package = place.store().load(toys.NAME, place.linear)
    junk = [approval(EVE, f"eve {i}", package.digest) for i in range(MOST + 5)]
    with closing(open_log(Settings(state_dir=place.state))) as log:
        (signed,) = log.find(kind="approval")
        log.append(
            [replace(signed, id=new_id(), body={"signature": one.model_dump()}) for one in junk]
        ).result()
    file = approvals.beside(place.store().path(toys.NAME, place.linear))
    file.write_text(
        json.dumps({"signatures": [{}, *(one.model_dump() for one in junk)]}), encoding="utf-8"
    )
    told = f"count for nobody: {MOST + 6}"
    refused(run("models", "activate", place.linear), 1, "signed by 1 approvers (ada;", told)

    outcome = run("approve", place.linear, "--key", str(write_key(place.folder, BEN)))

    assert outcome.code == 0
    assert "approved by ada, ben so far" in outcome.out
    assert told in outcome.err
    assert told[:-3] in run("models", "list").err
    assert run("models", "activate", place.linear).code == 0


@pytest.mark.usefixtures("_approvers")
def test_an_altered_package_is_not_approved(run: Callable[..., Outcome], place: Place) -> None:
    """Nor one that is not there; and a key has to be one."""
    ada = write_key(place.folder, ADA)
    refused(run("approve", "000000000000", "--key", str(ada)), 3, "no package 000000000000")
    refused(run("approve", place.trees, "--key", str(place.folder / "none")), 3, "does not exist")
    broken = place.folder / "broken.pem"
    broken.write_text("-----BEGIN PRIVATE KEY-----", encoding="utf-8")
    refused(run("approve", place.trees, "--key", str(broken)), 1, "broken.pem: it is not a private")

    place.alter(place.trees, "policy.yaml")
    refused(run("approve", place.trees, "--key", str(ada)), 1, "policy.yaml was altered")


def test_without_a_file_of_approvers_nobody_approves(
    run: Callable[..., Outcome], place: Place
) -> None:
    """It is told before a passphrase is asked for."""
    outcome = run("approve", place.trees, "--key", str(place.folder / "none"))

    refused(outcome, 1, "CREDIT_RISK_APPROVERS_FILE is not set")


def test_bulk_scoring_decides_with_what_is_signed_only(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does."""
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", str(write_approvers(place.folder)))
    monkeypatch.setenv("CREDIT_RISK_REQUIRED_SIGNATURES", "1")
    source = place.folder / "leases.csv"
    source.write_text("age\n", encoding="utf-8")

    refused(run("score", str(source), str(place.folder / "out.csv")), 1, "signed by 0 approvers")
