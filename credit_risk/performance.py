"""Performance: how well PDs ranked, and how true they were, once outcomes are known, and before.

Outcomes come months later, and for accepted applications only: whoever was declined never had the
chance to pay. Figures of them are of that sample, and `Performance.caveats` says so each time.

`measure` compares PDs with outcomes. Its intervals are bootstrapped, with bias correction (B.
Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987), because the KS statistic of a resample
is larger than that of its sample on average. Even so that of a few hundred rows is held by 87
intervals of 100 (75 without the correction), of 4,000 by 93; all others by 95.

`estimate` needs no outcome: if PDs are true, each application of PD p counts as p of a default and
1 - p of none, and all figures follow (confidence-based performance estimation, CBPE, of NannyML).
It sees that applicants became harder to tell apart; it cannot see that the PDs ceased to be true.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from credit_risk import significance
from credit_risk.documents import Document
from credit_risk.policy import BandName, DecisionName
from credit_risk.significance import CONFIDENCE, Interval, Z

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from credit_risk.policy import Policy

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Numbers = Floats | Ints
    Indices = npt.NDArray[np.intp]

LEAST_ROWS = 100
LEAST_OF_EACH = 10
"""Fewer rows with an outcome, or fewer of either outcome, have no figures."""

DECILES = 10
LEAST_COVERAGE = 0.8
"""With outcomes of a smaller share of those accepted, a caveat says so."""

RESAMPLES = 500
_GROUPS = 2_000
_BLOCK = 50
_NORMAL = NormalDist()

ACCEPTED_ONLY = (
    "Outcomes exist for accepted applications only: figures are of those the model and people let "
    "through, and flatter or wrong it for all who apply."
)


class Figures(Document):
    """How PDs compare with outcomes.

    ``gini`` is ``2 auc - 1``; ``ks`` the greatest distance between the distribution functions of
    the PDs of those who defaulted and of those who did not; ``brier`` the mean squared difference
    of PD and outcome; ``calibration`` defaults observed over defaults expected, 1 if PDs are true.
    """

    auc: Interval
    gini: Interval
    ks: Interval
    brier: Interval
    default_rate: Interval
    calibration: Interval


class Differences(Document):
    """Figures of other PDs of the same rows, less those of the first; see `Figures`.

    Intervals are of the difference itself: both are of the same applicants in each resample.
    """

    auc: Interval
    gini: Interval
    ks: Interval
    brier: Interval
    calibration: Interval


class Tier(Document):
    """Rows of similar PD: ``default_rate`` should be ``mean_pd``, and its bounds are Wilson's.

    ``lower`` and ``upper`` are the least and the largest PD of a decile, or the edges of a band.
    """

    name: str
    lower: float
    upper: float
    rows: int
    mean_pd: float | None
    default_rate: float | None
    low: float | None
    high: float | None


class Band(Tier):
    """A band of the policy and its own decision, whatever rules and people made of it."""

    name: BandName
    decision: DecisionName


class Vintage(Document):
    """What became of the applications accepted in one month.

    ``coverage`` is the share with an outcome. A vintage is ``mature`` when the youngest of it had
    the whole outcome period: before, defaults are known and those who will pay are not.
    """

    month: str
    accepted: int
    rows: int
    coverage: float
    mature: bool
    mean_pd: float | None
    default_rate: float | None
    low: float | None
    high: float | None


class Performance(Document):
    """PDs and outcomes of a window.

    ``rows`` have an outcome, nearly all of them among the ``accepted``, of whom ``coverage`` is the
    share that has one. ``maturity`` is the share of those accepted whose
    vintage is mature, ``months`` the median time from decision to outcome. Without enough rows
    there are no ``figures``, and ``not_enough`` says what is missing.

    ``expected`` is the `estimate` for the same rows: what true PDs would have shown. It is what
    figures are to be compared with: among those accepted, who all have low PDs, any model ranks
    worse than among the applicants it was developed on.
    """

    rows: int
    defaults: int
    accepted: int
    coverage: float
    maturity: float
    months: float | None
    figures: Figures | None
    expected: Figures | None
    not_enough: str | None
    deciles: tuple[Tier, ...]
    bands: tuple[Band, ...]
    vintages: tuple[Vintage, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Decisions whose outcome is known.

    ``pds`` and ``defaulted`` (0 or 1) have shape (n,); ``decided`` and ``observed``, shape (n,),
    are the days of decision and of outcome as ``datetime64[D]``. ``accepted``, shape (n,), is
    whether it was accepted here, None that all were: somebody may have lent all the same.
    """

    pds: Floats
    defaulted: Ints
    decided: npt.NDArray[np.datetime64]
    observed: npt.NDArray[np.datetime64]
    accepted: npt.NDArray[np.bool_] | None = None


def measure(
    outcomes: Outcomes,
    accepted: Mapping[str, int],
    policy: Policy,
    *,
    today: np.datetime64,
    months: int = 12,
    seed: int = 0,
) -> Performance:
    """Compare PDs with outcomes.

    Args:
        outcomes: those of the window that are known.
        accepted: applications accepted in each month (``"2026-11"``) of the window.
        policy: whose bands.
        today: the day on which is asked.
        months: the outcome period: so long after the decision, who has not defaulted will be taken
            to have paid.
        seed: of the bootstrap.
    """
    rows, defaults = len(outcomes.pds), int(outcomes.defaulted.sum())
    vintages = _vintages(outcomes, accepted, today, months)
    total = sum(v.accepted for v in vintages)
    covered = rows if outcomes.accepted is None else int(outcomes.accepted.sum())
    mature = sum(v.accepted for v in vintages if v.mature)
    not_enough = lacking(rows, defaults)
    waited = (outcomes.observed - outcomes.decided) / np.timedelta64(1, "D")
    return Performance(
        rows=rows,
        defaults=defaults,
        accepted=total,
        coverage=covered / total if total else 0.0,
        maturity=mature / total if total else 0.0,
        months=float(np.median(waited)) * 12.0 / 365.25 if rows else None,
        figures=None if not_enough else figures(outcomes.pds, outcomes.defaulted, seed=seed),
        expected=estimate(outcomes.pds, seed=seed),
        not_enough=not_enough,
        deciles=() if not_enough else _deciles(outcomes.pds, outcomes.defaulted),
        bands=_bands(outcomes.pds, outcomes.defaulted, policy),
        vintages=vintages,
        caveats=tuple(_caveats(rows, covered, total, mature, months)),
    )


def differences(pds: Floats, others: Floats, defaulted: Ints, *, seed: int = 0) -> Differences:
    """What other PDs of the same rows do better or worse, with paired bootstrapped intervals.

    Args:
        pds: shape (n,), those compared with.
        others: shape (n,).
        defaulted: shape (n,), 0 or 1; some of both.
        seed: of the bootstrap.
    """
    rows, bad = len(pds), defaulted.astype(np.float64)
    sides = [_Side.of(values, bad) for values in (pds, others)]
    found = [side.cells.figures(side.cells.bad, side.cells.good) for side in sides]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES // _BLOCK):
        times = generator.multinomial(rows, np.full(rows, 1.0 / rows), _BLOCK)
        first, second = (side.figures(times, defaulted) for side in sides)
        drawn.append(second - first)
    apart = found[1] - found[0]
    resampled = np.concatenate(drawn, axis=1)
    auc, ks, brier, _, calibration = (
        Interval(value=value, low=low, high=high)
        for value, (low, high) in (
            (value, _bounds(values, value))
            for values, value in zip(resampled, apart[:, 0].tolist(), strict=True)
        )
    )
    gini = Interval(value=2 * auc.value, low=2 * auc.low, high=2 * auc.high)
    return Differences(auc=auc, gini=gini, ks=ks, brier=brier, calibration=calibration)


def estimate(pds: Floats, counts: Numbers | None = None, *, seed: int = 0) -> Figures | None:
    """What `measure` should find if the PDs are true: figures expected, and where they should lie.

    Args:
        pds: shape (n,).
        counts: shape (n,), how many applications have each; None is one.
        seed: of the simulated outcomes behind the intervals.

    Returns:
        None where fewer than `LEAST_ROWS` are given, or `LEAST_OF_EACH` of either outcome expected.
    """
    weights = np.ones(len(pds)) if counts is None else np.asarray(counts, dtype=np.float64)
    pds, weights = pds[weights > 0], weights[weights > 0]
    expected = float((pds * weights).sum())
    total = float(weights.sum())
    if total < LEAST_ROWS or min(expected, total - expected) < LEAST_OF_EACH:
        return None
    cells = _Cells.of(pds, weights * pds, weights * (1.0 - pds))
    pooled = cells.pooled()
    rows = np.round(pooled.bad + pooled.good).astype(np.int64)
    share = pooled.bad / (pooled.bad + pooled.good)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES // _BLOCK):
        defaults = generator.binomial(rows, share, (_BLOCK, len(rows)))
        drawn.append(pooled.figures(defaults, rows - defaults))
    simulated = np.concatenate(drawn, axis=1)
    ends = np.array([0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0])
    low, high = np.quantile(simulated, ends, axis=1)
    return _figures(cells.figures(cells.bad, cells.good), low, high)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Rows grouped by PD, ascending: how many defaulted and did not, and what is needed of each.

    ``bad_loss`` and ``good_loss`` are a cell's mean squared difference of PD and outcome for each.
    """

    pds: Floats
    bad: Floats
    good: Floats
    bad_loss: Floats
    good_loss: Floats

    @classmethod
    def of(cls, pds: Floats, bad: Floats, good: Floats) -> _Cells:
        """One cell for each PD; ``bad`` and ``good`` are rows, or parts of them, of each."""
        values, inverse = np.unique(pds, return_inverse=True)
        bads, goods = _summed(inverse, bad), _summed(inverse, good)
        return cls(values, bads, goods, (1.0 - values) ** 2, values**2)

    def pooled(self) -> _Cells:
        """At most `_GROUPS` cells of about as many rows each: as good for an interval."""
        if len(self.pds) <= _GROUPS:
            return self
        rows = self.bad + self.good
        below = np.cumsum(rows) - rows
        _, inverse = np.unique(np.floor(below * _GROUPS / rows.sum()), return_inverse=True)
        bad, good = _summed(inverse, self.bad), _summed(inverse, self.good)
        return _Cells(
            pds=_summed(inverse, self.pds * rows) / (bad + good),
            bad=bad,
            good=good,
            # What has no default, or none else, has no mean loss of them, and weighs nothing.
            bad_loss=_summed(inverse, self.bad_loss * self.bad) / np.where(bad > 0, bad, 1.0),
            good_loss=_summed(inverse, self.good_loss * self.good) / np.where(good > 0, good, 1.0),
        )

    def figures(self, defaults: Numbers, others: Numbers) -> Floats:
        """AUC, KS, Brier score, default rate and calibration, shape (5, samples).

        Samples of one outcome only, of which chance draws one now and then, are left out.

        Args:
            defaults: shape (cells,) or (samples, cells), how many in each.
            others: of the same shape.
        """
        bads, goods = np.atleast_2d(defaults), np.atleast_2d(others)
        both = (bads.sum(axis=1) > 0) & (goods.sum(axis=1) > 0)
        bad, good = bads[both], goods[both]
        rows_bad, rows_good = bad.sum(axis=1), good.sum(axis=1)
        below = np.cumsum(good, axis=1) - good
        pairs = (bad * (below + 0.5 * good)).sum(axis=1)
        apart = np.cumsum(bad, axis=1) / rows_bad[:, None]
        apart = apart - np.cumsum(good, axis=1) / rows_good[:, None]
        loss = bad @ self.bad_loss + good @ self.good_loss
        expected = (bad + good) @ self.pds
        total = rows_bad + rows_good
        return np.array(
            [
                pairs / (rows_bad * rows_good),
                np.abs(apart).max(axis=1),
                loss / total,
                rows_bad / total,
                rows_bad / expected,
            ]
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The cells of PDs, and which row is in which: ``order`` sorts rows by cell."""

    cells: _Cells
    order: Indices
    starts: Indices

    @classmethod
    def of(cls, pds: Floats, bad: Floats) -> _Side:
        """Of PDs and who defaulted, both shape (n,)."""
        order = np.argsort(pds, kind="stable")
        _, starts = np.unique(pds[order], return_index=True)
        return cls(_Cells.of(pds, bad, 1.0 - bad), order, starts)

    def figures(self, times: Ints, defaulted: Ints) -> Floats:
        """Of resamples that have each row so many ``times``, shape (samples, n)."""
        bad = np.add.reduceat((times * defaulted)[:, self.order], self.starts, axis=1)
        all_of_cell = np.add.reduceat(times[:, self.order], self.starts, axis=1)
        return self.cells.figures(bad, all_of_cell - bad)


def _summed(inverse: Indices, values: Floats) -> Floats:
    return np.bincount(inverse, weights=values).astype(np.float64)


def _bounds(resampled: Floats, found: float) -> tuple[float, float]:
    """The bias-corrected percentile interval of a bootstrapped figure."""
    number = len(resampled)
    below = float((resampled < found).mean() + 0.5 * (resampled == found).mean())
    bias = 2.0 * _NORMAL.inv_cdf(min(max(below, 1.0 / number), 1.0 - 1.0 / number))
    low, high = np.quantile(resampled, [_NORMAL.cdf(bias - Z), _NORMAL.cdf(bias + Z)])
    return float(low), float(high)


def _figures(found: Floats, low: Floats, high: Floats) -> Figures:
    auc, ks, brier, rate, calibration = (
        Interval(value=value, low=lowest, high=highest)
        for value, lowest, highest in zip(
            found[:, 0].tolist(), low.tolist(), high.tolist(), strict=True
        )
    )
    gini = Interval(value=2 * auc.value - 1, low=2 * auc.low - 1, high=2 * auc.high - 1)
    return Figures(
        auc=auc, gini=gini, ks=ks, brier=brier, default_rate=rate, calibration=calibration
    )


def figures(pds: Floats, defaulted: Ints, *, seed: int = 0) -> Figures:
    """Figures of PDs and outcomes with bootstrapped intervals.

    Args:
        pds: shape (n,).
        defaulted: shape (n,), 0 or 1; so many that `lacking` finds nothing.
        seed: of the bootstrap.
    """
    cells = _Cells.of(pds, defaulted.astype(np.float64), (1 - defaulted).astype(np.float64))
    pooled = cells.pooled()
    rows = len(pds)
    shares = np.concatenate([pooled.bad, pooled.good]) / rows
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES // _BLOCK):
        sample = generator.multinomial(rows, shares / shares.sum(), _BLOCK)
        bad, good = np.split(sample, 2, axis=1)
        drawn.append(pooled.figures(bad, good))
    resampled = np.concatenate(drawn, axis=1)
    found = pooled.figures(pooled.bad, pooled.good)
    low, high = np.array(
        [_bounds(values, float(value)) for values, (value,) in zip(resampled, found, strict=True)]
    ).T
    return _figures(cells.figures(cells.bad, cells.good), low, high)


def lacking(rows: int, defaults: int) -> str | None:
    """What is missing for figures of so many rows with an outcome; None if nothing is."""
    if rows < LEAST_ROWS:
        return f"{rows} outcomes are known, and {LEAST_ROWS} are needed"
    if min(defaults, rows - defaults) < LEAST_OF_EACH:
        return (
            f"{defaults} of {rows} defaulted, and {LEAST_OF_EACH} are needed that did and that "
            "did not"
        )
    return None


def _deciles(pds: Floats, defaulted: Ints) -> tuple[Tier, ...]:
    """Tenths of the rows, those of equal PD together in the tenth of their middle."""
    _, inverse, counts = np.unique(pds, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2.0
    place = np.minimum((middle * DECILES / len(pds)).astype(np.intp), DECILES - 1)[inverse]
    return tuple(
        Tier(
            name=str(decile + 1),
            lower=float(pds[place == decile].min()),
            upper=float(pds[place == decile].max()),
            **_rates(pds, defaulted, place == decile),
        )
        for decile in np.unique(place).tolist()
    )


def _bands(pds: Floats, defaulted: Ints, policy: Policy) -> tuple[Band, ...]:
    place = np.searchsorted([band.upper for band in policy.bands[:-1]], pds, side="right")
    return tuple(
        Band(
            name=band.name,
            decision=band.decision,
            lower=band.lower,
            upper=band.upper,
            **_rates(pds, defaulted, place == i),
        )
        for i, band in enumerate(policy.bands)
    )


def _vintages(
    outcomes: Outcomes, accepted: Mapping[str, int], today: np.datetime64, months: int
) -> tuple[Vintage, ...]:
    month = outcomes.decided.astype("datetime64[M]")
    known = Counter(np.datetime_as_string(month).tolist())
    ours = month if outcomes.accepted is None else month[outcomes.accepted]
    covered = Counter(np.datetime_as_string(ours).tolist())
    now = today.astype("datetime64[M]")
    found = []
    for name in sorted({*accepted, *known}):
        of_month = month == np.datetime64(name, "M")
        number = max(accepted.get(name, 0), covered[name])
        age = (now - np.datetime64(name, "M")).astype(int)
        rates = _rates(outcomes.pds, outcomes.defaulted, of_month)
        found.append(
            Vintage(
                month=name,
                accepted=number,
                coverage=covered[name] / number if number else 0.0,
                mature=bool(age > months),
                **rates,
            )
        )
    return tuple(found)


def _rates(pds: Floats, defaulted: Ints, which: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rows = int(which.sum())
    if rows == 0:
        return {"rows": 0, "mean_pd": None, "default_rate": None, "low": None, "high": None}
    rate = significance.share(defaulted[which] == 1)
    return {
        "rows": rows,
        "mean_pd": float(pds[which].mean()),
        "default_rate": rate.value,
        "low": rate.low,
        "high": rate.high,
    }


def _caveats(rows: int, covered: int, accepted: int, mature: int, months: int) -> list[str]:
    caveats = [ACCEPTED_ONLY]
    if covered < LEAST_COVERAGE * accepted:
        caveats.append(
            f"Of {accepted:,} accepted, {covered:,} have an outcome; those without may be "
            "otherwise."
        )
    if covered < rows:
        caveats.append(
            f"{rows - covered:,} of the outcomes are of applications that were not accepted here. "
            "They are in the figures, and in no coverage."
        )
    if mature < accepted:
        caveats.append(
            f"{accepted - mature:,} were accepted less than {months} months ago. Of them defaults "
            "are known first, and the default rate is not yet what it will be."
        )
    return caveats
