"""`credit-risk models`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.serving.store import DEFAULT
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_models_are_listed_and_the_active_one_is_marked(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Whether they are in the store or only shipped so far."""
    shipped = run("models", "list", "--json").json()
    assert [row["installed"] for row in shipped] == [None, None]
    run("models", "activate", place.trees)
    rows = run("models", "list", "--json").json()

    assert {row["version"]: row["active"] for row in rows} == {
        place.trees: True,
        place.linear: False,
    }
    for row in rows:
        known = {"version", "active", "estimator", "installed", "signers", "path", "broken"}
        assert set(row) == known
        assert (row["estimator"], row["signers"], row["broken"]) == ("written by hand", [], None)
        assert datetime.fromisoformat(row["installed"]).tzinfo
        assert (Path(row["path"]) / "manifest.json").is_file()
    table = run("models", "list").out.splitlines()
    assert table[0].split() == ["version", "active", "estimator", "installed", "signers"]
    marked = [line.split()[0] for line in table if "*" in line]
    assert (len(table), marked) == (3, [place.trees])


def test_without_a_default_no_model_is_marked(run: Callable[..., Outcome], place: Place) -> None:
    """Listing is still possible: somebody has to choose."""
    (place.folder / "shipped" / toys.NAME / DEFAULT).unlink()

    rows = run("models", "list", "--json").json()

    assert [row["active"] for row in rows] == [False, False]


def test_a_broken_package_is_listed_as_one_and_stops_no_other(
    run: Callable[..., Outcome], place: Place
) -> None:
    """In the store or shipped; the place is named, and another version can be activated."""
    run("models", "activate", place.trees)
    half = place.store().path(toys.NAME, place.linear).parent
    (half / "model.yaml").unlink()
    shipped = place.folder / "shipped" / toys.NAME / "0123456789ab"
    shipped.mkdir()

    rows = {row["version"]: row for row in run("models", "list", "--json").json()}
    assert rows[place.trees]["broken"] is None
    assert str(half / "model.yaml") in rows[place.linear]["broken"]
    assert f"{shipped}: manifest.json" in rows["0123456789ab"]["broken"]

    listed = run("models", "list")
    assert listed.code == 0
    states = {line.split()[0]: line for line in listed.out.splitlines()[1:]}
    assert [version for version, line in states.items() if "broken" in line] == [
        place.linear,
        "0123456789ab",
    ]
    assert str(half / "model.yaml") in listed.err
    assert str(shipped) in listed.err
    refused(run("models", "activate", place.linear), 1, str(half / "model.yaml"))
    assert run("models", "activate", place.trees).code == 0


def test_a_version_is_activated_and_rolled_back(run: Callable[..., Outcome], place: Place) -> None:
    """Both say what happened and name the record of it."""
    record = run("models", "activate", place.linear, "--json").json()
    assert record["kind"] == "activation"
    assert record["model_version"] == place.linear
    assert (record["body"]["from"], record["body"]["to"]) == (place.trees, place.linear)
    assert active(run) == place.linear

    said = run("models", "rollback").out
    assert said.startswith(f"{toys.NAME}: {place.trees} decides from now on")
    assert f"(before: {place.linear})" in said
    assert active(run) == place.trees

    said = run("models", "activate", place.linear).out
    record_id = said.split("record ")[1].strip()
    shown = run("decisions", "show", record_id, "--json").json()
    assert shown["body"]["action"] == "activate"
    assert run("rollback", "--json").json()["body"]["action"] == "rollback"
    refused(run("rollback"), 3, "there is no version to go back to")
    refused(run("rollback", "--portfolio", "bicycles"), 3, "no portfolio 'bicycles'")


def active(run: Callable[..., Outcome]) -> str:
    """The version that the list marks."""
    (version,) = [r["version"] for r in run("models", "list", "--json").json() if r["active"]]
    assert isinstance(version, str)
    return version


def test_an_altered_package_is_refused_by_the_name_of_the_file(
    run: Callable[..., Outcome], place: Place
) -> None:
    """With 1, and nothing is activated."""
    run("models", "activate", place.trees)
    place.alter(place.linear, "policy.yaml")

    refused(run("models", "activate", place.linear), 1, place.linear, "policy.yaml was altered")
    assert active(run) == place.trees


def test_an_altered_shipped_package_is_refused_by_the_name_of_the_file(
    run: Callable[..., Outcome], place: Place
) -> None:
    """It does not get into the store; the others do."""
    shipped = place.folder / "shipped" / toys.NAME / place.linear
    (shipped / "reasons.yaml").write_text("none", encoding="utf-8")

    outcome = run("models", "activate", place.linear)
    assert outcome.code == 1
    *_, line = outcome.err.splitlines()
    assert line.startswith(f"error: {shipped}: package {place.linear}: reasons.yaml was altered")
    assert run("models", "activate", place.trees).code == 0


def test_a_pinned_version_is_not_switched(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would change nothing about this server."""
    monkeypatch.setenv("MODEL_VERSION", place.trees)

    refused(run("models", "activate", place.linear), 1, f"MODEL_VERSION pins {place.trees}")
    assert active(run) == place.trees
