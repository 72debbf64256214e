"""`credit-risk history`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit.keys import key_id
from tests import toys
from tests.commands import Outcome, Place, decide, refused
from tests.signing import ADA, write_approvers, write_key

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = "portfolio: bicycle-leases\nversion: 1.0.0\napprovals: 1\ncriteria: {}\n"


@pytest.fixture
def _gate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One person has to approve."""
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", str(write_approvers(place.folder)))
    policy = place.folder / "portfolios" / toys.NAME / "promotion.yaml"
    policy.write_text(POLICY, encoding="utf-8")


@pytest.mark.usefixtures("_gate")
def test_the_whole_of_a_promotion_is_found_again(run: Callable[..., Outcome], place: Place) -> None:
    """Challenged, approved, promoted, rolled back: the list has it all, and each time its own."""
    run("challenge", place.linear)
    run("approve", place.linear, "--key", str(write_key(place.folder, ADA)))
    promoted = run("promote", place.linear, "--json").json()
    run("rollback")

    told = run("history", "--json").json()
    assert sorted(event["kind"] for event in told) == [
        *("activation", "activation", "approval", "challenge", "challenge", "promotion")
    ]
    listed = run("history", "--limit", "2").out.splitlines()
    assert len(listed) == 3
    assert f"rollback: decides instead of {place.linear}" in listed[1]

    when = run("decisions", "show", promoted["activation"], "--json").json()["time"]
    found = run("history", "--at", when, "--json").json()
    assert set(found) == {"portfolio", "at", "decided", "challenge", "last_decision"}
    assert (found["decided"]["model_version"], found["challenge"]) == (place.linear, None)
    lines = run("history", "--at", when).out.splitlines()
    assert f"{place.linear} decided, by policy 2.1.0+" in lines[0]
    assert ", until " in lines[1]
    assert lines[1].endswith(f"instead of {place.trees}; record {promoted['activation']}")
    assert promoted["record"] in lines[3]
    assert f"approved by ada (key {key_id(ADA.public_key())})" in lines[4]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    back = run("history", "--at", now).out
    assert f"rollback by {found['decided']['by']}, instead of {place.linear}" in back
    assert "no promotion" not in back


def test_what_decided_without_a_promotion_is_told_apart(
    run: Callable[..., Outcome], place: Place
) -> None:
    """By hand, or because it came with the program; and who challenged it, and what it decided."""
    package = place.store().load(toys.NAME, place.trees)
    decision = decide(place, package, toys.SAFE)[-1]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lines = run("history", "--at", now).out.splitlines()
    assert lines == [f"{toys.NAME}: nothing was activated or started by {now}"]

    run("models", "activate", place.linear)
    run("challenge", place.trees)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lines = run("history", "--at", now).out.splitlines()
    assert lines[3] == "  no promotion: it was activated by hand"
    assert f"challenged by {place.trees}, in shadow" in lines[4]
    assert lines[5].startswith(f"  last decision: {decision}, ")


def test_a_time_to_come_has_no_answer(run: Callable[..., Outcome]) -> None:
    """Whatever decides now, it may be another one by then."""
    run("rollback")
    outcome = run("history", "--at", "2999-01-01")

    assert outcome.code == 2
    assert "that time has not come" in outcome.err


def test_without_records_there_is_no_history(run: Callable[..., Outcome]) -> None:
    """A portfolio's name that is mistyped is told first."""
    refused(run("history"), 3, "no records yet")
    refused(run("history", "--portfolio", "bicycles"), 3, "no portfolio 'bicycles'")
