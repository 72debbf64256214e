"""The canary: who is taken is drawn by key, and nobody where packages take other applications."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from credit_risk.canary import FAILURES_MOST, Canary
from credit_risk.challenges import Challenge, key_of, takes
from credit_risk.errors import DeadlineExceeded
from tests import toys
from tests.recorded import NOON

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

ID = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"


def drawn(share: float) -> Challenge:
    """A challenge for that share."""
    return Challenge(ID, toys.NAME, "0123456789ab", share, ID, NOON)


def test_an_applicant_is_drawn_by_key_or_else_by_application(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """The key counts, whatever the application says."""
    half = drawn(0.5)
    canary = Canary(half, linear_package, toys.unasked())
    applications = toys.applications(40)

    by_application = [canary.takes(trees_package, one) for one in applications]
    by_key = [canary.of(b"4711").takes(trees_package, one) for one in applications]

    assert by_application == [takes(half, key_of(one)) for one in applications]
    assert set(by_application) == {True, False}
    assert set(by_key) == {takes(half, b"4711")}
    assert canary.of(None) is canary


def test_packages_of_different_schemas_share_no_applicants(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """The champion was switched since: what it takes the challenger may not."""
    canary = Canary(drawn(1.0), linear_package, toys.unasked())
    other = replace(trees_package, digests=trees_package.digests | {"schema.yaml": "0" * 64})

    assert canary.takes(trees_package, toys.SAFE)
    assert not canary.takes(other, toys.SAFE)


def test_a_record_says_who_decided_or_failed_to(linear_package: ModelPackage) -> None:
    """By the id of the challenge."""
    canary = Canary(drawn(1.0), linear_package, toys.unasked())

    assert canary.mark(decided=True) == {"challenge": ID}
    assert canary.mark(decided=False) == {"challenge_failed": ID}


def test_a_challenger_that_fails_again_and_again_takes_nobody_any_more(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """Between failures it may do well; who is failed by then, is not asked for anew."""
    canary = Canary(drawn(1.0), linear_package, toys.unasked())
    trials = canary.of(b"4711").trials
    for _ in range(FAILURES_MOST - 1):
        trials.went_wrong(ValueError())
    trials.went_well()
    for _ in range(FAILURES_MOST - 1):
        trials.went_wrong(ValueError())
    assert canary.takes(trees_package, toys.SAFE)

    trials.went_wrong(DeadlineExceeded("late"))
    trials.went_well()

    assert trials.failed
    assert isinstance(trials.last, DeadlineExceeded)
    assert not canary.takes(trees_package, toys.SAFE)
