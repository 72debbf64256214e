"""How surprising a difference is: p-values, critical values and intervals, by closed forms.

The scoring image holds no scipy. What monitoring needs of it are a few distributions with integer
parameters, for which the sums below are exact or better than any use made of them.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from credit_risk.documents import Document

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = Floats | npt.NDArray[np.int64]

CONFIDENCE = 0.95
"""Level of every interval in what is told of packages."""
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0)
"""So many standard errors an interval of that level reaches, where chance is normal."""
_CERTAIN_BELOW = 0.1
_THETA_BELOW = 1.18
_TERMS = 6


class Interval(Document):
    """A figure with the bounds of its interval at `CONFIDENCE`."""

    value: float
    low: float
    high: float


def chi_square_survival(x: float, df: int) -> float:
    """P(X > x) of a chi-square variable with ``df`` degrees of freedom, an integer of 0 or more.

    The finite sums of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.4.4 (odd) and
    26.4.5 (even). No degrees of freedom: nothing can differ, and the answer is 1.
    """
    if df <= 0 or x <= 0.0:
        return 1.0
    half = x / 2.0
    if df % 2 == 0:
        term = total = math.exp(-half)
        first = 1.0
    else:
        total = math.erfc(math.sqrt(half))
        if df == 1:
            return total
        term = math.exp(-half) * math.sqrt(half) / math.gamma(1.5)
        total += term
        first = 1.5
    for i in range((df - 2) // 2 if df % 2 == 0 else (df - 3) // 2):
        term *= half / (first + i)
        total += term
    return min(total, 1.0)


def chi_square_critical(level: float, df: int) -> float:
    """The x that a chi-square variable exceeds with probability ``level``, 0 < level < 1."""
    if df <= 0:
        return 0.0
    low, high = 0.0, float(df)
    while chi_square_survival(high, df) > level:
        low, high = high, 2.0 * high
    while (middle := (low + high) / 2.0) not in (low, high):
        if chi_square_survival(middle, df) > level:
            low = middle
        else:
            high = middle
    return high


def chi_square(first: Numbers, second: Numbers) -> tuple[float, int, float]:
    """Pearson's test that two samples have the same categories in the same shares.

    With Yates's correction where there is one degree of freedom. What is in neither sample is no
    category. Where a category is expected less than about once the p-value is rough.

    Args:
        first: shape (categories,), how often each is in the one sample.
        second: shape (categories,), and in the other.

    Returns:
        The statistic, its degrees of freedom, and the p-value; 0, 0 and 1 where nothing is left
        to compare.
    """
    table = np.array([first, second], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    totals = table.sum(axis=1, keepdims=True)
    df = table.shape[1] - 1
    if df < 1 or totals.min() <= 0:
        return 0.0, 0, 1.0
    expected = totals * table.sum(axis=0) / table.sum()
    apart = np.abs(table - expected)
    if df == 1:
        apart -= np.minimum(0.5, apart)
    statistic = float((apart**2 / expected).sum())
    return statistic, df, chi_square_survival(statistic, df)


def kolmogorov_smirnov(distance: float, n: float, m: float) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov ``distance`` of samples of n and m rows.

    The limiting distribution with Stephens's correction for finite samples (M. A. Stephens, JRSS B
    32, 1970), in whichever of its two series converges at once. With ties it is too large, never
    too small.
    """
    root = math.sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < _CERTAIN_BELOW:
        return 1.0
    if x < _THETA_BELOW:
        squares = (2 * np.arange(1, _TERMS) - 1) ** 2
        inner = float(np.exp(-squares * math.pi**2 / (8.0 * x * x)).sum())
        return min(max(1.0 - math.sqrt(2.0 * math.pi) / x * inner, 0.0), 1.0)
    j = np.arange(1, _TERMS)
    signs = np.where(j % 2 == 1, 2.0, -2.0)
    return min(max(float((signs * np.exp(-2.0 * j * j * x * x)).sum()), 0.0), 1.0)


def false_discovery(p_values: Floats) -> Floats:
    """P-values corrected for their number, shape as given.

    Of those at or below a level q, a share of at most q is expected to be false (Y. Benjamini and
    Y. Hochberg, JRSS B 57, 1995).
    """
    number = len(p_values)
    order = np.argsort(p_values, kind="stable")[::-1]
    scaled = p_values[order] * number / np.arange(number, 0, -1)
    corrected = np.empty(number)
    corrected[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return corrected


def wilson(successes: Numbers, rows: Numbers, confidence: float) -> tuple[Floats, Floats]:
    """Bounds of the shares ``successes / rows`` by Wilson's score interval (JASA 22, 1927).

    Args:
        successes: shape (n,), at most ``rows``.
        rows: shape (n,), all above 0.
        confidence: such as 0.95.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = np.asarray(successes) / rows
    middle = share + z * z / (2.0 * rows)
    width = z * np.sqrt(share * (1.0 - share) / rows + z * z / (4.0 * np.square(rows)))
    scale = 1.0 + z * z / rows
    low = np.where(share == 0.0, 0.0, (middle - width) / scale)
    high = np.where(share == 1.0, 1.0, (middle + width) / scale)
    return low, high


def share(which: npt.NDArray[np.bool_]) -> Interval:
    """The share of true ones among some, shape (n,), with Wilson's interval."""
    low, high = wilson(np.array([which.sum()]), np.array([len(which)]), CONFIDENCE)
    return Interval(value=float(which.mean()), low=float(low[0]), high=float(high[0]))
