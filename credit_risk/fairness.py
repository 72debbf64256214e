"""Fairness: approvals and scores by groups that are no input of the model. It reports; no more.

Two figures that fair-lending reviews ask for, each against a reference group:

- the approval-rate ratio (adverse impact ratio, AIR): a group's approval rate over the reference's.
  Its interval is that of the logarithm (D. Katz et al., Biometrics 34, 1978); where nobody or
  everybody of a group is approved, with half an approval and half a refusal added to both.
- the standardised mean difference (SMD) of the log-odds of default, a group's mean less the
  reference's over their pooled standard deviation, so that more is riskier, with the large-sample
  interval of L. V. Hedges and I. Olkin, Statistical Methods for Meta-Analysis, 1985.

Intervals are each at 95 % by itself: of twenty groups without a difference, one may show one. A
group of fewer than `LEAST_ROWS` is neither named nor counted by itself: its figures would be
chance's, and its name, beside a window with one applicant in it, is that applicant's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from credit_risk import significance
from credit_risk.documents import Document
from credit_risk.errors import DataInvalid
from credit_risk.significance import Interval, Z

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

LEAST_ROWS = 30

CUT_OFFS = 19
"""Alternative cut-offs: those that would approve a twentieth, two twentieths and so on of all."""

UNKNOWN = -1
"""Code of an applicant whose group is not known."""

_LEAST_PD = 1e-12


class Group(Document):
    """A group beside the reference.

    ``ratio`` is that of approval rates, ``difference`` the standardised mean difference. The
    reference has neither; nor is there a ratio where nobody of the reference was approved, nor a
    difference where no scores differ.
    """

    name: str
    rows: int
    approval_rate: Interval
    ratio: Interval | None
    difference: Interval | None


class CutOff(Document):
    """What a cut-off would do by itself, without rules and people: PDs below it are approved.

    ``ratios`` are by group, those that are large enough.
    """

    cut_off: float
    is_current: bool
    approval_rate: float
    ratios: dict[str, Interval | None]


class Fairness(Document):
    """Groups by one attribute.

    Of ``rows``, ``unknown`` is how many have no group on record, and ``few`` how many are of groups
    too small to be among ``groups``. Where all are, ``reference`` is None and nothing is compared;
    ``not_enough`` says so then.
    """

    attribute: str
    reference: str | None
    rows: int
    unknown: int
    few: int
    groups: tuple[Group, ...]
    cut_offs: tuple[CutOff, ...]
    not_enough: str | None


def measure(
    codes: Ints,
    names: Sequence[str],
    approved: Mask,
    pds: Floats,
    cut_off: float,
    *,
    attribute: str,
    reference: str | None = None,
) -> Fairness:
    """Compare groups.

    Args:
        codes: shape (n,), each applicant's group as its place in ``names``, or `UNKNOWN`.
        names: of the groups.
        approved: shape (n,), whether the final decision was to approve. Leave out what nobody has
            decided yet.
        pds: shape (n,), in (0, 1).
        cut_off: the policy's, from which on a PD is declined.
        attribute: what the groups are by.
        reference: name of the group to compare with; None is the largest.

    Raises:
        DataInvalid: no group that is large enough has the reference's name.
    """
    members = {name: codes == place for place, name in enumerate(names)}
    sizes = {name: int(which.sum()) for name, which in members.items()}
    large = {name: members[name] for name, size in sizes.items() if size >= LEAST_ROWS}
    if reference is None and large:
        reference = max(large, key=lambda name: sizes[name])
    if reference is not None and reference not in large:
        # A name that is too small for it and one that is none are told apart by nobody.
        raise DataInvalid(f"the reference is none of the groups of {LEAST_ROWS} or more")
    others = None if reference is None else large[reference]
    log_odds = np.log(np.clip(pds, _LEAST_PD, None) / np.clip(1.0 - pds, _LEAST_PD, None))
    groups = []
    for name, which in large.items():
        beside = None if name == reference else others
        groups.append(
            Group(
                name=name,
                rows=sizes[name],
                approval_rate=significance.share(approved[which]),
                ratio=None if beside is None else _ratio(approved[which], approved[beside]),
                difference=None
                if beside is None
                else _difference(log_odds[which], log_odds[beside]),
            )
        )
    return Fairness(
        attribute=attribute,
        reference=reference,
        rows=len(codes),
        unknown=int((codes == UNKNOWN).sum()),
        few=sum(size for name, size in sizes.items() if name not in large),
        groups=tuple(groups),
        cut_offs=() if others is None else _cut_offs(pds, cut_off, large, others),
        not_enough=None if large else f"no group has {LEAST_ROWS} applicants",
    )


def _cut_offs(
    pds: Floats, current: float, groups: Mapping[str, Mask], reference: Mask
) -> tuple[CutOff, ...]:
    shares = np.arange(1, CUT_OFFS + 1) / (CUT_OFFS + 1)
    found = []
    for cut_off in np.unique([*np.quantile(pds, shares), current]).tolist():
        approved = pds < cut_off
        found.append(
            CutOff(
                cut_off=cut_off,
                is_current=cut_off == current,
                approval_rate=float(approved.mean()),
                ratios={
                    name: _ratio(approved[which], approved[reference])
                    for name, which in groups.items()
                    if which is not reference
                },
            )
        )
    return tuple(found)


def _ratio(approved: Mask, reference: Mask) -> Interval | None:
    """The approval-rate ratio, None where nobody of the reference is approved."""
    if not reference.any():
        return None
    value = float(approved.mean() / reference.mean())
    half = 0.0 if 0 < approved.mean() < 1 and reference.mean() < 1 else 0.5
    x, n = approved.sum() + half, len(approved) + 2 * half
    y, m = reference.sum() + half, len(reference) + 2 * half
    width = Z * math.sqrt(1 / x - 1 / n + 1 / y - 1 / m)
    middle = math.log((x / n) / (y / m))
    return Interval(
        value=value,
        low=min(math.exp(middle - width), value),
        high=max(math.exp(middle + width), value),
    )


def _difference(scores: Floats, reference: Floats) -> Interval | None:
    """The standardised mean difference, None where neither group's scores differ among them."""
    if np.ptp(scores) == np.ptp(reference) == 0.0:
        return None
    n, m = len(scores), len(reference)
    within = (n - 1) * scores.var(ddof=1) + (m - 1) * reference.var(ddof=1)
    value = float((scores.mean() - reference.mean()) / math.sqrt(within / (n + m - 2)))
    width = Z * math.sqrt((n + m) / (n * m) + value**2 / (2.0 * (n + m)))
    return Interval(value=value, low=value - width, high=value + width)
