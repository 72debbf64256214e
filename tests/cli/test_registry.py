"""`credit-risk registry`."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from credit_risk.audit.keys import key_id
from credit_risk.cli import models
from credit_risk.manifest import STATUS_TAG
from credit_risk.serving import registry
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from tests import registries, toys
from tests.commands import Outcome, Place, refused
from tests.registries import Mlflow
from tests.signing import ADA, EVE, approval, write_approvers, write_key

if TYPE_CHECKING:
    from collections.abc import Callable


POLICY = "portfolio: bicycle-leases\nversion: 1.0.0\napprovals: 1\ncriteria: {}\n"


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

    # That the alias was moved is on record, so that no server follows it once more.
    actions = [r["body"]["action"] for r in activations(run)]
    assert actions == ["rollback", "follow", "activate"]
    assert activations(run)[1]["body"]["registry"] == {
        "name": toys.NAME,
        "version": "1",
        "alias": registry.CHAMPION,
    }
    refused(run("rollback"), 3, "there is no version to go back to")


def activations(run: Callable[..., Outcome]) -> list[Any]:
    """Those on record, the newest first."""
    rows = run("decisions", "list", "--kind", "activation", "--json").json()
    return [run("decisions", "show", row["id"], "--json").json() for row in rows]


def test_signatures_go_to_the_registry_with_what_is_promoted(
    run: Callable[..., Outcome], place: Place, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from there to a server that follows it and asks for them."""
    monkeypatch.setenv("CREDIT_RISK_REGISTRY_URI", registries.URL)
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", str(write_approvers(place.folder)))
    policy = place.folder / "portfolios" / toys.NAME / "promotion.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    run("approve", place.linear, "--key", str(write_key(place.folder, ADA)))
    sha256 = place.store().load(toys.NAME, place.linear).digest
    forged = approval(EVE, "ada", sha256)  # a stranger's, and the same under her key's id
    hers = forged.model_copy(update={"key_id": key_id(ADA.public_key())})
    for one in (forged, hers):
        place.store().sign(toys.NAME, place.linear, one)

    assert run("promote", place.linear).code == 0

    (version,) = [v for v in mlflow.models[toys.NAME] if v.number == "1"]
    assert version.tags[STATUS_TAG] == "passed"
    (key,) = [key for key in version.tags if key.startswith(registry.SIGNATURE_TAG)]
    assert key == f"{registry.SIGNATURE_TAG}{key_id(ADA.public_key())}"
    version.tags[f"{registry.SIGNATURE_TAG}x"] = "somebody else's"
    settings = Settings(state_dir=place.folder / "elsewhere", packages_dir=place.folder / "none")
    store = Store(settings)
    with contextlib.closing(mlflow.client()) as asked:
        found = asked.find(toys.NAME, place.linear)
        registry.fetch(asked, found, store, settings.state_dir)
    (signature,) = store.signatures(toys.NAME, place.linear).found
    assert signature.key_id == key_id(ADA.public_key())
    assert signature != hers


def test_a_registry_that_hangs_keeps_nobody_waiting_who_rolls_back(
    run: Callable[..., Outcome], place: Place, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package decides, the alias stays, and the command says how to move it."""
    monkeypatch.setenv("CREDIT_RISK_REGISTRY_URI", registries.URL)
    run("models", "activate", place.linear)
    monkeypatch.setattr(models, "HURRIED_SECONDS", 0.01)
    released = threading.Event()

    def hang(_: httpx.Request) -> httpx.Response:
        released.wait(600)
        return httpx.Response(503)

    mlflow.fault = hang
    try:
        outcome = run("rollback")
    finally:
        released.set()

    assert outcome.code == 0
    assert f"{place.trees} decides from now on" in outcome.out
    assert "was not moved: it took longer than 0.01 s" in outcome.err
    assert f"credit-risk registry move {place.trees}" in outcome.err
    assert mlflow.aliases[toys.NAME, "champion"] == "1"
