"""Groups: kept beside decisions, sealed under keys of their own, and gone with them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk import groups
from credit_risk.audit import erasure, retention
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import GROUPS
from credit_risk.errors import Conflict, EvidenceInvalid
from credit_risk.groups import STATES, Member, is_attribute
from tests import toys
from tests.audit.test_checkpoints import altered
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.package import ModelPackage

OWN = Sealing([b"g" * KEY_BYTES])
NOWHERE = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"


class Office:
    """A log with three decisions in it."""

    def __init__(self, log: SqlAuditLog, package: ModelPackage) -> None:
        self.log = log
        self.records = decided(package, [toys.SAFE, toys.RISKY, toys.SAFE])
        log.append(self.records).result()
        self.ids = [record.id for record in self.records]

    def add(self, *members: tuple[str, str], attribute: str = "sex") -> list[groups.State]:
        """Say who belongs to what group; what became of each."""
        given = [Member(*member) for member in members]
        return groups.add(self.log, OWN, toys.NAME, attribute, given)

    def known(self, attribute: str = "sex") -> dict[str, str | None]:
        """The groups by decision."""
        with self.log.reading() as connection:
            rows = connection.execute(sa.select(GROUPS).where(GROUPS.c.attribute == attribute))
            return {
                row.decision_id: groups.opened(OWN, row.decision_id, attribute, row.sealed)
                for row in rows
            }


@pytest.fixture
def office(any_url: str, trees_package: ModelPackage) -> Iterator[Office]:
    """On each kind of database."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        yield Office(log, trees_package)


def test_groups_are_kept_changed_and_forgotten(office: Office) -> None:
    """Every state is met; nothing of it is in the chain."""
    one, two, three = office.ids
    number = office.log.count()

    assert office.add((one, "f"), (two, "m"), (three, "f")) == ["kept", "kept", "kept"]
    assert office.add((one, "40-50"), attribute="age_band") == ["kept"]
    rows = [(one, "f"), (two, "x"), (three, ""), (NOWHERE, "f"), ("no id", "f")]
    assert office.add(*rows) == ["unchanged", "changed", "removed", "unknown", "unknown"]
    assert office.add((one, "f"), (one, "m"), (three, "")) == [
        *("duplicate", "duplicate", "unchanged")
    ]

    assert office.known() == {one: "f", two: "x"}
    assert office.known("age_band") == {one: "40-50"}
    assert office.log.count() == number
    assert set(STATES) - {"erased"} == {
        *("kept", "changed", "unchanged", "removed", "duplicate", "unknown")
    }


def test_who_has_only_the_records_keys_reads_no_group(office: Office) -> None:
    """Nor is a group taken to another row."""
    one, two, _ = office.ids
    office.add((one, "f"), (two, "m"))
    with office.log.reading() as connection:
        rows = {row.decision_id: row for row in connection.execute(sa.select(GROUPS))}

    assert groups.opened(SEALING, one, "sex", rows[one].sealed) is None
    for place in ((one, "age_band"), (two, "sex")):
        with pytest.raises(EvidenceInvalid):
            groups.opened(OWN, *place, rows[one].sealed)


def test_an_erased_applicant_has_no_groups_and_gets_none(office: Office) -> None:
    """Nothing is left of them."""
    one, two, _ = office.ids
    office.add((one, "f"), (two, "m"))
    office.add((one, "40-50"), attribute="age_band")
    erasure.erase(
        office.log, office.log, [one], by="clerk", reason="asked", progress=lambda *_: None
    )

    assert office.known() == {two: "m"}
    assert office.known("age_band") == {}
    assert office.add((one, "f")) == ["erased"]


def test_retention_takes_groups_along(office: Office) -> None:
    """With their decisions."""
    office.add((office.ids[0], "f"))
    terms = retention.Terms(25, NOON + 10_000_000)
    retention.take(office.log, office.log, terms, by="clerk", progress=lambda *_: None)

    assert office.known() == {}
    assert office.add((office.ids[0], "f")) == ["unknown"]


def test_what_was_altered_is_not_written_over(office: Office) -> None:
    """It is told."""
    office.add((office.ids[0], "f"))
    altered(office.log, sa.update(GROUPS).values(sealed=b"\0" * 99))

    assert office.add((office.ids[0], "m")) == ["changed"]
    sealed = OWN.seal("another", b"f")
    altered(office.log, sa.update(GROUPS).values(sealed=sealed[1] + sealed[0]))
    with pytest.raises(EvidenceInvalid):
        office.add((office.ids[0], "f"))


def test_an_erasure_meanwhile_wins(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading and writing."""
    one = office.ids[0]
    seal = groups._row  # noqa: SLF001 - the moment between

    def slow(*arguments: object) -> object:
        erasure.erase(office.log, office.log, [one], by="c", reason="r", progress=lambda *_: None)
        return seal(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(groups, "_row", slow)
    with pytest.raises(Conflict, match="try again"):
        office.add((one, "f"))
    assert office.known() == {}


@pytest.mark.parametrize(
    ("name", "may_be"),
    [("sex", True), ("age_band_2", True), ("Sex", False), ("", False), ("a b", False), ("x\n", 0)],
)
def test_an_attribute_has_a_plain_name(name: str, may_be: bool) -> None:  # noqa: FBT001 - a case
    """As it is in addresses."""
    assert is_attribute(name) == may_be


def test_more_groups_than_a_transaction_takes_are_all_kept(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order."""
    monkeypatch.setattr(groups, "AT_ONCE", 2)
    members: Sequence[tuple[str, str]] = [(one, str(i)) for i, one in enumerate(office.ids)]

    assert office.add(*members) == ["kept"] * 3
    assert office.known() == dict(members)
