"""The follower: asks about each decision once, and goes past what ended it."""

from __future__ import annotations

import logging
import resource
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk import scoring, shadowing
from credit_risk.audit.beside import Beside
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import SHADOW
from credit_risk.challenges import challenge_record, in_force
from credit_risk.errors import Conflict, PackageInvalid, RecordingFailed
from credit_risk.schema import Schema
from credit_risk.shadowing import End
from monitoring import follower
from monitoring.follower import Asked, At, Follower, Idle, Kept, Packages, Task
from tests import served, toys
from tests.recorded import decided
from tests.sealing import SEALING
from tests.served import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from credit_risk.package import ModelPackage

ROWS = 40


class Place:
    """A log with decisions of the toy trees, which the linear toy challenges."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self.settings = served.settings(folder)
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)
        self.beside = Beside(self.settings.audit_url)
        self.told: list[At | Asked | Kept | Idle] = []
        self.folders = {path.name: str(path) for path in (packages / toys.NAME).iterdir()}
        self.trees = toys.load_package("trees")
        self.linear = toys.load_package("linear")
        self.log.append([challenge_record(toys.NAME, self.linear, None, 0.0)]).result()
        challenge = in_force(self.log, toys.NAME)
        assert challenge is not None
        self.task = Task(self.settings, challenge, self.trees.version, self.folders, "one")
        self.applications = toys.applications(ROWS)

    def decide(self, package: ModelPackage, rows: int = ROWS) -> list[str]:
        """Decide about applications; returns the ids of the decisions."""
        records = decided(package, self.applications[:rows])
        self.log.append(records).result()
        return [record.id for record in records]

    def follower(self, task: Task | None = None, **altered: Any) -> Follower:  # noqa: ANN401 - parts
        """What follows the log; parts of the challenger may be replaced."""
        task = task or self.task
        packages = Packages(task)
        packages.challenger = replace(packages.challenger, **altered)
        packages._loaded[task.challenge.version] = packages.challenger  # noqa: SLF001 - in its place
        return Follower(
            task, packages, self.log, self.beside, lambda work: work(), self.told.append
        )

    def shadow(self) -> list[Any]:
        """What is in the table, in the order of the decisions."""
        with self.log.reading() as connection:
            return [*connection.execute(sa.select(SHADOW).order_by(SHADOW.c.decided))]

    def kept(self) -> dict[str, int]:
        """All that was told to be kept."""
        numbers: dict[str, int] = {}
        for told in self.told:
            if isinstance(told, Kept):
                for name, number in told.numbers.items():
                    numbers[name] = numbers.get(name, 0) + number
        return numbers


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy packages, installed."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in toys.KINDS:
        toys.write_package(folder, kind)
    return folder


@pytest.fixture
def place(tmp_path: Path, packages: Path) -> Iterator[Place]:
    """Where a challenger is asked."""
    made = Place(tmp_path, packages)
    yield made
    made.beside.close()
    made.log.close()


def test_the_challenger_is_asked_about_each_decision_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says is what it would have decided; then there is nothing to do."""
    caplog.set_level(logging.INFO)
    ids = place.decide(place.trees)
    following = place.follower()

    assert following.step() is False
    rows = place.shadow()
    assert [row.decision_id for row in rows] == ids
    answers = scoring.decide(place.linear, place.applications)
    for row, answer in zip(rows, answers, strict=True):
        assert row.pd == answer.probability_of_default
        assert (row.decision, row.band) == (answer.outcome.decision, answer.outcome.band)
        assert row.reason == (answer.reasons[0].code if answer.reasons else None)
        assert row.seconds > 0
    assert any(row.made_seconds is not None for row in rows)
    same = sum(row.decision == row.made_decision for row in rows)
    assert place.kept()["same"] == same
    assert sum(place.kept().values()) == ROWS

    assert caplog.text.count("is asked from now on") == 1

    place.told.clear()
    assert following.step() is False
    assert place.told == [Idle()]
    place.decide(place.trees, 3)
    following.step()
    assert len(place.shadow()) == ROWS + 3


def test_what_the_challenger_decided_the_champion_is_asked_about(place: Place) -> None:
    """So that in a canary there are pairs as well; milder and stricter are the challenger's."""
    place.decide(place.linear)

    place.follower().step()

    rows = place.shadow()
    assert {(row.model_version, row.decided_by) for row in rows} == {
        (place.trees.version, place.linear.version)
    }
    champion = scoring.decide(place.trees, place.applications)
    assert [row.pd for row in rows] == [one.probability_of_default for one in champion]
    order = {"APPROVE": 0, "REVIEW": 1, "DECLINE": 2}
    milder = sum(order[row.made_decision] < order[row.decision] for row in rows)
    assert place.kept()["milder"] == milder


def test_it_goes_piece_by_piece_and_tells_where_it_is(place: Place) -> None:
    """Before each of them, so that who hears nothing more knows where it stopped."""
    place.decide(place.trees)

    place.follower().step()

    at = [told for told in place.told if isinstance(told, At)]
    assert at[0].last - at[0].first + 1 == follower.FIRST_ROWS
    assert [one.first for one in at[1:]] == [one.last + 1 for one in at[:-1]]


def test_an_application_that_the_challenger_cannot_answer_spoils_no_other(place: Place) -> None:
    """Its kind of error is kept, and never its text."""
    place.decide(place.trees, 5)

    class Picky(Broken):
        """Fails at the third application."""

        def log_odds(self, rows: Any) -> Any:  # noqa: ANN401 - numbers
            """A score, unless the third is among them."""
            third = place.trees.schema.matrix(place.applications[2:3])
            if any((row == third[0]).all() for row in rows):
                raise ZeroDivisionError(served.MODEL_SAYS)
            return super().log_odds(rows)

    place.follower(model=Picky(score=-5.0)).step()

    assert [row.error for row in place.shadow()] == [None, None, "ZeroDivisionError", None, None]
    assert place.kept()["failed"] == 1
    assert served.MODEL_SAYS not in str(place.shadow())


def test_a_challenger_of_another_schema_is_asked_what_it_can_take(place: Place) -> None:
    """Of the others it is said that it cannot."""
    place.decide(place.trees, 12)
    # Parsed anew: a copy would keep what the toys' schema has made of itself.
    document = toys.schema().model_dump()
    for spec in document["fields"]:
        if spec["name"] == "age":
            spec["maximum"] = 60
    narrow = Schema.model_validate(document)

    place.follower(schema=narrow).step()

    expected = ["ApplicationInvalid" if a["age"] > 60 else None for a in place.applications[:12]]
    assert [row.error for row in place.shadow()] == expected
    assert set(expected) == {None, "ApplicationInvalid"}


def test_after_an_end_it_goes_one_by_one_and_past_what_ended_it(place: Place) -> None:
    """First it is found which decision it was, then that one is said to have failed."""
    ids = place.decide(place.trees, 6)
    first = place.follower()
    first.step()
    end = place.decide(place.trees, 6)
    state = shadowing.state(place.log, toys.NAME)
    assert state is not None
    places = (state.sequence + 1, state.sequence + 6)
    note(place, End("crashed", places))
    place.told.clear()

    class Poisoned(Broken):
        """Ends the process, as it were, at the third application."""

        def log_odds(self, rows: Any) -> Any:  # noqa: ANN401 - numbers
            """A score, unless the third is among them."""
            third = place.trees.schema.matrix(place.applications[2:3])
            if any((row == third[0]).all() for row in rows):
                raise MemoryError
            return super().log_odds(rows)

    with pytest.raises(MemoryError):
        place.follower(model=Poisoned(score=-5.0)).step()
    poison = places[0] + 2
    assert place.told[-1] == At(poison, poison)
    note(place, End("memory", (poison, poison)))
    place.follower(model=Poisoned(score=-5.0)).step()

    rows = {row.decision_id: row.error for row in place.shadow()}
    assert rows == dict.fromkeys([*ids, *end]) | {end[2]: "memory"}


def note(place: Place, end: End) -> None:
    """Have an end on record."""
    with place.beside.writing() as connection:
        assert shadowing.failed(connection, place.task.challenge, "one", end, 0) is not None


def test_who_is_too_far_behind_skips_to_the_newest(place: Place) -> None:
    """And says how many records it left out."""
    place.decide(place.trees)
    few = place.settings.model_copy(update={"shadow_behind_max": ROWS - 1})

    assert place.follower(place.task._replace(settings=few)).step() is True

    assert place.told == [Kept({"same": 0, "milder": 0, "stricter": 0, "failed": 0}, ROWS)]
    assert place.shadow() == []
    state = shadowing.state(place.log, toys.NAME)
    assert state is not None
    assert state.skipped == ROWS


def test_who_finds_somebody_else_at_it_leaves(place: Place) -> None:
    """At once, or when it comes to write."""
    first = place.follower()
    first.step()
    second = place.follower(place.task._replace(holder="two"))
    assert second.step() is False
    assert second.left

    place.decide(place.trees, 2)
    with place.beside.writing() as connection:
        shadowing.take(connection, place.task.challenge, "two", 2**62)
    with pytest.raises(Conflict):
        first.step()


def test_a_challenger_that_does_not_hold_is_not_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose golden answers differ here, as on the way to deciding."""

    def differs(package: ModelPackage) -> None:
        raise PackageInvalid(package.version)

    monkeypatch.setattr(scoring, "check_golden", differs)

    with pytest.raises(SystemExit) as caught:
        follower.follow(place.task, Line(), lambda work: work())  # type: ignore[arg-type]
    assert caught.value.code == follower.EXITS["package"]


class Line:
    """To who started the process, who closes it after so many looks."""

    def __init__(self, looks: int = 0) -> None:
        self.sent: list[Any] = []
        self.rests: list[float] = []
        self._looks = looks

    def send(self, told: object) -> None:
        """Keep it."""
        self.sent.append(told)

    def poll(self, seconds: float) -> bool:
        """Whether it was closed."""
        self.rests.append(seconds)
        self._looks -= 1
        return self._looks < 0


def test_it_follows_until_the_line_is_closed_whatever_the_database_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer is no fault of the challenger's."""
    place.decide(place.trees, 4)
    line = Line(2)
    steps: list[Callable[[Follower], bool]] = [fails, Follower.step, fails]

    def step(following: Follower) -> bool:
        """The next of them."""
        return steps.pop(0)(following)

    monkeypatch.setattr(Follower, "step", step)

    follower.follow(place.task, line, lambda work: work())  # type: ignore[arg-type]

    assert [type(told) for told in line.sent] == [Idle, At, Asked, Kept, Idle]
    assert len(place.shadow()) == 4


def fails(_: Follower) -> bool:
    """A step while the database is away."""
    raise RecordingFailed("away")


def test_while_many_come_it_uses_a_part_of_a_core(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it used is a twentieth of the time until it goes on; else it looks a little later."""
    clock = iter([10.0, 10.5, 20.0, 20.5])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    steps = [True, False]
    monkeypatch.setattr(Follower, "step", lambda _: steps.pop(0))
    line = Line(1)

    follower.follow(place.task, line, lambda work: work())  # type: ignore[arg-type]

    assert line.rests == [pytest.approx(9.5), follower.PAUSE_SECONDS]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is set, and never above what the process may have anyway."""
    set_: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: set_.append(limits))
    for hard in (resource.RLIM_INFINITY, 1_000):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, hard=hard: (-1, hard))
        monkeypatch.setattr(follower, "OOM_SCORE", "/nowhere/oom_score_adj")
        follower.expendable(5_000)

    assert set_ == [(0, 0), (5_000, resource.RLIM_INFINITY), (0, 0), (1_000, 1_000)]


def test_a_package_that_is_not_here_is_asked_nothing(place: Place) -> None:
    """As a champion that was deleted: that is what is said of the canary's decisions."""
    place.decide(place.linear, 2)
    folders = {place.linear.version: place.folders[place.linear.version]}

    place.follower(place.task._replace(folders=folders)).step()
    assert [row.error for row in place.shadow()] == ["PackageNotFound"] * 2
