"""`credit-risk challenge`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import toys
from tests.commands import Outcome, Place, refused

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_package_challenges_for_a_share_and_no_longer(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Each says what is so from now on, and names the record of it."""
    said = run("challenge", place.linear).out
    assert said.startswith(f"{toys.NAME}: {place.linear} is asked about all that is decided")
    record = run("challenge", place.linear, "--share", "0.05", "--json").json()
    assert (record["kind"], record["body"]["share"]) == ("challenge", 0.05)
    said = run("challenge", place.linear, "--share", "0.1").out
    assert f"{place.linear} decides about 0.1 of applicants (before: {place.linear})" in said
    said = run("challenge", "--end").out
    assert f"{place.linear} challenges no longer" in said

    kinds = run("decisions", "list", "--kind", "challenge", "--json").json()
    assert [row["body"]["share"] for row in kinds] == [0.0, 0.1, 0.05, 0.0]
    assert kinds[0]["id"] in said


def test_a_challenge_that_cannot_be_is_refused(run: Callable[..., Outcome], place: Place) -> None:
    """With 3 where there is nothing, with 1 what decides already, with 2 what makes no sense."""
    refused(run("challenge", "--end"), 3, "there is no challenger")
    refused(run("challenge", place.trees), 1, f"{place.trees} decides already")
    refused(run("challenge", "0123456789ab"), 3, "0123456789ab")
    for wrong in ((), (place.linear, "--end"), ("--end", "--share", "0.1")):
        outcome = run("challenge", *wrong)
        assert outcome.code == 2
        assert "VERSION" in outcome.err
