"""`credit-risk registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from credit_risk.serving import registry
from tests import registries, toys
from tests.commands import Outcome, Place, refused
from tests.registries import Mlflow

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def mlflow(place: Place, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    """The registry that commands find, with the two packages that are shipped."""
    server = Mlflow()
    monkeypatch.setattr(registry, "connect", lambda _: server.client())
    for version in (place.linear, place.trees):
        server.add(place.folder / "shipped" / toys.NAME / version, validation_status="approved")
    return server


def test_an_alias_is_moved_and_what_it_stands_for_is_shown(
    run: Callable[..., Outcome], place: Place, mlflow: Mlflow
) -> None:
    """The newest first, and which of them decides on this server."""
    said = run("registry", "move", place.linear).out
    assert said == f"{toys.NAME}: champion is {place.linear} now, version 1 there\n"
    moved = run("registry", "move", place.trees, "--alias", "challenger", "--json").json()
    assert moved == {"portfolio": toys.NAME, "alias": "challenger", "number": "2"}
    mlflow.models[toys.NAME][0].tags.pop("validation_status")

    shown = run("registry", "status", "--json").json()

    assert (shown["portfolio"], shown["decides"]) == (toys.NAME, place.trees)
    about = [list(row.values()) for row in shown["versions"]]
    assert about == [
        ["2", place.trees, ["challenger"], "approved", True],
        ["1", place.linear, ["champion"], None, False],
    ]
    lines = run("registry", "status").out.splitlines()
    assert lines[1].split() == ["2", place.trees, "challenger", "approved", "*"]
    assert lines[2].split() == ["1", place.linear, "champion"]


def test_what_the_registry_does_not_have_is_not_found(
    run: Callable[..., Outcome], place: Place, mlflow: Mlflow
) -> None:
    """With 3; one that does not answer is a failure."""
    refused(run("registry", "move", "0" * 12), 3, "no package 000000000000")
    mlflow.fault = registries.away
    refused(run("registry", "status"), 1, "the registry at http://mlflow.test does not answer")
    refused(run("registry", "move", place.linear), 1, "does not answer")


@pytest.mark.usefixtures("place")
def test_without_a_registry_there_is_none_to_ask(run: Callable[..., Outcome]) -> None:
    """It is said which setting names one."""
    for command in (("status",), ("move", "0" * 12)):
        refused(run("registry", *command), 1, "CREDIT_RISK_REGISTRY_URI is not set")


def test_what_is_activated_or_rolled_back_here_is_champion_there(
    run: Callable[..., Outcome], place: Place, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the registry cannot be told, that is a warning: who decides does not depend on it."""
    monkeypatch.setenv("CREDIT_RISK_REGISTRY_URI", registries.URL)
    champion = toys.NAME, registry.CHAMPION

    said = run("models", "activate", place.linear)
    assert f"{place.linear} decides from now on" in said.out
    assert said.err == "alias champion of the registry is version 1 now\n"
    assert mlflow.aliases[champion] == "1"

    mlflow.fault = registries.away
    said = run("models", "rollback", "--json")
    assert (said.code, said.json()["body"]["to"]) == (0, place.trees)
    assert said.err.startswith("warning: alias champion of the registry was not moved: the reg")
    assert mlflow.aliases[champion] == "1"
