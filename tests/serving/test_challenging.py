"""Making a challenge: checked as an activation is, and refused where it could not be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from credit_risk import challenges
from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import PackageInvalid, PackageNotFound
from credit_risk.serving.challenging import challenge, end
from credit_risk.serving.store import DEFAULT, Store
from credit_risk.settings import Settings
from tests import toys
from tests.sealing import SEALING
from tests.signing import ADA, approval, write_approvers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Place:
    """A state directory with the toy packages; the trees decide, ``other`` has another schema."""

    def __init__(self, folder: Path) -> None:
        shipped = folder / "shipped"
        self.trees = toys.write_package(shipped, "trees").name
        self.linear = toys.write_package(shipped, "linear").name
        schema = toys.SCHEMA.replace("example: 34", "example: 35")
        self.other = toys.write_package(shipped, "linear", schema_yaml=schema.encode()).name
        (shipped / toys.NAME / DEFAULT).write_text(f"{self.trees}\n", encoding="utf-8")
        self.settings = Settings(
            portfolio=toys.NAME, state_dir=folder / "state", packages_dir=shipped
        )
        self.store = Store(self.settings)
        self.store.add_shipped(toys.NAME)
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where challenges are made."""
    made = Place(tmp_path)
    yield made
    made.log.close()


def test_a_challenge_is_on_record_and_in_force_until_its_end(place: Place) -> None:
    """Shadow first, then for a share, then none."""
    first = challenge(place.settings, place.log, place.store, place.linear)
    second = challenge(place.settings, place.log, place.store, place.linear, share=0.05)

    assert (first.kind, first.body["from"], first.body["share"]) == ("challenge", None, 0.0)
    assert (second.body["from"], second.body["share"]) == (place.linear, 0.05)
    found = challenges.in_force(place.log, toys.NAME)
    assert found is not None
    assert (found.id, found.draw) == (second.id, first.id)
    package = place.store.load(toys.NAME, place.linear)
    assert place.log.get(second.id).body["package_sha256"] == package.digest

    ended = end(place.settings, place.log)
    assert (ended.body["to"], ended.body["from"]) == (None, place.linear)
    assert challenges.in_force(place.log, toys.NAME) is None
    with pytest.raises(PackageNotFound, match=f"{toys.NAME}: there is no challenger"):
        end(place.settings, place.log)


def test_who_decides_cannot_challenge_itself(place: Place) -> None:
    """Nothing would be compared."""
    with pytest.raises(PackageInvalid, match=f"{place.trees} decides already"):
        challenge(place.settings, place.log, place.store, place.trees)


def test_a_package_that_does_not_hold_is_no_challenger(place: Place) -> None:
    """An altered one, and one that is not there; nothing is on record."""
    file = place.store.path(toys.NAME, place.linear) / "model.json"
    file.write_bytes(file.read_bytes() + b" ")

    with pytest.raises(PackageInvalid, match=r"model\.json was altered"):
        challenge(place.settings, place.log, place.store, place.linear)
    with pytest.raises(PackageNotFound):
        challenge(place.settings, place.log, place.store, "0123456789ab")
    assert place.log.latest(toys.NAME, "challenge") is None


def test_a_package_of_another_schema_is_asked_and_decides_about_nobody(place: Place) -> None:
    """An application is read before it is known who decides about it."""
    with pytest.raises(PackageInvalid, match=r"another schema\.yaml than"):
        challenge(place.settings, place.log, place.store, place.other, share=0.01)

    assert challenge(place.settings, place.log, place.store, place.other).body["share"] == 0.0


def test_a_pinned_server_decides_with_no_other(place: Place) -> None:
    """A challenger is only asked there."""
    pinned = place.settings.model_copy(update={"model_version": place.trees})

    with pytest.raises(PackageInvalid, match=f"MODEL_VERSION pins {place.trees}"):
        challenge(pinned, place.log, place.store, place.linear, share=0.01)
    registry = {"name": toys.NAME, "version": 2, "alias": "challenger"}
    made = challenge(pinned, place.log, place.store, place.linear, registry=registry)
    assert made.body["registry"] == registry


def test_where_signatures_are_asked_for_an_unsigned_package_decides_about_nobody(
    place: Place, tmp_path: Path
) -> None:
    """It may be asked: approvers want to see what it would have decided."""
    update = {"approvers_file": write_approvers(tmp_path), "required_signatures": 1}
    strict = place.settings.model_copy(update=update)
    with pytest.raises(PackageInvalid, match="signed by 0 approvers"):
        challenge(strict, place.log, place.store, place.linear, share=0.01)
    assert challenge(strict, place.log, place.store, place.linear).body["share"] == 0.0

    sha256 = place.store.load(toys.NAME, place.linear).digest
    place.store.sign(toys.NAME, place.linear, approval(ADA, "ada", sha256))
    assert challenge(strict, place.log, place.store, place.linear, share=0.01).body["share"]
