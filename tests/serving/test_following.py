"""Following the registry's alias: when it moved, what stands in the way, and what is not undone."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import challenges
from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import PackageInvalid, PackageNotFound, RegistryUnavailable
from credit_risk.manifest import read_manifest
from credit_risk.serving import activation, challenging, registry
from credit_risk.serving.activation import ActivePackage, activate, rollback, wanted_version
from credit_risk.serving.following import ALIASES, Follower, Outcome, package_to_serve
from credit_risk.serving.registry import CHALLENGER, CHAMPION
from credit_risk.serving.store import DEFAULT, Store
from credit_risk.settings import Settings
from tests import registries, toys
from tests.registries import Mlflow
from tests.sealing import SEALING
from tests.served import Full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage

SECONDS = 30.0
"""Long enough on any machine; nothing here takes a noticeable part of it."""


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Outcome]] = []

    def registry_asked(self, portfolio: str, alias: str, outcome: Outcome) -> None:
        """What came of it."""
        assert portfolio == toys.NAME
        self.outcomes.append((alias, outcome))

    def of(self, alias: str) -> list[Outcome]:
        """What came of the looks at an alias."""
        return [outcome for named, outcome in self.outcomes if named == alias]

    def activated(self, package: ModelPackage, before: ModelPackage | None) -> None:
        """Another package decides."""

    def activation_failed(self, portfolio: str) -> None:
        """It cannot be loaded."""

    def expect(self, package: ModelPackage) -> None:
        """No challenger decides here."""
        raise AssertionError(package.version)

    def challenged(
        self, portfolio: str, challenge: Challenge | None, before: Challenge | None
    ) -> None:
        """Another challenge is in force."""


class Place:
    """A server's state, with the package `a` shipped; `a`, `b` and `c` are in the registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mlflow = Mlflow()
        self.asked = self.mlflow.client()
        self.observer = Observer()
        made = [
            toys.write_package(folder / "shipped", "linear"),
            toys.write_package(folder / "made", "trees"),
            toys.write_package(folder / "made", "linear", card_md=b"# Another\n"),
        ]
        self.numbers = [self.mlflow.add(path) for path in made]
        self.a, self.b, self.c = (read_manifest(path).version for path in made)
        shipped = folder / "shipped" / toys.NAME / DEFAULT
        shipped.write_text(f"{self.a}\n", encoding="utf-8")
        self.settings = self.node("state")
        self.store = Store(self.settings)
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)

    def node(self, name: str) -> Settings:
        """The settings of a server with a state directory of its own, and the same records."""
        return Settings(
            portfolio=toys.NAME,
            state_dir=self.folder / name,
            database_url=f"sqlite:///{self.folder / 'records.db'}",
            packages_dir=self.folder / "shipped",
            activation_poll_seconds=0.001,
            registry_poll_seconds=0.001,
        )

    def follower(self, settings: Settings | None = None) -> Follower:
        """What follows the alias on a server."""
        chosen = settings or self.settings
        return Follower(chosen, self.log, Store(chosen), self.asked, self.observer)

    def move(self, version: str, alias: str = CHAMPION) -> None:
        """Have the champion be another, in the registry."""
        self.asked.move(toys.NAME, alias, self.asked.find(toys.NAME, version).number)

    def look(self, follower: Follower | None = None, alias: str = CHAMPION) -> Outcome:
        """What comes of one look at an alias."""
        (follower or self.follower()).look()
        return self.observer.of(alias)[-1]

    def active(self, settings: Settings | None = None) -> ActivePackage:
        """The active package as a server starts with it."""
        chosen = settings or self.settings
        store = Store(chosen)

        def fetch(version: str) -> None:
            registry.fetch_version(self.asked, store, chosen, version)

        return ActivePackage(chosen, self.log, store, self.observer, toys.unasked, fetch)

    def decides(self) -> str:
        """The version that decides, as the records have it."""
        return wanted_version(self.settings, self.log, self.store)

    def last(self) -> dict[str, Any]:
        """What the last activation says."""
        record = self.log.latest(toys.NAME, "activation")
        assert record is not None
        return record.body


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Everything; no alias is set and nothing activated."""
    made = Place(tmp_path)
    yield made
    made.log.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Following


def test_an_alias_that_moved_is_followed(place: Place) -> None:
    """The package is fetched and activated; the record says that the registry said so."""
    place.move(place.b)

    assert place.look() == "followed"

    said = place.last()
    assert said["registry"] == {"name": toys.NAME, "version": "2", "alias": "champion"}
    assert (said["action"], said["from"], said["to"]) == ("follow", place.a, place.b)
    assert place.active().current.version == place.b


def test_an_alias_that_stays_changes_nothing(place: Place) -> None:
    """Nor does one that nobody has set."""
    follower = place.follower()
    assert place.look(follower) == "unmoved"
    place.move(place.b)
    follower.look()

    assert [place.look(follower), place.look(follower)] == ["unmoved", "unmoved"]

    assert place.log.count(kind="activation") == 1
    assert place.observer.of(CHAMPION) == ["unmoved", "followed", "unmoved", "unmoved"]


def test_what_was_activated_here_later_holds(place: Place) -> None:
    """Until the alias moves again: what was said last, whoever said it."""
    follower = place.follower()
    place.move(place.b)
    follower.look()
    registry.fetch_version(place.asked, place.store, place.settings, place.c)
    activate(place.settings, place.log, place.store, place.c)

    assert place.look(follower) == "unmoved"
    assert place.decides() == place.c

    place.move(place.a)
    assert place.look(follower) == "followed"
    assert place.decides() == place.a


def test_a_rollback_made_while_the_registry_was_away_is_not_undone(place: Place) -> None:
    """Not by a follower that remembers nothing either, such as one of a server that started."""
    place.move(place.b)
    place.follower().look()
    place.mlflow.fault = registries.away
    rollback(place.settings, place.log, place.store)
    place.mlflow.fault = None

    assert place.look() == "unmoved"
    assert place.decides() == place.a


def test_an_alias_moved_after_the_activation_is_noted_and_no_step_to_go_back(place: Place) -> None:
    """A promotion activates, then moves the alias; a rollback later is not undone for it."""
    follower = place.follower()
    place.move(place.a)
    follower.look()
    registry.fetch_version(place.asked, place.store, place.settings, place.b)
    activate(place.settings, place.log, place.store, place.b)
    place.move(place.b)

    assert place.look(follower) == "followed"
    assert (place.last()["from"], place.last()["to"]) == (place.b, place.b)

    rollback(place.settings, place.log, place.store)
    assert place.decides() == place.a
    assert place.look(follower) == "unmoved"


def test_of_two_servers_that_see_it_one_records_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other finds it done, and fetches the package when it is to decide with it."""
    first, second = place.settings, place.node("elsewhere")
    place.move(place.b)
    fetch = registry.fetch

    def meanwhile(*given: Any) -> None:  # noqa: ANN401 - as `fetch` has them
        """The first is done before the second has fetched."""
        monkeypatch.setattr(registry, "fetch", fetch)
        assert place.look(place.follower(first)) == "followed"
        fetch(*given)

    monkeypatch.setattr(registry, "fetch", meanwhile)

    assert place.look(place.follower(second)) == "unmoved"
    assert place.log.count(kind="activation") == 1
    assert place.active(second).current.version == place.b


# The challenger


def test_a_challenger_of_the_registry_is_asked_beside_who_decides(place: Place) -> None:
    """It decides about nobody; the record says where it came from."""
    place.move(place.b, CHALLENGER)

    assert place.look(alias=CHALLENGER) == "followed"

    challenge = challenges.in_force(place.log, toys.NAME)
    assert challenge is not None
    assert (challenge.version, challenge.share) == (place.b, 0.0)
    (record,) = place.log.find(kind="challenge")
    assert record.body["registry"] == {"name": toys.NAME, "version": "2", "alias": "challenger"}
    assert place.look(alias=CHALLENGER) == "unmoved"
    assert place.decides() == place.a


def test_a_share_that_somebody_gave_the_challenger_stays(place: Place) -> None:
    """The alias says who challenges, and not about how many it decides."""
    registry.fetch_version(place.asked, place.store, place.settings, place.b)
    challenging.challenge(place.settings, place.log, place.store, place.b, share=0.25)
    place.move(place.b, CHALLENGER)

    assert place.look(alias=CHALLENGER) == "followed"

    challenge = challenges.in_force(place.log, toys.NAME)
    assert challenge is not None
    assert challenge.share == 0.25


def test_a_challenger_that_decides_meanwhile_is_none(place: Place) -> None:
    """As after its promotion, when the alias still names it."""
    follower = place.follower()
    place.move(place.a, CHALLENGER)

    assert place.look(follower, CHALLENGER) == "unmoved"
    assert place.log.count(kind="challenge") == 0


def test_a_challenger_of_another_server_is_fetched(place: Place) -> None:
    """So that it can be asked, or decide about its share, on whatever server."""
    place.move(place.b, CHALLENGER)
    place.follower().look()
    new = place.node("new")
    assert place.b not in Store(new).folders(toys.NAME)

    assert place.look(place.follower(new), CHALLENGER) == "unmoved"

    assert place.b in Store(new).folders(toys.NAME)


# What stands in the way


@pytest.mark.parametrize("fault", [registries.away, registries.failing])
def test_a_registry_that_is_away_is_told_once(
    place: Place,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[httpx.Request], httpx.Response],
) -> None:
    """And that it is back; who decides goes on."""
    caplog.set_level(logging.INFO, "credit_risk.registry")
    follower = place.follower()
    place.mlflow.fault = fault

    assert [place.look(follower), place.look(follower)] == ["unavailable", "unavailable"]
    place.mlflow.fault = None
    follower.look()

    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == [
        "alias champion is not followed, until further notice",
        "alias challenger is not followed, until further notice",
        "alias champion is followed again",
        "alias challenger is followed again",
    ]
    assert place.decides() == place.a


def test_a_package_that_is_refused_is_not_fetched_again_and_again(place: Place) -> None:
    """Only once the alias moves, or the version is tagged otherwise."""
    follower = place.follower()
    place.move(place.b)
    damaged = next(name for name in place.mlflow.files if name.endswith("trees.npz"))
    place.mlflow.files[damaged] += b" "

    assert place.look(follower) == "refused"
    place.mlflow.asked.clear()
    assert place.look(follower) == "refused"
    assert len(place.mlflow.asked) == len(ALIASES)
    assert place.decides() == place.a

    place.mlflow.files[damaged] = place.mlflow.files[damaged][:-1]
    place.asked.tag(place.asked.find(toys.NAME, place.b), "mended", "yes")
    assert place.look(follower) == "followed"
    assert place.decides() == place.b


def test_a_package_that_was_refused_is_tried_again_when_the_alias_comes_back_to_it(
    place: Place,
) -> None:
    """As whoever mended it in the registry would have it."""
    follower = place.follower()
    place.move(place.a)
    assert place.look(follower) == "followed"
    place.move(place.b)
    damaged = next(name for name in place.mlflow.files if name.endswith("trees.npz"))
    whole = place.mlflow.files[damaged]
    place.mlflow.files[damaged] += b" "
    assert place.look(follower) == "refused"

    place.mlflow.files[damaged] = whole
    place.move(place.a)
    assert place.look(follower) == "unmoved"
    place.move(place.b)

    assert place.look(follower) == "followed"
    assert place.decides() == place.b


def test_a_package_that_too_few_signed_decides_once_enough_have(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fetched once; whether it is signed is asked at each look."""
    signed: list[str] = []

    def check(*_: object) -> tuple[str, ...]:
        """As a server that requires signatures has it."""
        if not signed:
            raise PackageInvalid("signed by 0 approvers")
        return tuple(signed)

    monkeypatch.setattr(activation, "check_signed", check)
    follower = place.follower()
    place.move(place.b)
    assert [place.look(follower), place.look(follower)] == ["refused", "refused"]
    assert place.decides() == place.a

    signed.append("ada")
    assert place.look(follower) == "followed"
    assert place.decides() == place.b


def test_what_cannot_be_recorded_is_tried_again(place: Place) -> None:
    """Without its record there is no activation."""
    place.move(place.b)
    full = Full(place.settings.audit_url, SEALING)
    follower = Follower(place.settings, full, place.store, place.asked, place.observer)

    assert place.look(follower) == "unrecorded"
    assert place.decides() == place.a
    full.close()
    assert place.look() == "followed"


# Which process looks, and when


def test_one_process_of_a_server_looks_and_another_takes_over(place: Place) -> None:
    """When the first is gone, without anybody telling it."""
    leading, waiting = place.follower(), place.follower()
    place.move(place.b)
    leading.start()
    until(lambda: "followed" in place.observer.of(CHAMPION))
    waiting.start()
    leading.close()
    looks = len(place.observer.outcomes)

    until(lambda: len(place.observer.outcomes) > looks)

    waiting.close()
    assert "registry" not in [thread.name for thread in threading.enumerate()]


def test_whatever_happens_it_goes_on_looking(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that nobody foresaw is logged."""
    follower = place.follower()
    real = place.asked.aliased
    faults = iter([ZeroDivisionError("never seen")])

    def once(name: str, alias: str) -> Any:  # noqa: ANN401 - as the registry has it
        for fault in faults:
            raise fault
        return real(name, alias)

    monkeypatch.setattr(place.asked, "aliased", once)
    place.move(place.b)
    follower.start()
    until(lambda: "followed" in place.observer.of(CHAMPION))
    follower.close()

    assert "the registry could not be followed" in caplog.text


# What a server starts with


def test_a_server_starts_with_the_registrys_champion(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is followed before it is asked what decides; a pinned version is only fetched."""
    monkeypatch.setattr(registry, "connect", lambda _: place.mlflow.client())
    place.move(place.b)

    assert package_to_serve(place.settings, place.log, place.store).version == place.b
    assert place.last()["registry"]["version"] == "2"

    pinned = place.node("pinned").model_copy(update={"model_version": place.c})
    assert package_to_serve(pinned, place.log, Store(pinned)).version == place.c
    assert place.log.count(kind="activation") == 1


def test_a_server_starts_without_the_registry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is on record and its copy; before that, with the shipped default."""
    monkeypatch.setattr(registry, "connect", lambda _: place.mlflow.client())
    place.move(place.b)
    place.mlflow.fault = registries.failing
    assert package_to_serve(place.settings, place.log, place.store).version == place.a
    place.mlflow.fault = None
    place.follower().look()

    place.mlflow.fault = registries.failing
    assert package_to_serve(place.settings, place.log, place.store).version == place.b
    fresh = place.node("fresh")
    with pytest.raises(RegistryUnavailable, match=f"package {place.b} is not installed here, and"):
        package_to_serve(fresh, place.log, Store(fresh))


# What a server does that lacks a package


def test_a_new_server_fetches_what_was_activated_elsewhere(place: Place) -> None:
    """At its start; and what is activated later, while it runs."""
    place.move(place.b)
    place.follower().look()
    new = place.node("new")

    active = place.active(new)

    assert active.current.version == place.b
    place.move(place.c)
    place.follower().look()
    active.refresh()
    assert (active.current.version, active.fault) == (place.c, None)


def test_a_new_server_without_copy_and_registry_does_not_start(place: Place) -> None:
    """It decides by no other package; the error says what is missing."""
    place.move(place.b)
    place.follower().look()
    place.mlflow.fault = registries.away
    with pytest.raises(RegistryUnavailable, match=f"package {place.b} is not installed here, and"):
        place.active(place.node("new"))

    assert place.active().current.version == place.b

    place.mlflow.fault = None
    place.mlflow.models.clear()
    with pytest.raises(PackageNotFound, match=f"no package {place.b} of portfolio"):
        place.active(place.node("newer"))


def test_a_running_server_tries_again_once_the_registry_is_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anybody activating the version again, but not at every look."""
    clock = [0.0]
    monkeypatch.setattr("credit_risk.serving.activation.time.monotonic", lambda: clock[0])
    new = place.node("new").model_copy(update={"registry_poll_seconds": 30.0})
    active = place.active(new)
    place.move(place.b)
    place.follower().look()
    place.mlflow.fault = registries.away
    active.refresh()
    assert active.current.version == place.a
    assert str(active.fault).startswith(f"version {place.b} was activated but cannot be loaded")

    place.mlflow.fault = None
    active.refresh()
    assert active.current.version == place.a

    clock[0] = 31.0
    active.refresh()
    assert (active.current.version, active.fault) == (place.b, None)
