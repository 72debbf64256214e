"""A challenger that decides about a share of applicants, as callers and records see it."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import decisions, replay
from credit_risk.canary import FAILURES_MOST, Canary
from credit_risk.challenges import Challenge, takes
from credit_risk.scoring import decide
from tests import toys
from tests.served import Broken

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage
    from tests.served import Served

ID = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"


def challenged(server: Served, package: ModelPackage, share: float = 1.0) -> Challenge:
    """Have a package decide about that share."""
    challenge = Challenge(ID, toys.NAME, package.version, share, ID, 0)
    server.active.canary = Canary(challenge, package, server.canary_batcher)
    server.metrics.expect(package)
    return challenge


def counted(server: Served, outcome: str) -> float:
    """How many were to be decided by the challenger and came out so."""
    return server.sample("credit_canary_decisions_total", outcome=outcome)


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_the_challenger_decides_and_answer_and_record_say_so(
    server: Served, linear_package: ModelPackage, path: str
) -> None:
    """With its own PD, reasons and version; the record names the challenge."""
    challenged(server, linear_package)

    answer = server.post(path, toys.RISKY).json()

    (expected,) = decide(linear_package, [toys.RISKY])
    assert answer["probability_of_default"] == expected.probability_of_default
    assert [reason["code"] for reason in answer["reasons"]] == [r.code for r in expected.reasons]
    assert answer["model_version"] == linear_package.version
    record = server.only_record()
    assert record.model_version == linear_package.version
    assert record.body["challenge"] == ID
    assert record.body["package_sha256"] == linear_package.digest
    version = {"model_version": linear_package.version}
    assert server.sample("credit_decisions_total", **version) == 1
    assert (counted(server, "decided"), counted(server, "failed")) == (1, 0)
    (again,) = replay.replay([record], lambda _portfolio, _version: linear_package)
    assert again.verdict == "MATCH"


def test_an_applicant_is_always_on_the_same_side_by_key(
    server: Served, linear_package: ModelPackage, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the application says; and the key is nowhere afterwards."""
    caplog.set_level(logging.DEBUG)
    challenge = challenged(server, linear_package, 0.5)
    keys = [f"sentinel-{number}" for number in range(12)]
    for key in keys:
        sides = {
            server.post("/predict", application, applicant_key=key).json()["model_version"]
            for application in (toys.SAFE, toys.RISKY)
        }
        taken = takes(challenge, key.encode())
        assert sides == {linear_package.version if taken else server.active.current.version}

    assert counted(server, "decided") == 2 * sum(takes(challenge, k.encode()) for k in keys)
    assert "sentinel" not in caplog.text
    assert all("sentinel" not in str(record) for record in server.records())
    assert "sentinel" not in server.get("/metrics").text


def test_in_a_batch_each_row_has_its_own_side(server: Served, linear_package: ModelPackage) -> None:
    """By its application; results are in order, and records name who decided."""
    challenge = challenged(server, linear_package, 0.5)
    applications: list[dict[str, Any]] = [dict(one) for one in toys.applications(15)]

    answer = server.post("/predict/batch", {"applications": [*applications, {}]}).json()

    canary = server.active.canary
    assert canary is not None
    champion = server.active.current
    taken = [canary.takes(champion, one) for one in applications]
    assert set(taken) == {True, False}
    for row, one, by_challenger in zip(answer["results"], applications, taken, strict=False):
        package = linear_package if by_challenger else champion
        (expected,) = decide(package, [one])
        assert row["model_version"] == package.version
        assert row["probability_of_default"] == expected.probability_of_default
    assert (answer["model_version"], answer["decided"]) == (champion.version, 15)
    marks = {record.id: record.body.get("challenge") for record in server.records()}
    assert [marks[row["decision_id"]] for row in answer["results"][:-1]] == [
        challenge.id if one else None for one in taken
    ]
    version = {"model_version": linear_package.version}
    assert server.sample("credit_decisions_total", **version) == sum(taken)


def test_the_champion_decides_where_the_challenger_fails(
    server: Served, linear_package: ModelPackage
) -> None:
    """Alone, and among others; the record says that the challenger failed to."""
    challenged(server, replace(linear_package, model=Broken(ZeroDivisionError)))
    version = server.active.current.version

    answer = server.post("/predict", toys.SAFE).json()
    batch = server.post("/predict/batch", {"applications": [toys.SAFE, toys.RISKY]}).json()

    assert answer["model_version"] == version
    assert [row["model_version"] for row in batch["results"]] == [version] * 2
    for record in server.records():
        assert record.body["challenge_failed"] == ID
        assert "challenge" not in record.body
    assert (counted(server, "decided"), counted(server, "failed")) == (0, 3)


@pytest.mark.parametrize("slow", [True, False])
def test_a_challenger_that_takes_too_long_leaves_time_for_the_champion(
    server: Served,
    linear_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
    slow: bool,  # noqa: FBT001 - a case
) -> None:
    """It has its part of it, whatever its model says, and is asked no more when it hangs."""
    monkeypatch.setattr(decisions, "TIME_SHARE", 0.0001)  # of the ten minutes of a test
    released = threading.Event()

    class Hanging(Broken):
        """Answers when it is let."""

        def log_odds(self, rows: Any) -> Any:  # noqa: ANN401 - numbers
            """Hang."""
            released.wait(600)
            return super().log_odds(rows)

    challenged(server, replace(linear_package, model=Hanging(slow=slow)))
    try:
        answer = server.post("/predict", toys.SAFE).json()
        assert server.only_record().body["challenge_failed"] == ID
        canary = server.active.canary
        assert canary is not None
        assert canary.trials.failures == 1
        canary.trials.failures = FAILURES_MOST - 1
        for _ in range(2):
            server.post("/predict", toys.SAFE)
    finally:
        released.set()

    assert answer["model_version"] == server.active.current.version
    assert counted(server, "failed") == 2
    assert ["challenge_failed" in record.body for record in server.records()] == [False, True, True]


def test_a_bad_application_is_refused_as_ever(server: Served, linear_package: ModelPackage) -> None:
    """Before anybody is asked to decide."""
    challenged(server, linear_package)

    assert server.post("/predict", {"age": 7}).status_code == 422
    assert (counted(server, "decided"), counted(server, "failed")) == (0, 0)


def test_without_a_canary_nothing_is_different(server: Served) -> None:
    """The header means nothing then."""
    server.post("/predict", toys.SAFE, applicant_key="4711")

    assert "challenge" not in server.only_record().body
