"""Activation: which package decides, how that changes, and what a running server makes of it."""

from __future__ import annotations

import getpass
import json
import logging
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from credit_risk import approvals, challenges, scoring
from credit_risk.audit.keys import key_id
from credit_risk.audit.log import SqlAuditLog
from credit_risk.canary import FAILURES_MOST
from credit_risk.challenges import challenge_record
from credit_risk.decisions import new_id
from credit_risk.errors import (
    DeadlineExceeded,
    EvidenceInvalid,
    PackageInvalid,
    PackageNotFound,
    RecordingFailed,
)
from credit_risk.serving import activation
from credit_risk.serving.activation import (
    ActivePackage,
    activate,
    load_checked,
    load_to_decide,
    previous_version,
    rollback,
    wanted_version,
)
from credit_risk.serving.challenging import challenge, end
from credit_risk.serving.store import DEFAULT, Store
from credit_risk.settings import Settings
from tests import served, toys
from tests.sealing import SEALING
from tests.served import Full, Served
from tests.signing import ADA, BEN, EVE, approval, write_approvers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit_risk.audit.records import Record
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage

SECONDS = 30.0
"""Long enough on any machine; nothing here takes a noticeable part of it."""


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.switches: list[tuple[str | None, str]] = []
        self.failures: list[str] = []
        self.challenges: list[tuple[str | None, str | None]] = []
        self.expected: list[str] = []

    def activated(self, package: ModelPackage, before: ModelPackage | None) -> None:
        """From which version to which."""
        self.switches.append((before.version if before else None, package.version))

    def activation_failed(self, portfolio: str) -> None:
        """Of which portfolio."""
        self.failures.append(portfolio)

    def challenged(
        self, portfolio: str, challenge: Challenge | None, before: Challenge | None
    ) -> None:
        """By which version, and by which before."""
        assert portfolio == toys.NAME
        versions = (before.version if before else None, challenge.version if challenge else None)
        self.challenges.append(versions)

    def expect(self, package: ModelPackage) -> None:
        """Which version."""
        self.expected.append(package.version)


class Place:
    """A state directory, its store and its log, with three toy packages; `a` is the default."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            portfolio=toys.NAME,
            state_dir=folder / "state",
            packages_dir=folder / "shipped",
            activation_poll_seconds=0.001,
        )
        self.store = Store(self.settings)
        self.folder = folder
        self.a = self.add("linear")
        self.b = self.add("trees")
        self.c = self.add("linear", card_md=b"# Another\n")
        shipped = self.settings.packages_dir / toys.NAME
        shipped.mkdir(parents=True)
        (shipped / DEFAULT).write_text(f"{self.a}\n", encoding="utf-8")
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)
        self.observer = Observer()

    def add(self, kind: toys.Kind, **altered: bytes) -> str:
        """Make a toy package and put it into the store; returns its version."""
        return self.store.add(toys.write_package(self.folder / "made", kind, **altered))

    def pinned(self, version: str) -> Settings:
        """The settings of a server that serves that version and nothing else."""
        return self.settings.model_copy(update={"model_version": version})

    def wanted(self) -> str:
        """The version that is to decide."""
        return wanted_version(self.settings, self.log, self.store)

    def require(self, signatures: int) -> None:
        """From now on the settings are those of a server that asks for so many signatures."""
        self.settings = self.settings.model_copy(
            update={
                "approvers_file": write_approvers(self.folder),
                "required_signatures": signatures,
            }
        )

    def sign(self, version: str, key: Ed25519PrivateKey, approver: str) -> None:
        """Put an approval beside a package."""
        sha256 = self.store.load(toys.NAME, version).digest
        self.store.sign(toys.NAME, version, approval(key, approver, sha256))

    def activate(self, version: str) -> Record:
        """Activate a version."""
        return activate(self.settings, self.log, self.store, version)

    def rollback(self) -> str:
        """Roll back; returns the version that is activated by it."""
        record = rollback(self.settings, self.log, self.store)
        assert record.model_version is not None
        return record.model_version

    def active(self) -> ActivePackage:
        """The active package as a server starts with it."""
        return ActivePackage(self.settings, self.log, self.store, self.observer, toys.unasked)

    def break_file(self, version: str, name: str = "model.json") -> Callable[[], None]:
        """Alter a file of an installed package; returns what mends it."""
        file = self.store.path(toys.NAME, version) / name
        content = file.read_bytes()
        file.write_bytes(content + b" ")

        def mend() -> None:
            file.write_bytes(content)

        return mend


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Everything, nothing activated yet."""
    made = Place(tmp_path)
    yield made
    made.log.close()


def state(active: ActivePackage) -> tuple[str, str | None]:
    """The version that decides, and what is wrong with the one that should."""
    return active.current.version, active.fault


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Which version is wanted


def test_before_any_activation_the_shipped_default_decides(place: Place) -> None:
    """The portfolio says which."""
    assert place.wanted() == place.a


def test_the_version_activated_last_decides(place: Place) -> None:
    """Whatever is shipped."""
    place.activate(place.b)
    place.activate(place.c)

    assert place.wanted() == place.c


def test_a_pinned_version_decides_whatever_was_activated(place: Place) -> None:
    """The settings of one server are stronger than the database of all."""
    place.activate(place.b)

    assert wanted_version(place.pinned(place.c), place.log, place.store) == place.c


def test_each_portfolio_has_its_own_active_version(place: Place) -> None:
    """An activation of one is none of another, in the same database."""
    place.activate(place.b)
    other = place.settings.model_copy(update={"portfolio": "another"})

    with pytest.raises(PackageNotFound, match="portfolio another ships no package"):
        wanted_version(other, place.log, place.store)


def test_the_active_version_survives_a_restart(place: Place) -> None:
    """It is in the database, not in a process."""
    place.activate(place.b)
    place.log.close()

    place.log = SqlAuditLog(place.settings.audit_url, SEALING)
    assert place.active().current.version == place.b


# Activating


def test_an_activation_is_a_record(place: Place) -> None:
    """Who made which version decide instead of which, and when."""
    before = time.time_ns() // 1_000

    returned = place.activate(place.b)

    (record,) = place.log.find(kind="activation")
    assert record == returned
    assert before <= record.time <= time.time_ns() // 1_000
    assert (record.portfolio, record.model_version) == (toys.NAME, place.b)
    package = place.store.load(toys.NAME, place.b)
    assert record.policy_version == package.policy_version
    assert (record.decision, record.status) == (None, None)
    assert record.body == {
        "action": "activate",
        "by": getpass.getuser(),
        "from": place.a,
        "to": place.b,
        "package_sha256": package.digest,
    }


def test_a_user_without_a_name_is_recorded_by_number(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under an id of the orchestrator's choice."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)

    assert place.activate(place.b).body["by"] == "54321"


def test_a_version_that_is_not_installed_is_not_activated(place: Place) -> None:
    """And nothing is recorded."""
    with pytest.raises(PackageNotFound, match="no package 0123456789ab"):
        place.activate("0123456789ab")

    assert place.log.count() == 0


def test_an_altered_package_is_not_activated(place: Place) -> None:
    """It is refused by the name of the file."""
    place.break_file(place.b, "trees.npz")

    with pytest.raises(PackageInvalid, match=r"trees\.npz was altered"):
        place.activate(place.b)
    assert place.wanted() == place.a
    assert place.log.count() == 0


def test_a_package_that_answers_its_golden_records_otherwise_is_not_activated(
    place: Place,
) -> None:
    """Its sums are right; it is this machine that gets another answer."""
    wrong = json.loads(toys.package_files("linear")["golden.json"])
    wrong["records"][3]["probability_of_default"] += 1e-5
    version = place.add("linear", golden_json=json.dumps(wrong).encode())

    with pytest.raises(PackageInvalid, match="golden record 3 is answered differently"):
        place.activate(version)
    assert place.log.count() == 0


def test_a_package_without_golden_records_is_not_loaded(place: Place) -> None:
    """Nothing could be checked."""
    version = place.add("linear", golden_json=b'{"records": []}')

    with pytest.raises(PackageInvalid, match="no golden records"):
        load_checked(place.store, toys.NAME, version)


def test_a_pinned_server_refuses_to_switch(place: Place) -> None:
    """It would go on with the pinned version; the error says what to do."""
    pinned = place.pinned(place.a)

    with pytest.raises(PackageInvalid, match=f"MODEL_VERSION pins {place.a}"):
        activate(pinned, place.log, place.store, place.b)
    place.activate(place.b)
    with pytest.raises(PackageInvalid, match="MODEL_VERSION pins"):
        rollback(pinned, place.log, place.store)
    assert place.log.count(kind="activation") == 1


def test_an_activation_that_cannot_be_recorded_does_not_happen(place: Place) -> None:
    """The record is the activation."""
    log = Full(place.settings.audit_url, SEALING)
    try:
        with pytest.raises(RecordingFailed, match="the disk is full"):
            activate(place.settings, log, place.store, place.b)
    finally:
        log.close()
    assert place.wanted() == place.a


def test_the_first_package_of_a_portfolio_that_ships_none_can_be_activated(
    place: Place,
) -> None:
    """A product line of somebody's own: trained here, activated here."""
    (place.settings.packages_dir / toys.NAME / DEFAULT).unlink()
    with pytest.raises(PackageNotFound, match="train one, then activate it"):
        place.wanted()

    record = place.activate(place.b)

    assert record.body["from"] is None
    assert place.wanted() == place.b
    with pytest.raises(PackageNotFound, match="no version to go back to"):
        place.rollback()


# Signatures


def test_a_rollback_goes_by_what_was_written_and_not_by_clocks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One activation by a clock that is a day ahead, then one by another that is a day behind."""
    now = time.time_ns()
    day = 86_400 * 10**9
    for version, apart in ((place.b, day), (place.c, -day)):
        monkeypatch.setattr(time, "time_ns", lambda apart=apart: now + apart)
        place.activate(version)

    assert place.wanted() == place.c
    assert place.rollback() == place.b
    assert place.rollback() == place.a


def test_without_enough_signatures_a_package_is_not_activated(place: Place) -> None:
    """Nor with one approver's twice, or a stranger's; two approvers are enough."""
    place.require(2)
    with pytest.raises(PackageInvalid, match=r"signed by 0 approvers \(nobody\)"):
        place.activate(place.b)
    place.sign(place.b, ADA, "ada")
    place.sign(place.b, EVE, "ben")
    with pytest.raises(
        PackageInvalid, match=r"by 1 approvers \(ada; .*: 1\), and REQUIRED_SIGNATURES is 2"
    ):
        place.activate(place.b)
    assert place.log.count() == 0

    place.sign(place.b, BEN, "ben")
    record = place.activate(place.b)

    assert record.body["signatures"] == [key_id(ADA.public_key()), key_id(BEN.public_key())]


def test_a_signature_on_record_counts_as_one_beside_the_package(place: Place) -> None:
    """Approvers of another machine have the same database, and another store."""
    place.require(1)
    package = place.store.load(toys.NAME, place.b)
    approvals.record(place.log, package, approval(ADA, "ada", package.digest), 0)

    assert place.activate(place.b).body["signatures"] == [key_id(ADA.public_key())]
    with pytest.raises(PackageInvalid, match="signed by 0 approvers"):
        load_to_decide(place.settings, None, place.store, place.b)


def test_a_signature_is_of_that_very_package(place: Place) -> None:
    """Copied beside another, it is nobody's."""
    place.require(1)
    sha256 = place.store.load(toys.NAME, place.b).digest
    place.store.sign(toys.NAME, place.c, approval(ADA, "ada", sha256))

    with pytest.raises(PackageInvalid, match="signed by 0 approvers"):
        place.activate(place.c)


def test_an_altered_package_is_refused_whoever_signed_it(place: Place) -> None:
    """Its sums are asked first; with those made anew it is another version, which nobody signed."""
    place.require(1)
    place.sign(place.b, ADA, "ada")
    place.break_file(place.b, "policy.yaml")

    with pytest.raises(PackageInvalid, match=r"policy\.yaml was altered"):
        place.activate(place.b)


def test_a_server_that_asks_for_signatures_starts_with_none_unsigned(place: Place) -> None:
    """Nor switches to one; what it says names who has signed, and it goes on."""
    place.require(1)
    with pytest.raises(PackageInvalid, match="signed by 0 approvers"):
        place.active()

    place.sign(place.a, ADA, "ada")
    active = place.active()
    assert active.current.signed_by == (key_id(ADA.public_key()),)
    lax = place.settings.model_copy(update={"required_signatures": 0})
    activate(lax, place.log, place.store, place.b)
    active.refresh()

    assert active.current.version == place.a
    assert active.fault is not None
    assert f"package {place.b} is signed by 0 approvers (nobody)" in active.fault


def test_a_rollback_to_what_was_signed_needs_nobody(place: Place) -> None:
    """Its signatures are still beside it."""
    place.require(1)
    for version in (place.a, place.b):
        place.sign(version, ADA, "ada")
    place.activate(place.b)

    assert place.rollback() == place.a


def test_the_version_page_tells_who_signed(place: Place) -> None:
    """By their keys' ids: names of people are nothing for callers."""
    place.require(1)
    place.sign(place.a, BEN, "ben")
    active = place.active()
    server = Served(cast("served.Active", active), place.log, served.settings(place.folder))

    model = server.get("/version").json()["model"]

    assert model["signed_by"] == [key_id(BEN.public_key())]


# Rolling back


def test_a_rollback_goes_back_one_version(place: Place) -> None:
    """To the one that decided before; it is recorded as what it is."""
    place.activate(place.b)
    place.activate(place.c)

    assert place.rollback() == place.b

    (record, *_) = place.log.find(kind="activation")
    assert record.body["action"] == "rollback"
    assert (record.body["from"], record.body["to"]) == (place.c, place.b)
    assert place.wanted() == place.b


def test_two_rollbacks_go_back_two_versions(place: Place) -> None:
    """Not forth again; in the end there is nothing to go back to."""
    place.activate(place.b)
    place.activate(place.c)

    assert [place.rollback(), place.rollback()] == [place.b, place.a]
    with pytest.raises(PackageNotFound, match="there is no version to go back to"):
        place.rollback()
    assert place.wanted() == place.a


def test_who_was_activated_challenges_no_longer_also_after_a_rollback(place: Place) -> None:
    """In the same moment; nor does who is rolled back to. Another's challenge goes on."""
    challenge(place.settings, place.log, place.store, place.b, share=0.1)
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    place.activate(place.b)
    assert challenges.in_force(place.log, toys.NAME) is not None
    place.activate(place.c)
    assert challenges.in_force(place.log, toys.NAME) is None

    challenge(place.settings, place.log, place.store, place.b, share=0.1)
    place.rollback()
    assert challenges.in_force(place.log, toys.NAME) is None
    assert place.active().canary is None


def test_a_challenge_that_does_not_say_whose_is_in_nobodys_way(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Verification names it. Servers start, decide with no challenger, and roll back; it ends."""
    place.activate(place.b)
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    active = place.active()
    altered = replace(challenge_record(toys.NAME, None, None, 0.0), body={})
    place.log.append([altered]).result()

    with caplog.at_level(logging.ERROR):
        active.refresh()
        active.refresh()
    assert (active.canary, active.challenge, len(caplog.records)) == (None, None, 1)
    assert altered.id in caplog.text
    assert place.active().current.version == place.b
    assert place.rollback() == place.a
    end(place.settings, place.log)
    assert challenges.in_force(place.log, toys.NAME) is None


def test_a_challenge_takes_the_place_of_one_that_does_not_say_whose(place: Place) -> None:
    """Nothing of it is known that could go on."""
    place.log.append([replace(challenge_record(toys.NAME, None, None, 0.0), body={})]).result()
    challenge(place.settings, place.log, place.store, place.c)

    found = challenges.in_force(place.log, toys.NAME)
    assert found is not None
    assert found.version == place.c


def test_an_activation_that_changed_nothing_is_not_gone_back_from(place: Place) -> None:
    """Somebody activated what decided already: going back is to what decided before that."""
    place.activate(place.b)
    place.activate(place.c)
    place.activate(place.c)

    assert [place.rollback(), place.rollback()] == [place.b, place.a]


def test_without_an_activation_there_is_nothing_to_go_back_to(place: Place) -> None:
    """The default was there from the start."""
    with pytest.raises(PackageNotFound, match=f"portfolio {toys.NAME}: there is no version"):
        previous_version(place.settings, place.log)


def test_an_activation_after_a_rollback_starts_from_there(place: Place) -> None:
    """What was rolled back is not come back to."""
    place.activate(place.b)
    place.rollback()
    place.activate(place.c)

    assert place.rollback() == place.a
    with pytest.raises(PackageNotFound):
        place.rollback()


def test_a_rollback_asks_no_golden_records_and_who_switches_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have to load what takes most of a second; workers look before they switch."""
    place.activate(place.b)
    active = place.active()

    def refuse(_: object) -> None:
        raise PackageInvalid("golden record 0 is answered differently here")

    monkeypatch.setattr(scoring, "check_golden", refuse)
    assert place.rollback() == place.a
    active.refresh()

    assert active.current.version == place.b
    assert "golden record 0" in str(active.fault)


def test_a_rollback_looks_as_far_back_as_it_takes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More activations and rollbacks than one page of records."""
    monkeypatch.setattr(activation, "load_checked", checked_once(place))
    place.activate(place.b)
    for _ in range(60):
        place.activate(place.c)
        assert place.rollback() == place.b

    assert place.rollback() == place.a


def checked_once(place: Place) -> Callable[[Store, str, str], ModelPackage]:
    """`load_checked`, but each package is loaded only once."""
    packages = {v: load_checked(place.store, toys.NAME, v) for v in (place.a, place.b, place.c)}
    return lambda _store, _portfolio, version: packages[version]


def test_a_rollback_to_an_altered_package_is_refused(place: Place) -> None:
    """Going back is no reason to trust a file more."""
    place.activate(place.b)
    place.break_file(place.a)

    with pytest.raises(PackageInvalid, match=r"model\.json was altered"):
        place.rollback()
    assert place.wanted() == place.b


# A running server


def test_a_server_starts_with_the_wanted_package(place: Place) -> None:
    """It says so to who counts."""
    place.activate(place.b)

    active = place.active()

    assert state(active) == (place.b, None)
    assert place.observer.switches == [(None, place.b)]


def test_a_server_does_not_start_with_an_altered_package(place: Place) -> None:
    """It is refused by the name of the file."""
    place.break_file(place.a)

    with pytest.raises(PackageInvalid, match=r"model\.json was altered"):
        place.active()


def test_a_running_server_switches(place: Place) -> None:
    """And stays there while nothing new is activated."""
    active = place.active()
    place.activate(place.b)

    active.refresh()
    switched = active.current
    active.refresh()

    assert switched.version == place.b
    assert active.current is switched
    assert place.observer.switches == [(None, place.a), (place.a, place.b)]


def test_a_server_follows_by_itself_until_it_is_closed(place: Place) -> None:
    """Activations and rollbacks from another process reach it."""
    active = place.active()
    active.follow()
    place.activate(place.b)
    until(lambda: active.current.version == place.b)
    place.rollback()
    until(lambda: active.current.version == place.a)

    active.close()
    place.activate(place.c)
    assert active.current.version == place.a
    assert "activation" not in [thread.name for thread in threading.enumerate()]


def test_a_pinned_server_does_not_switch(place: Place) -> None:
    """Whatever was activated; who challenges it, it sees all the same."""
    pinned = place.pinned(place.b)
    active = ActivePackage(pinned, place.log, place.store, place.observer, toys.unasked)
    active.follow()
    place.activate(place.c)
    challenge(pinned, place.log, place.store, place.a)
    until(lambda: active.challenge is not None)

    assert active.current.version == active.champion == place.b
    active.close()


def test_a_challenger_with_a_share_is_loaded_and_decides(place: Place) -> None:
    """From the first moment of a worker; with another share, without being loaded again."""
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    active = place.active()
    assert active.canary is not None
    assert (active.canary.package.version, active.canary.challenge.share) == (place.c, 0.1)
    loaded = active.canary.package

    challenge(place.settings, place.log, place.store, place.c, share=0.3)
    active.refresh()
    assert active.canary.package is loaded
    assert active.canary.challenge.share == 0.3
    assert place.observer.expected == [place.c]
    end(place.settings, place.log)
    active.refresh()
    assert active.canary is None


def test_a_challenger_that_fails_again_and_again_is_suspended_on_record(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """For all workers and servers; a share gives it another try, with a queue of its own."""
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    workers = [place.active(), place.active()]
    for active in workers:
        assert active.canary is not None
        for _ in range(FAILURES_MOST):
            active.canary.trials.went_wrong(DeadlineExceeded("late"))
    queue = workers[0].canary.batcher if workers[0].canary is not None else None

    for active in workers:
        active.refresh()

    assert [active.canary for active in workers] == [None, None]
    last, first = place.log.find(kind="challenge")
    assert (last.body["to"], last.body["share"], last.body["from"]) == (place.c, 0.0, place.c)
    why = "it failed 5 calls in a row, the last one with DeadlineExceeded"
    assert (last.body["suspended"], last.body["draw"]) == (why, first.id)
    assert caplog.text.count("decides about nobody any more") == 1
    workers[0].refresh()
    assert place.log.count(kind="challenge") == 2

    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    workers[0].refresh()
    again = workers[0].canary
    assert again is not None
    assert not again.trials.failed
    assert again.batcher is not queue


def test_while_nothing_can_be_recorded_a_suspended_challenger_decides_nothing(
    place: Place,
) -> None:
    """The record comes when it can."""
    challenge(place.settings, place.log, place.store, place.c, share=1.0)
    full = Full(place.settings.audit_url, SEALING)
    active = ActivePackage(place.settings, full, place.store, place.observer, toys.unasked)
    assert active.canary is not None
    for _ in range(FAILURES_MOST):
        active.canary.trials.went_wrong(ValueError())

    active.refresh()
    full.close()

    assert active.canary is not None
    assert not active.canary.takes(active.current, toys.SAFE)
    assert place.log.count(kind="challenge") == 1


def test_a_challenger_that_cannot_decide_here_is_tried_until_it_can(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and the champion decides about everybody meanwhile."""
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    mend = place.break_file(place.c)
    place.settings = place.settings.model_copy(update={"registry_poll_seconds": 0.0})
    active = place.active()
    active.refresh()
    assert (active.current.version, active.canary) == (place.a, None)
    assert place.observer.failures == [toys.NAME]
    assert caplog.text.count("decides about nobody here") == 1

    mend()
    active.refresh()
    assert active.canary is not None


def test_a_pinned_server_is_decided_by_no_challenger(place: Place) -> None:
    """However it came to be on record."""
    challenge(place.settings, place.log, place.store, place.c, share=0.1)

    pinned = place.pinned(place.a)
    active = ActivePackage(pinned, place.log, place.store, place.observer, toys.unasked)

    assert active.canary is None
    assert active.challenge is not None


def test_who_challenges_is_followed_and_told(place: Place) -> None:
    """Another, the same for a share, and nobody any more."""
    active = place.active()
    challenge(place.settings, place.log, place.store, place.b)
    active.refresh()
    assert active.challenge is not None
    assert (active.challenge.version, active.challenge.share) == (place.b, 0.0)
    assert active.folders()[place.b] == str(place.store.path(toys.NAME, place.b))
    challenge(place.settings, place.log, place.store, place.c, share=0.1)
    active.refresh()
    active.refresh()
    end(place.settings, place.log)
    active.refresh()

    assert active.challenge is None
    assert place.observer.challenges == [(None, place.b), (place.b, place.c), (place.c, None)]


def test_a_package_that_cannot_be_loaded_leaves_the_one_before(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, counted once, and named with its file."""
    active = place.active()
    place.activate(place.b)
    place.break_file(place.b, "trees.npz")

    for _ in range(3):
        active.refresh()

    assert active.current.version == place.a
    assert active.fault is not None
    assert f"version {place.b} was activated but cannot be loaded" in active.fault
    assert "trees.npz was altered" in active.fault
    assert place.observer.failures == [toys.NAME]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert f"{place.a} goes on deciding" in errors[0].getMessage()


def test_what_was_mended_is_taken_when_it_is_activated_again(place: Place) -> None:
    """The same version, so the same content: what was wrong with it was its copy."""
    active = place.active()
    place.activate(place.b)
    mend = place.break_file(place.b)
    active.refresh()
    assert active.fault is not None
    mend()
    place.activate(place.b)

    active.refresh()

    assert state(active) == (place.b, None)


def test_a_fault_is_over_when_another_version_is_activated(place: Place) -> None:
    """The one that decides already, or a third."""
    active = place.active()
    for good in (place.a, place.c):
        place.activate(place.b)
        mend = place.break_file(place.b)
        active.refresh()
        assert active.fault is not None
        place.activate(good)
        active.refresh()

        assert state(active) == (good, None)
        mend()


def test_whatever_a_package_raises_the_server_goes_on_looking(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, a library's own error: the next activation is still noticed."""
    active = place.active()

    def fail(*_: object) -> ModelPackage:
        raise OSError(24, "Too many open files")

    active.follow()
    with monkeypatch.context() as broken:
        place.activate(place.b)
        broken.setattr(activation, "load_checked", fail)
        until(lambda: active.fault is not None or active.current.version == place.b)
    place.activate(place.c)

    until(lambda: active.current.version == place.c)
    assert active.fault is None
    active.close()


def test_whatever_the_records_raise_the_server_goes_on_looking(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something that nobody foresaw is logged, and the next activation is still noticed."""
    active = place.active()

    def fail(*_: object) -> tuple[str, str | None]:
        raise LookupError

    with monkeypatch.context() as broken:
        broken.setattr(activation, "_wanted", fail)
        active.follow()
        until(lambda: "activations could not be followed" in caplog.text)
    place.activate(place.b)

    until(lambda: active.current.version == place.b)
    active.close()


def test_a_database_that_cannot_be_read_changes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """What is known goes on; when it is back, it is looked at again. Both are said once."""
    caplog.set_level("INFO", activation.logger.name)
    database = place.settings.state_dir / "records.db"
    active = place.active()
    place.activate(place.b)
    for _ in range(2):
        database.rename(database.with_suffix(".aside"))
        for _ in range(3):
            active.refresh()
            assert state(active) == (place.a, None)
        assert caplog.text.count("activations cannot be read") == 1
        database.with_suffix(".aside").rename(database)
        active.refresh()
        active.refresh()
        assert active.current.version == place.b
        assert caplog.text.count("activations can be read again") == 1
        caplog.clear()
        place.a = place.b


def test_a_switch_drops_no_request_and_mixes_nothing(place: Place) -> None:
    """While versions change, each answer is of one version: its PD, policy and record."""
    active = place.active()
    server = Served(cast("served.Active", active), place.log, served.settings(place.folder))
    expected = {
        version: decided_by(place, version)["probability_of_default"]
        for version in (place.a, place.b)
    }
    answers: list[served.Answer] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(server.send("/predict", json.dumps(toys.RISKY).encode()))

    asking = threading.Thread(target=ask)
    asking.start()
    active.follow()
    for version in (place.b, place.a) * 4:
        number = len(answers)
        place.activate(version)
        until(lambda v=version, n=number: active.current.version == v and len(answers) > n + 3)  # type: ignore[misc]
    done.set()
    asking.join()
    active.close()

    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        decision = answer.json()
        assert decision["probability_of_default"] == expected[decision["model_version"]]
        record = place.log.get(decision["decision_id"])
        assert record.model_version == decision["model_version"]
    assert {answer.json()["model_version"] for answer in answers} == {place.a, place.b}


def decided_by(place: Place, version: str) -> dict[str, Any]:
    """What a server of that version answers about the risky applicant."""
    package = load_checked(place.store, toys.NAME, version)
    server = Served(served.Active(package), place.log, served.settings(place.folder))
    answer: dict[str, Any] = server.send("/predict", json.dumps(toys.RISKY).encode()).json()
    return answer


def test_the_health_page_names_the_fault(place: Place) -> None:
    """While the package before goes on deciding."""
    active = place.active()
    server = Served(cast("served.Active", active), place.log, served.settings(place.folder))
    place.activate(place.b)
    place.break_file(place.b, "trees.npz")
    active.refresh()

    health = server.get("/health").json()

    assert health["status"] == "ok"
    assert health["model_version"] == place.a
    assert f"package {place.b}: trees.npz was altered" in health["checks"]["activation"]
    assert server.post("/predict", toys.SAFE).json()["model_version"] == place.a


def test_an_activation_that_does_not_say_which_stops_a_rollback_by_name(place: Place) -> None:
    """Where to go back to cannot be known; its hash may fit all the same."""
    place.activate(place.b)
    (record,) = place.log.find(kind="activation")
    place.log.append([replace(record, id=new_id(), body={"action": "activate"})]).result()

    (rewritten, *_) = place.log.find(kind="activation")
    with pytest.raises(EvidenceInvalid, match=f"record {rewritten.id}: it does not say"):
        place.rollback()
