"""History: what decided at a time is what records of that time say, and nothing later."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import history
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import Record, microseconds, moment, new_id
from credit_risk.errors import EvidenceInvalid
from tests import toys
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.records import RecordKind

A, B, C = ("a" * 12, "b" * 12, "c" * 12)
HOUR = 3_600_000_000
NINE = 1_772_528_400_000_000
"""09:00 on 3 March 2026, UTC."""


class Log:
    """Records of a morning, each at its hour."""

    def __init__(self, folder: Path) -> None:
        self.log = SqlAuditLog(f"sqlite:///{folder}/records.db", SEALING)

    def add(self, kind: RecordKind, hour: float, version: str | None, **body: Any) -> str:  # noqa: ANN401 - any JSON
        """Put a record at so many hours after nine; returns its id."""
        made = Record(
            id=new_id(),
            kind=kind,
            time=NINE + round(hour * HOUR),
            portfolio=toys.NAME,
            request_id=new_id(),
            model_version=version,
            policy_version=f"1.0.0+{version}",
            decision="APPROVE" if kind == "decision" else None,
            status=200 if kind == "decision" else None,
            body=body,
        )
        self.log.append([made]).result()
        return made.id

    def activate(self, hour: float, to: str, before: str | None, **body: Any) -> str:  # noqa: ANN401 - any JSON
        """An activation."""
        said = {"action": "activate", "by": "ops", "from": before, "to": to}
        return self.add("activation", hour, to, **said, package_sha256=to * 5, **body)

    def at(self, hour: float) -> dict[str, Any]:
        """What decided so many hours after nine."""
        return history.at(self.log, toys.NAME, NINE + round(hour * HOUR))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Nothing is on record yet."""
    made = Log(tmp_path)
    yield made
    made.log.close()


def test_what_decided_is_what_was_activated_last_by_then(log: Log) -> None:
    """In the very instant of an activation it is the new one; later ones are its end."""
    first = log.activate(0, B, A)
    log.activate(1, B, B)
    log.activate(2, C, B, signatures=["k1"])

    found = log.at(1.5)["decided"]
    assert found == {
        "model_version": B,  # which an activation that changed nothing left as it was
        "policy_version": f"1.0.0+{B}",
        "package_sha256": B * 5,
        "since": moment(NINE),
        "until": moment(NINE + 2 * HOUR),
        "record": first,
        "action": "activate",
        "by": "ops",
        "from": A,
        "promotion": None,
        "signatures": None,
        "registry": None,
        "approvals": [],
    }
    assert log.at(0)["decided"]["record"] == first
    assert log.at(0)["decided"]["until"] == moment(NINE + 2 * HOUR)
    last = log.at(5)["decided"]
    assert (last["model_version"], last["until"], last["signatures"]) == (C, None, ["k1"])


def test_a_time_of_a_day_is_found_in_words(log: Log) -> None:
    """As somebody asks: what decided on 3 March at 14:00."""
    log.activate(4.5, B, A)

    found = history.at(log.log, toys.NAME, microseconds(datetime.fromisoformat("2026-03-03T14:00")))

    assert found["at"] == "2026-03-03T14:00:00.000000Z"
    assert found["decided"]["model_version"] == B


def test_before_any_activation_the_package_decided_that_a_server_started_with(log: Log) -> None:
    """The shipped one; before the first start nothing did."""
    assert log.at(0)["decided"] is None
    log.add("start", 1, A, package_sha256=A * 5)
    log.activate(2, B, A)

    found = log.at(1.5)["decided"]

    assert (found["model_version"], found["package_sha256"]) == (A, A * 5)
    assert (found["since"], found["until"]) == (moment(NINE + HOUR), moment(NINE + 2 * HOUR))
    assert "action" not in found
    assert log.at(0.5)["decided"] is None


def test_who_approved_and_what_was_shown_are_told_with_it(log: Log) -> None:
    """Approvals up to then, the first one first, of that package alone."""
    for hour, version, name in ((0, B, "ada"), (0.5, C, "eve"), (1, B, "ben"), (3, B, "kim")):
        signed = base64.b64encode(name.encode()).decode()
        log.add("approval", hour, version, approver=name, key_id=signed, package_sha256=version * 5)
    shown = {"verdict": "PASSED", "reasons": [], "criteria": []}
    promotion = log.add(
        "promotion",
        2,
        B,
        outcome="PROMOTED",
        judgement=shown,
        promotion_policy={"version": "1.0.0", "sha256": "0" * 64},
        approvals={"required": 2, "given": {"ada": "k1", "ben": "k2"}},
        by="ops",
    )
    log.activate(2, B, A, promotion=promotion)

    found = log.at(2.5)["decided"]

    assert [a["approver"] for a in found["approvals"]] == ["ada", "ben"]
    assert found["promotion"]["record"] == promotion
    assert found["promotion"]["judgement"] == shown
    assert list(found["promotion"]["approvals"]["given"]) == ["ada", "ben"]


def test_a_challenge_in_force_is_told_until_its_end(log: Log) -> None:
    """In shadow, for a share, and then none."""
    challenge = {"from": None, "by": "ops", "draw": "x", "package_sha256": "y"}
    log.add("challenge", 0, B, to=B, share=0.0, **challenge)
    log.add("challenge", 1, B, to=B, share=0.05, **challenge)
    log.add("challenge", 2, None, **challenge | {"from": B}, to=None, share=0.0)

    shares = [(found := log.at(hour)["challenge"]) and found["share"] for hour in (0.5, 1.5, 2.5)]

    assert shares == [0.0, 0.05, None]
    assert log.at(0.5)["challenge"]["model_version"] == B


def test_a_clock_that_was_wrong_once_has_no_say_over_what_came_after(log: Log) -> None:
    """One that was ahead by three hours, and one that was behind by as many."""
    log.activate(0, B, A)
    log.activate(4, C, B)  # at one o'clock
    last = log.activate(2, B, C)
    assert [log.at(hour)["decided"]["model_version"] for hour in (1, 3, 5)] == [B, B, B]
    assert log.at(5)["decided"]["record"] == last

    behind = log.activate(-1, C, B)
    assert log.at(5)["decided"]["record"] == behind
    assert log.at(5)["decided"]["until"] is None


def test_a_challenge_that_was_suspended_is_told_with_why(log: Log) -> None:
    """By whom is who runs the server."""
    log.add("challenge", 0, B, to=B, share=0.0, by="server", suspended="it failed 5 calls in a row")

    (event,) = history.events(log.log, toys.NAME, 10)

    assert event["what"] == "decides about nobody any more: it failed 5 calls in a row"


def test_the_last_decision_before_then_names_the_package_that_made_it(log: Log) -> None:
    """A server whose version is pinned does not go by activations."""
    log.activate(0, B, A)
    decision = log.add("decision", 1, A)
    log.add("decision", 2, B)

    assert log.at(1.5)["last_decision"] == {
        "id": decision,
        "time": moment(NINE + HOUR),
        "model_version": A,
    }
    assert log.at(0.5)["last_decision"] is None


def test_an_answer_rests_on_nothing_that_says_something_else(log: Log) -> None:
    """An activation without what a server writes into it is no evidence."""
    log.add("activation", 0, B, action="activate")

    with pytest.raises(EvidenceInvalid, match="does not say what a server writes"):
        log.at(1)


def test_events_are_listed_the_newest_first(log: Log) -> None:
    """Each in a few words, with who had it happen."""
    challenge = {"from": None, "by": "ops", "draw": "x", "package_sha256": "y"}
    log.add("challenge", 0, B, to=B, share=0.0, **challenge)
    log.add("challenge", 1, B, to=B, share=0.05, **challenge)
    log.add("approval", 2, B, approver="ada", key_id="k", package_sha256="y", signature={})
    log.add("promotion", 3, B, outcome="PROMOTED", by="ops")
    log.add("challenge", 3.5, None, **challenge | {"from": B}, to=None, share=0.0)
    log.activate(4, B, A)
    log.activate(4.5, B, B)
    log.add("decision", 5, B)

    found = history.events(log.log, toys.NAME, 10)

    assert [(event["what"], event["who"]) for event in found] == [
        ("activate: decides already", "ops"),
        (f"activate: decides instead of {A}", "ops"),
        (f"challenge of {B} ends", "ops"),
        ("promotion: PROMOTED", "ops"),
        ("approved", "ada"),
        ("challenges, for 0.05 of applicants", "ops"),
        ("challenges, in shadow", "ops"),
    ]
    assert history.events(log.log, toys.NAME, 2) == found[:2]
