"""Challenges: the last record is in force, and an applicant is always on the same side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from credit_risk import challenges
from credit_risk.challenges import Challenge, begun, challenge_record, in_force, key_of, takes
from credit_risk.decisions import new_id
from tests import toys
from tests.recorded import NOON, Kept

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage

ID = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"


def challenge(share: float, draw: str = ID) -> Challenge:
    """A challenge of that share."""
    return Challenge(new_id(), toys.NAME, "0123456789ab", share, draw, NOON)


def test_the_last_challenge_is_in_force_until_it_is_ended(linear_package: ModelPackage) -> None:
    """And its record names what was before."""
    kept = Kept()
    assert in_force(kept, toys.NAME) is None

    kept.records.append(challenge_record(toys.NAME, linear_package, None, 0.05))
    found = in_force(kept, toys.NAME)
    assert found is not None
    assert (found.version, found.share) == (linear_package.version, 0.05)
    assert (found.id, found.time) == (kept.records[0].id, kept.records[0].time)
    assert in_force(kept, "another") is None

    registry = {"name": toys.NAME, "version": 3, "alias": "challenger"}
    kept.records.append(challenge_record(toys.NAME, linear_package, found, 0.0, registry))
    body = kept.records[1].body
    assert (body["from"], body["registry"]) == (linear_package.version, registry)

    kept.records.append(challenge_record(toys.NAME, None, found, 0.0))
    assert (kept.records[2].body["to"], kept.records[2].model_version) == (None, None)
    assert in_force(kept, toys.NAME) is None


def test_a_challenge_began_with_the_first_of_its_records(
    linear_package: ModelPackage, trees_package: ModelPackage
) -> None:
    """Not with a share's, nor long before, nor another's; an altered one says nothing."""
    version = linear_package.version
    kept = Kept()
    assert begun(kept, toys.NAME, version) is None
    before = None
    for time, package, share in (
        (1, linear_package, 0.0),
        (2, None, 0.0),
        (3, linear_package, 0.0),
        (4, linear_package, 0.2),
        (5, linear_package, 0.0),
    ):
        record = challenge_record(toys.NAME, package, before, share)
        kept.records.append(replace(record, time=time))
        before = in_force(kept, toys.NAME)
    assert begun(kept, toys.NAME, version) == 3

    kept.records.append(challenge_record(toys.NAME, trees_package, before, 0.0))
    kept.records.append(replace(kept.records[0], time=9, body={}, altered="its hash"))
    assert begun(kept, toys.NAME, version) == 3
    assert begun(kept, "another", version) is None


def test_a_challenge_that_was_suspended_says_so(linear_package: ModelPackage) -> None:
    """It is shadow until somebody gives it a share again, and draws the same applicants then."""
    kept = Kept([challenge_record(toys.NAME, linear_package, None, 0.2)])
    first = in_force(kept, toys.NAME)
    assert first is not None
    kept.records.append(challenge_record(toys.NAME, linear_package, first, 0.0, suspended="hung"))

    found = in_force(kept, toys.NAME)

    assert kept.records[1].body["suspended"] == "hung"
    assert found is not None
    assert (found.share, found.suspended, found.draw) == (0.0, True, first.draw)
    kept.records.append(challenge_record(toys.NAME, linear_package, found, 0.2))
    again = in_force(kept, toys.NAME)
    assert again is not None
    assert (again.share, again.suspended, again.draw) == (0.2, False, first.draw)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95])
def test_the_share_is_within_statistical_bounds(share: float) -> None:
    """Of 40,000 applicants, within four standard errors, in any challenge."""
    applicants = 40_000
    for draw in (ID, "01936b2e-80a1-7d0f-b7d2-2a9f6f1d3c55"):
        drawn = challenge(share, draw)
        taken = sum(takes(drawn, b"applicant %d" % number) for number in range(applicants))
        width = 4 * math.sqrt(share * (1 - share) / applicants)
        assert abs(taken / applicants - share) < width


def test_the_same_applicant_is_always_on_the_same_side() -> None:
    """Also with a greater share: who was taken stays; another challenge draws others."""
    keys = [b"%d" % number for number in range(2_000)]
    small, large = challenge(0.2), challenge(0.4)
    of_small = {key for key in keys if takes(small, key)}

    assert of_small == {key for key in keys if takes(small, key)}
    assert of_small < {key for key in keys if takes(large, key)}
    other = challenge(0.2, "01936b2e-80a1-7d0f-b7d2-2a9f6f1d3c55")
    both = of_small & {key for key in keys if takes(other, key)}
    assert 0 < len(both) < len(of_small) / 2


def test_a_larger_share_of_the_same_challenger_keeps_who_was_drawn(
    linear_package: ModelPackage, trees_package: ModelPackage
) -> None:
    """They go on being decided by it; another challenger draws anew."""
    kept = Kept([challenge_record(toys.NAME, linear_package, None, 0.05)])
    first = in_force(kept, toys.NAME)
    kept.records.append(challenge_record(toys.NAME, linear_package, first, 0.2))
    second = in_force(kept, toys.NAME)
    kept.records.append(challenge_record(toys.NAME, trees_package, second, 0.2))
    third = in_force(kept, toys.NAME)

    assert first is not None
    assert second is not None
    assert third is not None
    assert first.draw == first.id == second.draw != second.id
    assert third.draw == third.id


def test_the_ends_of_the_share_take_nobody_and_everybody() -> None:
    """Without a float's rounding in the way."""
    keys = [b"%d" % number for number in range(500)]

    assert not any(takes(challenge(0.0), key) for key in keys)
    assert all(takes(challenge(1.0), key) for key in keys)


def test_who_is_taken_can_be_worked_out_elsewhere() -> None:
    """Any language's SHA-256 tells: these were worked out with a shell's."""
    # printf '%s\n%s' ID key | sha256sum | cut -c 1-16
    sides = {b"4711": 0x3D50_D836_885A_EF2C, b"0815": 0x8C24_E862_B59C_C287}

    for key, bits in sides.items():
        low, high = (bits - 2**40) / 2**64, (bits + 2**40) / 2**64
        assert not takes(challenge(low), key)
        assert takes(challenge(high), key)


def test_an_application_stands_for_its_applicant_however_it_was_written() -> None:
    """In whatever order its fields came; another application is another applicant."""
    backwards = dict(reversed(toys.SAFE.items()))

    assert key_of(backwards) == key_of(toys.SAFE)
    assert key_of(toys.SAFE | {"age": 61}) != key_of(toys.SAFE)
    assert challenges.key_of({}) == b"{}"
