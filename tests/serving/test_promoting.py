"""Promoting: what is on record of it, and that it is all of it or nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import challenges, shadowing
from credit_risk.audit.beside import Beside
from credit_risk.audit.keys import key_id
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import moment, new_id
from credit_risk.errors import Conflict, PackageInvalid, PackageNotFound, PortfolioInvalid
from credit_risk.serving import activation
from credit_risk.serving.challenging import challenge, end
from credit_risk.serving.promoting import examine, gathered, promote
from credit_risk.serving.store import DEFAULT, Store
from credit_risk.settings import Settings
from credit_risk.shadowing import Made, Said
from credit_risk.windows import DAY
from tests import toys
from tests.sealing import SEALING
from tests.signing import ADA, BEN, approval, write_approvers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.records import Record

POLICY = """\
portfolio: bicycle-leases
version: 1.2.0
approvals: {approvals}
criteria:
  score_psi: {{most: {psi}}}
"""


class Place:
    """A state directory with the toy packages; the trees decide, the linear model is to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shipped = folder / "shipped"
        self.trees = toys.write_package(shipped, "trees").name
        self.linear = toys.write_package(shipped, "linear").name
        (shipped / toys.NAME / DEFAULT).write_text(f"{self.trees}\n", encoding="utf-8")
        self.portfolio = toys.write_portfolio(folder / "portfolios")
        self.settings = Settings(
            portfolio=toys.NAME,
            state_dir=folder / "state",
            packages_dir=shipped,
            portfolios_dir=folder / "portfolios",
            approvers_file=write_approvers(folder),
        )
        self.store = Store(self.settings)
        self.store.add_shipped(toys.NAME)
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)

    def policy(self, *, approvals: int = 0, psi: float = 100.0) -> None:
        """What the portfolio asks for from now on."""
        text = POLICY.format(approvals=approvals, psi=psi)
        (self.portfolio / "promotion.yaml").write_text(text, encoding="utf-8")

    def sign(self, key: Any, approver: str) -> None:  # noqa: ANN401 - a private key
        """Have somebody approve the linear model."""
        sha256 = self.store.load(toys.NAME, self.linear).digest
        self.store.sign(toys.NAME, self.linear, approval(key, approver, sha256))

    def ask(self, *times: int) -> None:
        """Have the linear model been asked about decisions of those times, and agree."""
        said = Said(self.linear, 0.9, "DECLINE", "VERY_HIGH", None, None, 0.002, 0.001)
        made = [
            Made(3, new_id(), time, self.trees, "DECLINE", "VERY_HIGH", 0.8, None, b"", b"")
            for time in times
        ]
        found = challenges.in_force(self.log, toys.NAME)
        assert found is not None
        beside = Beside(self.settings.audit_url)
        with beside.writing() as connection:
            state = shadowing.take(connection, found, "one", 0)
            assert state is not None
            shadowing.keep(connection, state, [(one, said) for one in made], 3, 0)
        beside.close()

    def promote(self) -> tuple[Record, Record | None]:
        """Have the linear model decide, if it may."""
        return promote(
            self.settings,
            self.log,
            self.store,
            examine(self.settings, self.log, self.store, self.linear),
        )

    def wanted(self) -> str:
        """The version that decides."""
        return activation.wanted_version(self.settings, self.log, self.store)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where promotions are made."""
    made = Place(tmp_path)
    yield made
    made.log.close()


def test_a_promotion_is_on_record_with_the_activation_that_it_comes_to(place: Place) -> None:
    """Each names the other's package; what was shown, and who approved, are told."""
    place.policy(approvals=2)
    place.sign(ADA, "ada")
    place.sign(BEN, "ben")

    record, activated = place.promote()

    assert activated is not None
    assert place.wanted() == place.linear
    assert place.log.find(kind="promotion") == [record]
    assert (activated.body["action"], activated.body["promotion"]) == ("promote", record.id)
    assert (activated.body["from"], activated.body["to"]) == (place.trees, place.linear)
    assert record.body | {"judgement": None, "promotion_policy": None} == {
        "outcome": "PROMOTED",
        "candidate": place.linear,
        "champion": place.trees,
        "package_sha256": activated.body["package_sha256"],
        "promotion_policy": None,
        "judgement": None,
        "approvals": {
            "required": 2,
            "given": {"ada": key_id(ADA.public_key()), "ben": key_id(BEN.public_key())},
        },
        "by": activated.body["by"],
    }
    assert record.body["promotion_policy"]["version"] == "1.2.0"
    assert record.body["judgement"]["verdict"] == "PASSED"
    assert [c["measure"] for c in record.body["judgement"]["criteria"]] == [
        "integrity",
        "score_psi",
    ]
    assert activation.rollback(place.settings, place.log, place.store).model_version == place.trees


def test_a_candidate_that_is_refused_or_lacks_approvals_decides_nothing(place: Place) -> None:
    """Both are on record; one approver twice is one."""
    place.policy(approvals=2, psi=0.0)
    place.sign(ADA, "ada")
    place.sign(ADA, "ada")
    refused, none = place.promote()
    place.policy(approvals=2)
    unapproved, nor_one = place.promote()

    assert (none, nor_one) == (None, None)
    assert refused.body["outcome"] == "REFUSED"
    assert "Stability of the score" in refused.body["judgement"]["reasons"][0]
    assert unapproved.body["outcome"] == "UNAPPROVED"
    assert list(unapproved.body["approvals"]["given"]) == ["ada"]
    assert place.log.count(kind="promotion") == 2
    assert place.log.count(kind="activation") == 0
    assert place.wanted() == place.trees


def test_an_altered_candidate_is_refused_for_that(place: Place) -> None:
    """Whoever has approved it, and whatever else it would show."""
    place.policy()
    file = place.store.path(toys.NAME, place.linear) / "policy.yaml"
    file.write_bytes(file.read_bytes() + b" ")

    record, activated = place.promote()

    assert activated is None
    assert "policy.yaml was altered" in record.body["judgement"]["reasons"][0]
    assert record.body["package_sha256"] is None


def test_what_decided_is_what_the_candidate_was_held_against(place: Place) -> None:
    """Another activation meanwhile: neither promotion nor activation is on record."""
    place.policy()
    examined = examine(place.settings, place.log, place.store, place.linear)
    activation.activate(place.settings, place.log, place.store, place.trees)

    with pytest.raises(Conflict, match="another activation was recorded meanwhile"):
        promote(place.settings, place.log, place.store, examined)
    assert place.log.count(kind="promotion") == 0
    assert place.log.count(kind="activation") == 1
    assert place.wanted() == place.trees


def test_a_challenger_that_is_promoted_challenges_no_longer(place: Place) -> None:
    """In the same moment; another's challenge goes on."""
    place.policy()
    challenge(place.settings, place.log, place.store, place.linear)
    place.promote()
    assert challenges.in_force(place.log, toys.NAME) is None

    activation.rollback(place.settings, place.log, place.store)
    card = toys.write_package(place.folder / "made", "linear", card_md=b"# Another\n")
    challenge(place.settings, place.log, place.store, place.store.add(card))
    place.promote()
    assert challenges.in_force(place.log, toys.NAME) is not None


def test_the_first_package_of_a_portfolio_may_be_promoted(place: Place) -> None:
    """There is nothing to compare it with."""
    place.policy(psi=0.0)
    (place.folder / "shipped" / toys.NAME / DEFAULT).unlink()

    record, activated = place.promote()

    assert activated is not None
    assert record.body["champion"] is None
    assert record.body["judgement"]["criteria"][1]["state"] == "does not apply"


def test_what_cannot_be_a_candidate_is_told(place: Place) -> None:
    """Nothing is on record of it."""
    with pytest.raises(PortfolioInvalid, match=r"promotion\.yaml: cannot be read"):
        place.promote()
    place.policy()
    with pytest.raises(PackageInvalid, match=f"{place.trees} decides already"):
        examine(place.settings, place.log, place.store, place.trees)
    with pytest.raises(PackageNotFound):
        examine(place.settings, place.log, place.store, "0123456789ab")
    assert place.log.count() == 0


def test_what_both_were_asked_about_is_looked_at(place: Place) -> None:
    """Whom one decided and the other was asked about; nobody was before."""
    place.policy()
    more = "  shadow_rows: {least: 1}\n  agreement: {least: 0.5}\n"
    file = place.portfolio / "promotion.yaml"
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    before = examine(place.settings, place.log, place.store, place.linear).judgement
    assert "Applicants both were asked about: 0, and at least 1 is asked for." in before.reasons

    made = challenge(place.settings, place.log, place.store, place.linear)
    long_ago = replace(made, id=new_id(), time=made.time - 40 * DAY)
    place.log.append([replace(long_ago, body=made.body | {"draw": long_ago.id})]).result()
    place.ask(made.time - 31 * DAY, made.time - 29 * DAY, made.time + 1, made.time + DAY)
    after = examine(place.settings, place.log, place.store, place.linear).judgement

    shown = {c.measure: c.value for c in after.criteria}
    assert (shown["shadow_rows"], shown["agreement"]) == (2, 1.0)
    assert after.verdict == "PASSED"


def test_only_what_was_asked_lately_and_in_this_challenge_counts(place: Place) -> None:
    """What was asked in another one, or long ago, is no evidence; how much it is, is told."""
    place.policy()
    file = place.portfolio / "promotion.yaml"
    more = "  shadow_rows: {least: 1}\n"
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    challenge(place.settings, place.log, place.store, place.linear)
    now = time.time_ns() // 1_000
    place.ask(now - 40 * DAY, now - 20 * DAY, now)
    end(place.settings, place.log)
    time.sleep(0.001)
    made = challenge(place.settings, place.log, place.store, place.linear)

    found = examine(place.settings, place.log, place.store, place.linear).judgement

    rows, left_out = found.reasons
    assert rows.startswith("Applicants both were asked about: 0 (since ")
    assert f"3 do not count: they were decided before {moment(made.time)}" in left_out


def test_what_packages_say_of_themselves_is_gathered() -> None:
    """Figures of rows held out, and of their explanations; a toy has none of the former."""
    trees = toys.load_package("trees")
    found = gathered(trees, trees)
    assert (found.first, found.candidate, found.champion, found.contest) == (False, *[None] * 3)
    assert found.beside is not None
    assert found.beside.score_psi == 0.0
    assert found.additivity_error is not None

    trees.metrics["fidelity"] = {"same_first_reason": 0.97}
    assert gathered(trees, None).same_first_reason == 0.97
