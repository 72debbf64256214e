"""Champion and challenger: two packages asked about the same applications, and how they differ.

One of the two decided, the other was only asked: of most applications the champion decided, of
those in a canary the challenger. Agreement, who would newly be approved or declined, first reasons,
scores, and what each takes to compute are known of every pair; how right PDs are, once outcomes are
known; approvals by groups, where groups are.

A share's interval is Wilson's, those of differences in performance and fairness are bootstrapped,
each resample with the same applicants on both sides. All are at 95 %.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from credit_risk import fairness, performance, significance, stability
from credit_risk.documents import Document
from credit_risk.fairness import Fairness
from credit_risk.performance import ACCEPTED_ONLY, Differences, Figures
from credit_risk.policy import DECISIONS, DecisionName
from credit_risk.significance import CONFIDENCE, Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

REASONS_MOST = 10
"""Changes of the first reason that are listed, the most frequent ones."""
STEPS = (-0.2, -0.1, -0.05, -0.02, -0.005, 0.005, 0.02, 0.05, 0.1, 0.2)
"""Edges of the differences in PD that are counted together."""
_RESAMPLES = 1_000
_APPROVE = DECISIONS.index("APPROVE")
_DECLINE = DECISIONS.index("DECLINE")

SHADOW_ONLY = (
    "No applicant was decided by the challenger: nobody knows what becomes of those whom it alone "
    "would approve."
)


class Moved(Document):
    """Applications on which the two do not agree in one way, and how risky each thinks they are.

    ``share`` is of all pairs. Outcomes are known of ``outcomes`` of them, of whom ``default_rate``
    defaulted; of those whom nobody approved there are none.
    """

    rows: int
    share: Interval
    champion_pd: float | None
    challenger_pd: float | None
    outcomes: int = 0
    default_rate: Interval | None = None


class ReasonChange(Document):
    """So many applications have one first reason with the champion, another with the challenger."""

    champion: str
    challenger: str
    rows: int


class FirstReasons(Document):
    """First reasons of the applications for which both give reasons.

    ``same`` is the share of them with the same first one; None where there are no such.
    """

    rows: int
    same: Interval | None
    changes: tuple[ReasonChange, ...]


class ScoreBin(Document):
    """Applications of similar PD: how many of the champion's PDs, and of the challenger's."""

    lower: float
    upper: float
    champion: int
    challenger: int


class Apart(Document):
    """So many applications whose PD differs by that much; a bound that is None is open."""

    lower: float | None
    upper: float | None
    rows: int


class Scores(Document):
    """PDs of the challenger beside those of the champion.

    ``psi`` is of the challenger's PDs in tenths of the champion's; ``mean_difference`` and the
    quantiles are of the challenger's less the champion's; ``rank_correlation`` is Spearman's, None
    where the PDs of one of them are all alike.
    """

    psi: float
    mean_difference: float
    mean_absolute_difference: float
    p05: float
    p50: float
    p95: float
    rank_correlation: float | None
    bins: tuple[ScoreBin, ...]
    differences: tuple[Apart, ...]


class Spread(Document):
    """Milliseconds of a core that an application takes."""

    mean: float
    p50: float
    p99: float


class Latency(Document):
    """What an application costs: both were timed on the same rows, in one process.

    ``ratio`` is the challenger's mean over the champion's.
    """

    rows: int
    champion_ms: Spread
    challenger_ms: Spread
    ratio: float


class Failures(Document):
    """Applications that a package was asked about and could not answer, by kind of error.

    ``rate`` is None where it was asked about none.
    """

    asked: int
    failed: int
    rate: Interval | None
    kinds: dict[str, int]


class Judged(Document):
    """PDs of both held against the same outcomes.

    ``differences`` are the challenger's figures less the champion's. Without enough outcomes there
    are no figures, and ``not_enough`` says what is missing.
    """

    rows: int
    defaults: int
    canary_rows: int
    champion: Figures | None
    challenger: Figures | None
    differences: Differences | None
    not_enough: str | None


class RatioChange(Document):
    """A group's approval-rate ratio with each of them; ``times`` is the challenger's over it.

    None where there is none: of the reference, of a group of a few, or where nobody is approved.
    """

    name: str
    champion: float | None
    challenger: float | None
    times: Interval | None


class FairnessChange(Document):
    """Approvals by the groups of one attribute, as each of them would decide.

    ``worst`` is the least of the groups' ``times``, None where there is none.
    """

    attribute: str
    reference: str | None
    champion: Fairness
    challenger: Fairness
    changes: tuple[RatioChange, ...]
    worst: Interval | None


class Contest(Document):
    """What is known of a challenger beside its champion.

    ``rows`` were answered by both, ``canary_rows`` of them decided by the challenger; ``skipped``
    decisions were left out because it was too far behind. ``agreement`` is the share with the same
    decision, ``band_agreement`` that with the same band. ``from_to`` counts by the champion's
    decision and the challenger's. Where no row was answered by both, what needs one is None.
    """

    champion: str
    challenger: str
    rows: int
    canary_rows: int
    skipped: int
    champion_failures: Failures
    challenger_failures: Failures
    agreement: Interval | None
    band_agreement: Interval | None
    from_to: dict[DecisionName, dict[DecisionName, int]]
    newly_approved: Moved | None
    no_longer_approved: Moved | None
    newly_declined: Moved | None
    no_longer_declined: Moved | None
    first_reasons: FirstReasons | None
    scores: Scores | None
    latency: Latency | None
    outcomes: Judged
    fairness: tuple[FairnessChange, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What one package answers: each array of shape (n,), a row for each application.

    ``decisions`` are places in `DECISIONS`, ``bands`` in `credit_risk.policy.BAND_ORDER`;
    ``reasons`` first reason codes, "" where there is none; ``seconds`` of a core, NaN where it was
    not timed beside the other one.
    """

    pds: Floats
    decisions: Ints
    bands: Ints
    reasons: npt.NDArray[np.str_]
    seconds: Floats

    def __len__(self) -> int:
        return len(self.pds)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Applications that both answered, and how many one of them could not.

    ``canary`` is true, shape (n,), where the challenger decided. ``errors`` are by side, then by
    kind of error.
    """

    champion: Side
    challenger: Side
    canary: Bools
    champion_errors: Mapping[str, int] = field(default_factory=dict)
    challenger_errors: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0


class Known(NamedTuple):
    """Pairs whose outcome is known; ``defaulted`` is 0 or 1, shape (n,)."""

    pairs: Pairs
    defaulted: Ints


class Grouped(NamedTuple):
    """Pairs whose applicants' groups are known by one attribute; see `fairness.measure`."""

    attribute: str
    pairs: Pairs
    codes: Ints
    names: Sequence[str]


class CutOffs(NamedTuple):
    """From which PD on each declines."""

    champion: float
    challenger: float


def compare(
    champion: str,
    challenger: str,
    pairs: Pairs,
    cut_offs: CutOffs,
    *,
    known: Known | None = None,
    grouped: Sequence[Grouped] = (),
    seed: int = 0,
) -> Contest:
    """Compare two packages.

    Args:
        champion: its version.
        challenger: its version.
        pairs: applications that both were asked about.
        cut_offs: of their policies.
        known: those with an outcome, which may be others than ``pairs``.
        grouped: those with a group, by each attribute.
        seed: of the bootstraps.
    """
    rows, one, other = len(pairs.canary), pairs.champion, pairs.challenger
    canary_rows = int(pairs.canary.sum())
    judged = _judged(known, seed)
    caveats = [ACCEPTED_ONLY] if judged.rows else []
    if rows and not canary_rows:
        caveats.append(SHADOW_ONLY)
    if pairs.skipped:
        caveats.append(
            f"{pairs.skipped:,} records were skipped: the challenger was too far behind."
        )
    return Contest(
        champion=champion,
        challenger=challenger,
        rows=rows,
        canary_rows=canary_rows,
        skipped=pairs.skipped,
        champion_failures=_failures(rows, pairs.champion_errors),
        challenger_failures=_failures(rows, pairs.challenger_errors),
        agreement=_share(one.decisions == other.decisions),
        band_agreement=_share(one.bands == other.bands),
        from_to={
            mine: {
                theirs: int(((one.decisions == i) & (other.decisions == j)).sum())
                for j, theirs in enumerate(DECISIONS)
            }
            for i, mine in enumerate(DECISIONS)
        },
        newly_approved=_moved(pairs, known, _APPROVE, newly=True),
        no_longer_approved=_moved(pairs, known, _APPROVE, newly=False),
        newly_declined=_moved(pairs, known, _DECLINE, newly=True),
        no_longer_declined=_moved(pairs, known, _DECLINE, newly=False),
        first_reasons=_first_reasons(one.reasons, other.reasons) if rows else None,
        scores=_scores(one.pds, other.pds) if rows else None,
        latency=_latency(one.seconds, other.seconds),
        outcomes=judged,
        fairness=tuple(_fairness(of, cut_offs, seed) for of in grouped if len(of.codes)),
        caveats=tuple(caveats),
    )


def _share(which: Bools) -> Interval | None:
    """The share of true ones with its interval; None of nothing."""
    return significance.share(which) if len(which) else None


def _failures(answered: int, errors: Mapping[str, int]) -> Failures:
    failed = sum(errors.values())
    asked = answered + failed
    return Failures(
        asked=asked,
        failed=failed,
        rate=_share(np.arange(asked) < failed),
        kinds=dict(Counter(errors).most_common()),
    )


def _changed(pairs: Pairs, decision: int, *, newly: bool) -> Bools:
    """Whom the challenger alone decides so, or, if not ``newly``, the champion alone."""
    mine, theirs = pairs.champion.decisions == decision, pairs.challenger.decisions == decision
    found: Bools = theirs & ~mine if newly else mine & ~theirs
    return found


def _moved(pairs: Pairs, known: Known | None, decision: int, *, newly: bool) -> Moved | None:
    which = _changed(pairs, decision, newly=newly)
    share = _share(which)
    if share is None:
        return None
    rows = int(which.sum())
    moved = Moved(
        rows=rows,
        share=share,
        champion_pd=float(pairs.champion.pds[which].mean()) if rows else None,
        challenger_pd=float(pairs.challenger.pds[which].mean()) if rows else None,
    )
    if known is None:
        return moved
    defaulted = known.defaulted[_changed(known.pairs, decision, newly=newly)]
    rate = _share(defaulted.astype(np.bool_))
    return moved.model_copy(update={"outcomes": len(defaulted), "default_rate": rate})


def _first_reasons(one: npt.NDArray[np.str_], other: npt.NDArray[np.str_]) -> FirstReasons:
    both = (one != "") & (other != "")
    mine, theirs = one[both], other[both]
    changed = mine != theirs
    counted = Counter(zip(mine[changed].tolist(), theirs[changed].tolist(), strict=True))
    frequent = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:REASONS_MOST]
    return FirstReasons(
        rows=int(both.sum()),
        same=_share(~changed),
        changes=tuple(
            ReasonChange(champion=before, challenger=after, rows=rows)
            for (before, after), rows in frequent
        ),
    )


def _scores(one: Floats, other: Floats) -> Scores:
    apart = other - one
    p05, p50, p95 = np.quantile(apart, (0.05, 0.5, 0.95)).tolist()
    inner, mine, theirs = stability.tenths(one, other)
    edges = [0.0, *inner.tolist(), 1.0]
    steps = np.bincount(np.searchsorted(STEPS, apart, side="right"), minlength=len(STEPS) + 1)
    return Scores(
        psi=stability.psi(theirs, mine / len(one)),
        mean_difference=float(apart.mean()),
        mean_absolute_difference=float(np.abs(apart).mean()),
        p05=p05,
        p50=p50,
        p95=p95,
        rank_correlation=_rank_correlation(one, other),
        bins=tuple(
            ScoreBin(lower=lower, upper=upper, champion=before, challenger=after)
            for lower, upper, before, after in zip(
                edges[:-1], edges[1:], mine.tolist(), theirs.tolist(), strict=True
            )
        ),
        differences=tuple(
            Apart(lower=lower, upper=upper, rows=rows)
            for lower, upper, rows in zip(
                (None, *STEPS), (*STEPS, None), steps.tolist(), strict=True
            )
        ),
    )


def _rank_correlation(one: Floats, other: Floats) -> float | None:
    """Spearman's: Pearson's correlation of ranks, those of equal values being their mean."""
    if np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return None
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Floats = np.cumsum(counts) - (counts - 1) / 2.0
    return middle[inverse]


def _latency(one: Floats, other: Floats) -> Latency | None:
    timed = np.isfinite(one) & np.isfinite(other)
    mine, theirs = one[timed] * 1_000.0, other[timed] * 1_000.0
    if not mine.sum() > 0.0:
        return None
    return Latency(
        rows=int(timed.sum()),
        champion_ms=_spread(mine),
        challenger_ms=_spread(theirs),
        ratio=float(theirs.sum() / mine.sum()),
    )


def _spread(milliseconds: Floats) -> Spread:
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99)).tolist()
    return Spread(mean=float(milliseconds.mean()), p50=p50, p99=p99)


def _judged(known: Known | None, seed: int) -> Judged:
    defaulted = np.zeros(0, dtype=np.int64) if known is None else known.defaulted
    rows, defaults = len(defaulted), int(defaulted.sum())
    not_enough = performance.lacking(rows, defaults)
    champion = challenger = differences = None
    if known is not None and not_enough is None:
        one, other = known.pairs.champion.pds, known.pairs.challenger.pds
        champion = performance.figures(one, defaulted, seed=seed)
        challenger = performance.figures(other, defaulted, seed=seed)
        differences = performance.differences(one, other, defaulted, seed=seed)
    return Judged(
        rows=rows,
        defaults=defaults,
        canary_rows=0 if known is None else int(known.pairs.canary.sum()),
        champion=champion,
        challenger=challenger,
        differences=differences,
        not_enough=not_enough,
    )


def _fairness(of: Grouped, cut_offs: CutOffs, seed: int) -> FairnessChange:
    sides = (of.pairs.champion, of.pairs.challenger)
    approved = [side.decisions == _APPROVE for side in sides]
    # The largest group is the same on both sides: they are the same applicants.
    champion, challenger = (
        fairness.measure(of.codes, of.names, yes, side.pds, cut_off, attribute=of.attribute)
        for yes, side, cut_off in zip(approved, sides, cut_offs, strict=True)
    )
    times = _times(of, approved[0], approved[1], champion, seed)
    changes = tuple(
        RatioChange(
            name=before.name,
            champion=None if before.ratio is None else before.ratio.value,
            challenger=None if after.ratio is None else after.ratio.value,
            times=times.get(before.name),
        )
        for before, after in zip(champion.groups, challenger.groups, strict=True)
    )
    return FairnessChange(
        attribute=of.attribute,
        reference=champion.reference,
        champion=champion,
        challenger=challenger,
        changes=changes,
        worst=min(times.values(), key=lambda found: found.value, default=None),
    )


def _times(
    of: Grouped, one: Bools, other: Bools, measured: Fairness, seed: int
) -> dict[str, Interval]:
    """How many times each group's ratio with the champion that with the challenger is.

    Applicants of a group are alike but for what each of the two makes of them, so that a resample
    of them is one of four numbers for each group.
    """
    large = [group.name for group in measured.groups]
    if measured.reference is None or len(large) < 2:  # noqa: PLR2004 - a group and the reference
        return {}
    places = [list(of.names).index(name) for name in large]
    cells = np.array(
        [
            [((of.codes == place) & (one == mine) & (other == theirs)).sum() for place in places]
            for mine in (False, True)
            for theirs in (False, True)
        ]
    )
    reference = large.index(measured.reference)
    found = _ratios_apart(cells[None], reference)[0]
    generator = np.random.default_rng(seed)
    total = int(cells.sum())
    drawn = generator.multinomial(total, cells.ravel() / total, _RESAMPLES)
    resampled = _ratios_apart(drawn.reshape(-1, *cells.shape), reference)
    half = (1.0 - CONFIDENCE) / 2.0
    times = {}
    for place, name in enumerate(large):
        values = resampled[:, place][np.isfinite(resampled[:, place])]
        if place == reference or not np.isfinite(found[place]) or not len(values):
            continue
        low, high = np.quantile(values, (half, 1.0 - half)).tolist()
        value = float(found[place])
        times[name] = Interval(value=value, low=min(low, value), high=max(high, value))
    return times


def _ratios_apart(cells: Ints, reference: int) -> Floats:
    """The challenger's ratios over the champion's, shape (samples, groups); NaN of none.

    Args:
        cells: shape (samples, 4, groups): neither approves, the challenger alone, the champion
            alone, both.
        reference: the place of the reference group.
    """
    mine, theirs = cells[:, 2] + cells[:, 3], cells[:, 1] + cells[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Sizes of groups are the same on both sides, and cancel out.
        each = theirs / mine
        apart: Floats = each / each[:, [reference]]
    apart[~np.isfinite(apart)] = np.nan
    return apart
