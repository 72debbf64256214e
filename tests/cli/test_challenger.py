"""`credit-risk challenge` and `credit-risk challenger`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from credit_risk.challenger import CutOffs, Grouped, Known, Pairs, Side, compare
from credit_risk.cli import challenger
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


def test_the_report_says_how_the_two_differ(run: Callable[..., Outcome], place: Place) -> None:
    """As lines, as JSON, and as a page; of a package that is named, without a challenge too."""
    run("models", "activate", place.trees)
    refused(run("challenger"), 3, "there is no challenger")
    refused(run("challenger", place.trees), 1, f"{place.trees} decides already")
    run("challenge", place.linear)

    told = run("challenger", "--json").json()
    assert (told["champion"], told["challenger"]) == (place.trees, place.linear)
    assert (told["rows"], told["from"]) == (0, None)
    folder = place.folder / "report"
    outcome = run("challenger", place.linear, "--window", "7d", "--report", str(folder))
    assert f"{place.linear} beside {place.trees}" in outcome.out
    assert "0 outcomes are known" in outcome.out
    (page,) = folder.iterdir()
    assert str(page) in outcome.err
    assert "the last 7d" in page.read_text(encoding="utf-8")
    assert run("challenger", "--window", "7y").code == 2
    refused(run("challenger", "0123456789ab"), 3, "0123456789ab")


def test_all_that_is_known_is_in_lines() -> None:
    """Values with their bounds."""
    generator = np.random.default_rng(2)
    pds = generator.beta(1, 3, 500)
    side = Side(
        pds=pds,
        decisions=np.searchsorted([0.2, 0.4], pds).astype(np.int64),
        bands=np.searchsorted([0.1, 0.2, 0.4], pds).astype(np.int64),
        reasons=np.full(500, "AGE"),
        seconds=np.full(500, 0.001),
    )
    pairs = Pairs(side, side, np.ones(500, dtype=np.bool_))
    known = Known(pairs, (generator.random(500) < pds).astype(np.int64))
    grouped = [Grouped("region", pairs, np.arange(500) % 2, ["north", "south"])]
    found = compare("a", "b", pairs, CutOffs(0.4, 0.4), known=known, grouped=grouped)

    lines = {name: (value, between) for name, value, between in challenger._lines(found)}  # noqa: SLF001 - as printed

    assert lines["same decision"][0] == "100.00%"
    assert lines["decided by the challenger"] == ("500", "")
    assert lines["difference of auc"] == ("+0.0000", "+0.0000 to +0.0000")
    assert lines["least change of approval ratios by region"][0] == "1.000 times"
    assert lines["times the champion's processor time"] == ("1.00", "")
