"""Drift: whether applicants and scores are still those the model was developed on.

What is compared is counted first. A `Reference` lays a fine grid over a package's profile: for
each number the profile's quantiles and bin edges, for each category the schema's list, for the
score a grid of log-odds, and for all what is missing or unseen. `Counts` are how many rows fell
into each cell of it. Those of short windows add up to that of a long one, those of many applicants
are nobody's data, and `Reference.compare` needs nothing else.

Of each field and of the score there are:

- the population stability index of `stability`, over the profile's bins, one bin for missing and
  one for unseen values.
- what of it chance alone exceeds. The level is `LEVEL` shared among everything compared, so that a
  portfolio of many fields raises no more false alarms than one of few.
- a verdict: the usual lines at 0.1 and 0.25, and only where the index exceeds what chance does.
  Where even the upper line is within chance, there are too few rows for any verdict.
- Kolmogorov and Smirnov's test for numbers, chi-square for categories, for numbers of few values,
  to whose ties the former is blind, and for the score, corrected for their number. They decide
  nothing: with enough rows every difference is significant.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from credit_risk import significance, stability
from credit_risk.documents import Document
from credit_risk.errors import CountsOutdated, EvidenceInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from credit_risk.package import ModelPackage
    from credit_risk.profile import Marginal, Profile
    from credit_risk.schema import FieldSpec, Schema

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Indices = npt.NDArray[np.intp]

MODERATE = 0.1
MAJOR = 0.25
"""The usual lines of the PSI (N. Siddiqi, Intelligent Credit Scoring): stable below the first."""

LEVEL = 0.01
"""Probability that any PSI of a population that did not drift exceeds its critical value."""

FALSE_DISCOVERIES = 0.05
"""Expected share of false ones among the differences called significant."""

FEW_VALUES = 10
"""A number with so few values in the reference is tested as a category is, by its bins."""

LEAST_ROWS = 100
"""Fewer rows than this have no verdict: ten for each of ten bins."""

Verdict = Literal["stable", "too-few", "moderate", "major"]
_WORSE: tuple[Verdict, ...] = ("stable", "too-few", "moderate", "major")
_DRIFTED = {"moderate", "major"}

_MISSING, _UNSEEN, _FIRST = 0, 1, 2
_DIGEST_BYTES = 8
_LOG_ODDS = np.arange(-200, 201) / 20.0
"""PDs from 0.00005 to 0.99995 in steps of at most 0.0125."""


class Bin(Document):
    """A bin as it is drawn: the share of rows in the reference and now, and its part of the PSI.

    ``lower`` (exclusive) and ``upper`` (inclusive) are None for categories, for missing and unseen
    values, and where a bin is open.
    """

    label: str
    lower: float | None = None
    upper: float | None = None
    reference: float
    share: float
    psi: float


class Shares(Document):
    """Shares of rows in the reference and now."""

    reference: float
    share: float


class Comparison(Document):
    """One field, or the score, compared with the reference.

    ``rows`` and ``reference_rows`` count missing values. ``critical`` is what PSI exceeds by chance
    as seldom as `LEVEL` says, None of no rows. ``leading`` is the label of the bin with the largest
    part of the PSI. ``statistic`` is the Kolmogorov-Smirnov distance or chi-square, and with its
    p-values None where there is nothing to compare; ``p_corrected`` is by
    `significance.false_discovery`.

    ``missing`` is what was not given; ``unseen``, for categories, what the schema does not list;
    ``out_of_range``, for numbers, what is beyond the outermost quantiles of the reference, as at
    most one in a thousand is there, if the profile has 1,000 of them.
    """

    field: str
    verdict: Verdict
    psi: float
    critical: float | None
    rows: int
    reference_rows: int
    test: Literal["kolmogorov-smirnov", "chi-square"]
    statistic: float | None
    p_value: float | None
    p_corrected: float | None
    significant: bool
    leading: str | None
    missing: Shares
    unseen: Shares | None
    out_of_range: Shares | None
    bins: tuple[Bin, ...]


class Drift(Document):
    """A population compared with the reference: every field in the schema's order, and the score.

    ``verdict`` is the worst of theirs; ``score`` is None where the profile has no scores.
    """

    verdict: Verdict
    recommendation: str
    rows: int
    fields: tuple[Comparison, ...]
    score: Comparison | None

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of what is not stable, the largest PSI first."""
        compared = [*self.fields, *([] if self.score is None else [self.score])]
        found = [c for c in compared if c.verdict in _DRIFTED]
        return tuple(c.field for c in sorted(found, key=lambda c: -c.psi))


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many applicants fell into each cell of a reference's grid.

    ``grid`` tells which grid, ``cells`` are the numbers, those of one field after another's.
    """

    grid: bytes
    cells: Ints

    def __add__(self, other: Counts) -> Counts:
        if self.grid != other.grid:
            raise ValueError("these were counted against different references")
        return Counts(self.grid, self.cells + other.cells)

    def to_bytes(self) -> bytes:
        """As a few thousand bytes, for `Reference.read`."""
        return self.grid + zlib.compress(self.cells.astype("<i8").tobytes(), 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The cells of one field, or of the score, and what the reference says of them.

    The first two are for what is missing and what is unseen. A category has one more for each of
    the schema's list. Numbers have ``points``, ascending, and cell 2k holds what lies between the
    points k - 1 and k, cell 2k + 1 what is the point k: mass points are many, and what moves from
    one to between two has moved.

    ``bin_of_cell`` is the place in ``labels`` of each cell, ``shares`` the reference's share of
    each. ``lowest`` and ``highest`` bound its distribution function at the end of each cell of
    numbers, as closely as the profile gives it, and ``beyond`` is its share in the outermost ones.
    """

    name: str
    start: int
    stop: int
    rows: int
    labels: tuple[str, ...]
    shares: Floats
    bin_of_cell: Indices
    edges: tuple[float, ...] = ()
    points: Floats | None = None
    beyond: float | None = None
    lowest: Floats | None = None
    highest: Floats | None = None

    def count(self, values: Floats) -> Ints:
        """How many of ``values``, shape (n,), are in each cell."""
        present = values[~np.isnan(values)]
        if self.points is None:
            places = present.astype(np.intp) + _FIRST
            places[present < 0] = _UNSEEN
        else:
            place = np.searchsorted(self.points, stability.lowered(present), side="left")
            point = self.points[np.minimum(place, len(self.points) - 1)]
            reached = np.abs(point - present) <= np.abs(present) * stability.PRECISION
            places = 2 * place + reached + _FIRST
        counts = np.bincount(places, minlength=self.stop - self.start)
        counts[_MISSING] = len(values) - len(present)
        return counts

    def bins(self, counts: Ints) -> Ints:
        """How many are in each bin, shape (labels,)."""
        by_bin = np.bincount(self.bin_of_cell, weights=counts, minlength=len(self.labels))
        return by_bin.astype(np.int64)


class Reference:
    """A package's reference distribution, laid out for counting; safe to share.

    Args:
        profile: the package's.
        schema: its schema.
        score_rows: how many rows the profile's distribution of scores was made of: those held out
            from training. None takes them all.
    """

    def __init__(self, profile: Profile, schema: Schema, score_rows: int | None = None) -> None:
        described = list(zip(schema.fields, profile.marginals, strict=True))
        laid: list[_Cells] = []
        for spec, marginal in described:
            start = laid[-1].stop if laid else 0
            make = _category if spec.is_category else _number
            laid.append(make(spec, marginal, profile.rows, start))
        self._scored = bool(profile.score_bins)
        if self._scored:
            laid.append(_score(profile, score_rows or profile.rows, laid[-1].stop))
        self._cells = tuple(laid)
        self._size = laid[-1].stop

    @classmethod
    def of(cls, package: ModelPackage) -> Reference:
        """The reference of a package."""
        return cls(package.profile, package.schema, package.metrics.get("hold_out", {}).get("rows"))

    @cached_property
    def grid(self) -> bytes:
        """Tells grids apart: the same cells, the same eight bytes."""
        digest = hashlib.sha256()
        for cells in self._cells:
            digest.update(f"{cells.name} {cells.labels}".encode())
            digest.update(b"" if cells.points is None else cells.points.tobytes())
        return digest.digest()[:_DIGEST_BYTES]

    @property
    def empty(self) -> Counts:
        """Those of nobody."""
        return Counts(self.grid, np.zeros(self._size, dtype=np.int64))

    def count(self, rows: Floats, pds: Floats) -> Counts:
        """Count applicants.

        Args:
            rows: shape (n, fields), see `Schema.vector`; numbers may be outside their range.
            pds: shape (n,), NaN where there is none.
        """
        columns = [*rows.T, pds] if self._scored else rows.T
        counts = [cells.count(c) for cells, c in zip(self._cells, columns, strict=True)]
        return Counts(self.grid, np.concatenate(counts))

    def total(self, windows: Iterable[Counts]) -> Counts:
        """All of them as one; raises ValueError where one was counted on another grid."""
        return sum(windows, start=self.empty)

    def read(self, content: bytes) -> Counts:
        """What `Counts.to_bytes` wrote.

        Raises:
            EvidenceInvalid: these are no counts on this reference's grid.
        """
        try:
            cells = np.frombuffer(zlib.decompress(content[_DIGEST_BYTES:]), dtype="<i8")
        except (zlib.error, ValueError) as error:
            raise EvidenceInvalid("stored counts of applicants cannot be read") from error
        if content[:_DIGEST_BYTES] != self.grid or len(cells) != self._size:
            raise CountsOutdated(
                "stored counts of applicants are not on the grid of this model's profile: "
                "`python -m monitoring run --recount` counts them anew"
            )
        return Counts(self.grid, cells.astype(np.int64))

    def scores(self, counts: Counts) -> tuple[Floats, Ints]:
        """PDs, ascending, and how many applicants had about each, both shape (cells,).

        For `performance.estimate`; no PD is off by more than 0.00625. Both are empty where the
        profile has no scores.
        """
        cells = self._cells[-1]
        if not self._scored or cells.points is None:
            return np.empty(0), np.empty(0, dtype=np.int64)
        ends = np.concatenate([[0.0], cells.points, [1.0]])
        pds = np.empty(cells.stop - cells.start - _FIRST)
        pds[::2], pds[1::2] = (ends[:-1] + ends[1:]) / 2.0, cells.points
        return pds, counts.cells[cells.start + _FIRST : cells.stop]

    def rows(self, counts: Counts) -> int:
        """How many applicants were counted."""
        first = self._cells[0]
        return int(first.bins(counts.cells[: first.stop]).sum())

    def compare(self, counts: Counts) -> Drift:
        """Say how far applicants are from the reference; raises ValueError on another grid."""
        here = (self.empty + counts).cells
        level = LEVEL / len(self._cells)
        found = [_compare(cells, here[cells.start : cells.stop], level) for cells in self._cells]
        tested = [i for i, comparison in enumerate(found) if comparison.p_value is not None]
        p_values = np.array([found[i].p_value for i in tested], dtype=np.float64)
        for i, p in zip(tested, significance.false_discovery(p_values).tolist(), strict=True):
            corrected = {"p_corrected": p, "significant": p <= FALSE_DISCOVERIES}
            found[i] = found[i].model_copy(update=corrected)
        verdict = max((c.verdict for c in found), key=_WORSE.index)
        rows = self.rows(counts)
        return Drift(
            verdict=verdict,
            recommendation=_recommend(verdict, found, rows),
            rows=rows,
            fields=tuple(found[: len(found) - self._scored]),
            score=found[-1] if self._scored else None,
        )


def _number(spec: FieldSpec, marginal: Marginal, rows: int, start: int) -> _Cells:
    quantiles, edges = np.array(marginal.quantiles), np.array(marginal.edges)
    points = np.unique(np.concatenate([quantiles, edges]))
    # Quantile i is the least value at which the distribution function reaches (i + 1/2) / n. So
    # where it has passed j of them it is less than half a step from j / n; at the edges of bins,
    # whose shares are exact, it is known.
    passed = np.empty(2 * len(points) + 1)
    passed[:-1:2] = np.searchsorted(quantiles, points, side="left")
    passed[1::2] = np.searchsorted(quantiles, points, side="right")
    passed[-1] = len(quantiles)
    lowest = np.maximum(passed - 0.5, 0.0) / len(quantiles)
    highest = np.minimum(passed + 0.5, len(quantiles)) / len(quantiles)
    present = 1.0 - marginal.missing
    if present > 0.0:
        at_edges = 2 * np.searchsorted(points, edges) + 1
        exact = np.cumsum(marginal.bins[:-1]) / present
        lowest[at_edges] = highest[at_edges] = exact
    lowest[-1] = highest[-1] = 1.0
    is_continuous = len(points) > FEW_VALUES
    return _Cells(
        name=spec.name,
        start=start,
        stop=start + _FIRST + len(passed),
        rows=rows,
        labels=(*_intervals(marginal.edges), "missing", "unseen"),
        shares=np.array([*marginal.bins, marginal.missing, 0.0]),
        bin_of_cell=_bins_of_points(points, edges),
        edges=marginal.edges,
        points=points,
        lowest=lowest if is_continuous else None,
        highest=highest if is_continuous else None,
        beyond=1.0 / len(quantiles),
    )


def _category(spec: FieldSpec, marginal: Marginal, rows: int, start: int) -> _Cells:
    number = len(spec.categories)
    return _Cells(
        name=spec.name,
        start=start,
        stop=start + _FIRST + number,
        rows=rows,
        labels=(*spec.categories, "missing", "unseen"),
        shares=np.array([*marginal.bins, marginal.missing, 0.0]),
        bin_of_cell=np.array([number, number + 1, *range(number)]),
    )


def _score(profile: Profile, rows: int, start: int) -> _Cells:
    edges = np.array(profile.score_edges)
    points = np.unique(np.concatenate([1.0 / (1.0 + np.exp(-_LOG_ODDS)), edges]))
    return _Cells(
        name=stability.SCORE,
        start=start,
        stop=start + _FIRST + 2 * len(points) + 1,
        rows=rows,
        labels=(*_intervals(profile.score_edges), "missing", "unseen"),
        shares=np.array([*profile.score_bins, 0.0, 0.0]),
        bin_of_cell=_bins_of_points(points, edges),
        edges=profile.score_edges,
        points=points,
    )


def _bins_of_points(points: Floats, edges: Floats) -> Indices:
    inner = np.searchsorted(edges, points, side="left")
    bins = len(edges) + 1
    return np.concatenate([[bins, bins + 1], np.repeat(inner, 2), [bins - 1]])


def _intervals(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["all"]
    inner = (f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges))
    return [f"up to {edges[0]:.6g}", *inner, f"above {edges[-1]:.6g}"]


def _compare(cells: _Cells, counts: Ints, level: float) -> Comparison:
    by_bin = cells.bins(counts)
    rows = int(by_bin.sum())
    share = by_bin / max(rows, 1)
    parts = np.zeros(len(by_bin))
    critical = statistic = p_value = None
    if rows > 0:
        parts = stability.parts(by_bin, cells.shares)
        critical = stability.critical(cells.shares, rows, cells.rows, level)
        statistic, p_value = _test(cells, counts, by_bin)
    verdict = _verdict(rows, psi := float(parts.sum()), critical)
    return Comparison(
        field=cells.name,
        verdict=verdict,
        psi=psi,
        critical=critical,
        rows=rows,
        reference_rows=cells.rows,
        test="chi-square" if cells.lowest is None else "kolmogorov-smirnov",
        statistic=statistic,
        p_value=p_value,
        p_corrected=None,
        significant=False,
        leading=cells.labels[int(parts.argmax())] if psi > 0 else None,
        missing=Shares(reference=cells.shares[-2], share=share[-2]),
        unseen=None if cells.points is not None else Shares(reference=0.0, share=share[-1]),
        out_of_range=None
        if cells.beyond is None
        else Shares(reference=cells.beyond, share=int(counts[_FIRST] + counts[-1]) / max(rows, 1)),
        bins=_drawn(cells, share, parts),
    )


def _verdict(rows: int, psi: float, critical: float | None) -> Verdict:
    if critical is None or rows < LEAST_ROWS or critical > MAJOR:
        return "too-few"
    if psi < MODERATE or psi <= critical:
        return "stable"
    return "moderate" if psi < MAJOR else "major"


def _test(cells: _Cells, counts: Ints, by_bin: Ints) -> tuple[float | None, float | None]:
    """Statistic and p-value of the field's test, None where one side has nothing to compare."""
    if cells.lowest is None or cells.highest is None:
        statistic, df, p_value = significance.chi_square(cells.shares * cells.rows, by_bin)
        return (statistic, p_value) if df else (None, None)
    here = np.cumsum(counts[_FIRST:])
    reference_rows = cells.rows * (1.0 - cells.shares[-2])
    if here[-1] == 0 or reference_rows == 0:
        return None, None
    reached = here / here[-1]
    distance = float(np.maximum(reached - cells.highest, cells.lowest - reached).max())
    distance = max(distance, 0.0)
    return distance, significance.kolmogorov_smirnov(distance, int(here[-1]), reference_rows)


def _drawn(cells: _Cells, share: Floats, parts: Floats) -> tuple[Bin, ...]:
    edges = cells.edges
    return tuple(
        Bin(
            label=label,
            lower=edges[i - 1] if 0 < i <= len(edges) else None,
            upper=edges[i] if i < len(edges) else None,
            reference=float(cells.shares[i]),
            share=float(share[i]),
            psi=float(parts[i]),
        )
        for i, label in enumerate(cells.labels)
        if cells.points is None or label != cells.labels[-1]
    )


def _recommend(verdict: Verdict, found: Sequence[Comparison], rows: int) -> str:
    if verdict == "too-few":
        many = "1 applicant is" if rows == 1 else f"{rows:,} applicants are"
        return f"{many} too few to tell drift from chance. Compare more of them."
    if verdict == "stable":
        return "No drift: applicants and scores are those of the reference."
    worst = sorted((c for c in found if c.verdict in _DRIFTED), key=lambda c: -c.psi)
    names = ", ".join(f"{c.field} (most in: {c.leading})" for c in worst)
    if verdict == "moderate":
        return f"Watch {names}: compare the next window before doing anything."
    return (
        f"Find out why these changed: {names}. First whether the data are right; "
        "if they are, check whether the model should be retrained."
    )
