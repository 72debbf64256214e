"""Fairness: ratios and differences by hand and by scipy, and nothing said of a few people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats.contingency import relative_risk

from credit_risk import fairness
from credit_risk.errors import DataInvalid

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.fairness import Fairness
    from credit_risk.significance import Interval

    Floats = npt.NDArray[np.float64]

NAMES = ("a", "b", "c")


def groups(*counts: tuple[int, int], pds: Floats | None = None) -> Fairness:
    """Groups of so many applicants of whom so many are approved, named in order."""
    sizes = [rows for rows, _ in counts]
    codes = np.repeat(np.arange(len(counts)), sizes)
    approved = np.concatenate([np.arange(rows) < number for rows, number in counts])
    if pds is None:
        pds = np.linspace(0.01, 0.9, len(codes))
    return fairness.measure(codes, NAMES[: len(counts)], approved, pds, 0.4, attribute="letter")


def ratio(*counts: tuple[int, int]) -> Interval:
    """That of the second group, the first being the reference."""
    found = groups(*counts).groups[1].ratio
    assert found is not None
    return found


def test_the_ratio_of_approval_rates_by_hand() -> None:
    """120 of 200 against 150 of 200, with the interval of its logarithm."""
    found = ratio((201, 150), (200, 120))

    width = 1.959964 * math.sqrt(1 / 120 - 1 / 200 + 1 / 150 - 1 / 201)
    assert found.value == pytest.approx((120 / 200) / (150 / 201))
    assert found.low == pytest.approx(found.value * math.exp(-width), rel=1e-6)
    assert found.high == pytest.approx(found.value * math.exp(width), rel=1e-6)


@pytest.mark.parametrize("counts", [((400, 150), (90, 31)), ((5_000, 4_900), (50, 3))])
def test_the_interval_of_the_ratio_is_scipys(counts: tuple[tuple[int, int], ...]) -> None:
    """Its relative risk, by Katz's method."""
    found = ratio(*counts)

    (m, y), (n, x) = counts
    expected = relative_risk(x, n, y, m).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("counts", "value"),
    [
        (((100, 60), (50, 0)), 0.0),
        (((100, 60), (50, 50)), 1 / 0.6),
        (((100, 100), (50, 50)), 1.0),
    ],
)
def test_where_nobody_or_everybody_is_approved_there_is_an_interval_all_the_same(
    counts: tuple[tuple[int, int], ...], value: float
) -> None:
    """One that has a width, and holds the figure."""
    found = ratio(*counts)

    assert found.value == pytest.approx(value)
    assert 0.0 <= found.low <= found.value <= found.high
    assert found.high - found.low > 0.01


def test_intervals_of_the_ratio_hold_the_truth_as_often_as_they_say() -> None:
    """Of 500 pairs of small groups, of which three fifths and three quarters are approved."""
    generator = np.random.default_rng(1)
    held = 0
    for x, y in zip(
        generator.binomial(40, 0.6, 500), generator.binomial(90, 0.75, 500), strict=True
    ):
        found = ratio((90, int(y)), (40, int(x)))
        held += found.low <= 0.8 <= found.high

    assert held / 500 == pytest.approx(0.95, abs=0.02)


def test_the_difference_of_scores_by_hand() -> None:
    """Log-odds a standard deviation apart: higher is riskier."""
    odds = np.concatenate([np.tile([-1.0, 1.0], 100), np.tile([0.0, 2.0], 50)])

    found = groups((200, 100), (100, 50), pds=1 / (1 + np.exp(-odds))).groups[1].difference

    assert found is not None
    spread = math.sqrt(300 / 298)  # of 300 values one away from their group's mean
    assert found.value == pytest.approx(1.0 / spread)
    width = 1.959964 * math.sqrt(300 / 20_000 + found.value**2 / 600)
    assert (found.low, found.high) == pytest.approx((found.value - width, found.value + width))


def test_scores_that_are_all_one_have_no_difference() -> None:
    """Not one of nothing by nothing; and certainty is no infinity."""
    same = groups((100, 50), (100, 50), pds=np.full(200, 0.3)).groups[1].difference
    certain = groups((100, 50), (100, 50), pds=np.tile([0.0, 1.0], 100)).groups[1].difference

    assert same is None
    assert certain is not None
    assert certain.value == pytest.approx(0.0)


def test_of_a_small_group_nothing_is_said() -> None:
    """But how many are of such groups: their names may be anything, and point at people."""
    found = groups((100, 60), (29, 20), (30, 20))

    assert [group.name for group in found.groups] == ["a", "c"]
    assert (found.rows, found.few) == (159, 29)
    assert found.groups[1].ratio is not None
    assert [set(cut.ratios) for cut in found.cut_offs] == [{"c"}] * 20


@pytest.mark.parametrize("counts", [((29, 20), (29, 20)), ((0, 0), (0, 0))])
def test_without_a_reference_nothing_is_compared(counts: tuple[tuple[int, int], ...]) -> None:
    """And nobody at all is no error."""
    found = groups(*counts)

    assert (found.reference, found.cut_offs) == (None, ())
    assert found.not_enough == "no group has 30 applicants"
    assert found.groups == ()
    assert "NaN" not in found.model_dump_json()


def test_the_largest_group_is_the_reference_unless_another_is_named() -> None:
    """The reference is compared with nobody, and unknown groups are counted."""
    codes = np.repeat([0, 1, -1], [100, 60, 7])
    approved, pds = np.arange(167) % 2 == 0, np.linspace(0.1, 0.9, 167)

    largest = fairness.measure(codes, ("a", "b"), approved, pds, 0.4, attribute="letter")
    named = fairness.measure(
        codes, ("a", "b"), approved, pds, 0.4, attribute="letter", reference="b"
    )

    assert (largest.reference, largest.rows, largest.unknown) == ("a", 167, 7)
    assert largest.groups[0].ratio is None
    assert (named.reference, named.groups[1].ratio) == ("b", None)
    assert named.groups[0].ratio is not None


@pytest.mark.parametrize("reference", ["b", "z"])
def test_a_reference_that_is_no_group_is_refused(reference: str) -> None:
    """Without saying what was sent, nor whether there is a group of that name that is too small."""
    codes = np.repeat([0, 1], [40, 29])
    with pytest.raises(DataInvalid, match=r"^the reference is none of the groups of 30 or more$"):
        fairness.measure(
            codes, ("a", "b"), np.ones(69, bool), np.full(69, 0.5), 0.4,
            attribute="letter", reference=reference,
        )  # fmt: skip


def test_each_alternative_cut_off_has_its_ratio() -> None:
    """Approving those below it, for a twentieth of all at a time; the policy's own is marked."""
    generator = np.random.default_rng(2)
    pds = np.concatenate([generator.beta(1, 5, 600), generator.beta(2, 5, 400)])

    found = groups((600, 300), (400, 100), pds=pds)

    assert len(found.cut_offs) == 20
    assert [cut.cut_off for cut in found.cut_offs if cut.is_current] == [0.4]
    tenth = found.cut_offs[9]
    assert tenth.approval_rate == pytest.approx(0.5)
    one, other = (pds[part] < tenth.cut_off for part in (slice(600, None), slice(600)))
    assert tenth.ratios["b"] is not None
    assert tenth.ratios["b"].value == pytest.approx(one.mean() / other.mean())


def test_where_nobody_of_the_reference_is_approved_there_is_no_ratio() -> None:
    """At a cut-off, or by decisions."""
    pds = np.concatenate([np.full(100, 0.5), np.full(50, 0.1)])

    found = groups((100, 0), (50, 20), pds=pds)

    assert found.groups[1].ratio is None
    assert [cut.ratios["b"] for cut in found.cut_offs if cut.is_current] == [None]
