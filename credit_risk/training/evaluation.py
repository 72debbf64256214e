"""How good a model's probabilities of default are on rows whose outcome is known.

`evaluate` gives the figures a credit committee asks for: how well the PDs rank (ROC-AUC, Gini, KS,
PR-AUC), how true they are (Brier, log loss, calibration), and what the portfolio's policy makes of
them (precision and recall at the cut-off, rows by band and by decision). `table` sets the same
figures for a terminal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest, rankdata
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from credit_risk.documents import Document
from credit_risk.errors import DataInvalid
from credit_risk.policy import SEVERITY, BandName, DecisionName, Policy

BINS = 10
"""Bins of the calibration table and of both calibration errors."""

CALIBRATION_ERROR_MOST = 0.015
"""A calibration error above it is warned of."""

CONFIDENCE = 0.95
"""Level of the intervals around observed default rates."""

Labels = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class Confusion(Document):
    """Predicted against observed defaults, in rows; a default is the positive class."""

    tn: int
    fp: int
    fn: int
    tp: int


class Decile(Document):
    """A tenth of the rows, 1 holding the lowest PDs.

    ``lower`` and ``upper`` are the PDs that part it from its neighbours, halfway between the
    nearest rows on each side (0 and 1 at the ends), so no single row's PD is given.
    ``default_rate_low`` and ``default_rate_high`` bound the observed default rate by Wilson's score
    interval (E. B. Wilson, JASA 22, 1927) at `CONFIDENCE`.
    """

    decile: int
    rows: int
    lower: float
    upper: float
    mean_pd: float
    default_rate: float
    default_rate_low: float
    default_rate_high: float


class BandResult(Document):
    """What fell into one band of the policy; the last two are None where nothing did."""

    band: BandName
    decision: DecisionName
    lower: float
    upper: float
    rows: int
    share: float
    mean_pd: float | None
    default_rate: float | None


class Evaluation(Document):
    """Figures of one model on one set of labelled rows.

    ``precision`` is None where no PD reaches the cut-off. ``decisions`` are the shares of rows by
    their band's own decision; the policy's rules, which can only be stricter, are not applied.
    ``ece_equal_count`` and ``ece_equal_width`` are explained at `calibration_error`.
    """

    rows: int
    defaults: int
    default_rate: float
    mean_pd: float
    roc_auc: float
    pr_auc: float
    gini: float
    ks: float
    brier: float
    log_loss: float
    ece_equal_count: float
    ece_equal_width: float
    cut_off: float
    precision: float | None
    recall: float
    confusion: Confusion
    deciles: tuple[Decile, ...]
    bands: tuple[BandResult, ...]
    decisions: dict[DecisionName, float]

    @property
    def warning(self) -> str | None:
        """What to be told besides the figures: that the PDs are not as true as they should be."""
        if max(self.ece_equal_count, self.ece_equal_width) <= CALIBRATION_ERROR_MOST:
            return None
        return (
            f"the expected calibration error is {self.ece_equal_count:.4f} by equal count and "
            f"{self.ece_equal_width:.4f} by equal width, and should be at most "
            f"{CALIBRATION_ERROR_MOST}; compare PDs and default rates by decile before using them"
        )


def evaluate(labels: Labels, pds: Floats, policy: Policy) -> Evaluation:
    """Compare PDs with outcomes.

    ROC-AUC, average precision (as ``pr_auc``), Brier score and log loss are scikit-learn's. Gini is
    ``2 * ROC-AUC - 1``. KS is the two-sample Kolmogorov-Smirnov statistic between the PDs of rows
    that defaulted and of rows that did not: the ROC curve's greatest ``|TPR - FPR|``.

    Args:
        labels: shape (n,), 1 for a default and 0 otherwise.
        pds: shape (n,), probabilities in [0, 1].
        policy: gives the cut-off (a PD at or above it predicts a default) and the bands.

    Raises:
        DataInvalid: no rows, shapes that differ, labels other than 0 and 1 or only one of them,
            PDs that are not finite or outside [0, 1].
    """
    _check(labels, pds)
    defaulted = labels == 1
    rows, defaults = len(labels), int(defaulted.sum())
    predicted = pds >= policy.cut_off
    confusion = Confusion(
        tn=int((~predicted & ~defaulted).sum()),
        fp=int((predicted & ~defaulted).sum()),
        fn=int((~predicted & defaulted).sum()),
        tp=int((predicted & defaulted).sum()),
    )
    positives = confusion.tp + confusion.fp
    fpr, tpr, _ = roc_curve(labels, pds)
    roc_auc = float(roc_auc_score(labels, pds))
    bands = _bands(defaulted, pds, policy)
    by_decision = dict.fromkeys(SEVERITY, 0)
    for band in bands:
        by_decision[band.decision] += band.rows
    return Evaluation(
        rows=rows,
        defaults=defaults,
        default_rate=defaults / rows,
        mean_pd=float(pds.mean()),
        roc_auc=roc_auc,
        pr_auc=float(average_precision_score(labels, pds)),
        gini=2.0 * roc_auc - 1.0,
        ks=float(np.abs(tpr - fpr).max()),
        brier=float(brier_score_loss(labels, pds)),
        log_loss=float(log_loss(labels, pds)),
        ece_equal_count=calibration_error(labels, pds, equal_count_bins(pds)),
        ece_equal_width=calibration_error(labels, pds, equal_width_bins(pds)),
        cut_off=policy.cut_off,
        precision=confusion.tp / positives if positives else None,
        recall=confusion.tp / defaults,
        confusion=confusion,
        deciles=_deciles(defaulted, pds),
        bands=bands,
        decisions={decision: count / rows for decision, count in by_decision.items()},
    )


def calibration_error(labels: Labels, pds: Floats, bins: Indices) -> float:
    """Expected calibration error: ``sum_b (n_b / n) * |default rate_b - mean PD_b|``.

    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning",
    AAAI 2015. With `equal_width_bins` as in Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017; with `equal_count_bins`, which no sparse bin can sway, as the adaptive error of Nixon
    et al., "Measuring Calibration in Deep Learning", 2019 (arXiv 1904.01685).

    Args:
        labels: shape (n,), 0 or 1.
        pds: shape (n,), in [0, 1].
        bins: shape (n,), the bin of each row, 0 or more; empty bins add nothing.
    """
    return float(np.abs(np.bincount(bins, weights=labels - pds)).sum() / len(pds))


def equal_count_bins(pds: Floats) -> Indices:
    """The tenth of the rows each PD falls into, shape (n,), from 0.

    Equal PDs share a bin, the one of their average rank, so that the order of the rows makes no
    difference; with many ties, or fewer rows than bins, some bins are empty.
    """
    ranks = rankdata(pds, method="average")
    return np.asarray((ranks - 0.5) * BINS // len(pds), dtype=np.intp)


def equal_width_bins(pds: Floats) -> Indices:
    """The tenth of [0, 1] each PD falls into, shape (n,), from 0; an edge is in the lower bin."""
    return np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], pds, side="left")


def _check(labels: Labels, pds: Floats) -> None:
    if labels.ndim != 1 or labels.shape != pds.shape:
        raise DataInvalid(
            f"labels and PDs must be two lists of one length, got shapes {labels.shape} "
            f"and {pds.shape}"
        )
    if len(labels) == 0:
        raise DataInvalid("there are no rows to evaluate")
    if not np.isin(labels, (0, 1)).all():
        raise DataInvalid("a label is neither 0 (no default) nor 1 (default)")
    if not np.isfinite(pds).all():
        raise DataInvalid("a probability of default is not a finite number")
    if pds.min() < 0.0 or pds.max() > 1.0:
        raise DataInvalid("a probability of default is outside 0 to 1")
    if labels.min() == labels.max():
        raise DataInvalid(f"every label is {labels[0]}: the figures need rows of both outcomes")


def _deciles(defaulted: npt.NDArray[np.bool_], pds: Floats) -> tuple[Decile, ...]:
    bins = equal_count_bins(pds)
    filled = np.unique(bins).tolist()
    lows = [float(pds[bins == b].min()) for b in filled]
    highs = [float(pds[bins == b].max()) for b in filled]
    inner = [(high + low) / 2.0 for high, low in zip(highs[:-1], lows[1:], strict=True)]
    edges = [0.0, *inner, 1.0]
    deciles: list[Decile] = []
    for i, b in enumerate(filled):
        inside = bins == b
        rows, defaults = int(inside.sum()), int(defaulted[inside].sum())
        interval = binomtest(defaults, rows).proportion_ci(CONFIDENCE, method="wilson")
        deciles.append(
            Decile(
                decile=b + 1,
                rows=rows,
                lower=edges[i],
                upper=edges[i + 1],
                mean_pd=float(pds[inside].mean()),
                default_rate=defaults / rows,
                default_rate_low=float(interval.low),
                default_rate_high=float(interval.high),
            )
        )
    return tuple(deciles)


def _bands(defaulted: npt.NDArray[np.bool_], pds: Floats, policy: Policy) -> tuple[BandResult, ...]:
    # As `Policy.band_of`, for all rows at once: a PD on an edge belongs to the band above it.
    place = np.searchsorted([band.upper for band in policy.bands[:-1]], pds, side="right")
    results: list[BandResult] = []
    for i, band in enumerate(policy.bands):
        inside = place == i
        rows = int(inside.sum())
        results.append(
            BandResult(
                band=band.name,
                decision=band.decision,
                lower=band.lower,
                upper=band.upper,
                rows=rows,
                share=rows / len(pds),
                mean_pd=float(pds[inside].mean()) if rows else None,
                default_rate=float(defaulted[inside].mean()) if rows else None,
            )
        )
    return tuple(results)


def table(evaluation: Evaluation) -> Group:
    """The figures as small tables for a terminal, 80 columns wide; plain text when piped."""
    e = evaluation
    precision = "n/a" if e.precision is None else f"{e.precision:.4f}"
    decisions = ", ".join(f"{name} {share:.1%}" for name, share in e.decisions.items())
    return Group(
        _figures_table(e),
        _heading(
            f"At the cut-off, PD {e.cut_off:.2%}: precision {precision}, recall {e.recall:.4f}"
        ),
        _confusion_table(e.confusion),
        _heading("Calibration by decile of PD"),
        _deciles_table(e.deciles),
        _heading(f"By policy band, rules not applied: {decisions}"),
        _bands_table(e.bands),
    )


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _figures_table(evaluation: Evaluation) -> Table:
    e = evaluation
    grid = Table.grid(padding=(0, 3, 0, 0))
    for justify in ("left", "right", "left", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    for row in (
        ("Rows", f"{e.rows:,}", "Defaults", f"{e.defaults:,}"),
        ("Default rate", f"{e.default_rate:.2%}", "Mean PD", f"{e.mean_pd:.2%}"),
        ("ROC-AUC", f"{e.roc_auc:.4f}", "Gini", f"{e.gini:.4f}"),
        ("PR-AUC", f"{e.pr_auc:.4f}", "KS", f"{e.ks:.4f}"),
        ("Brier", f"{e.brier:.4f}", "Log loss", f"{e.log_loss:.4f}"),
        ("ECE, equal count", f"{e.ece_equal_count:.4f}", "equal width", f"{e.ece_equal_width:.4f}"),
    ):
        grid.add_row(*row)
    return grid


def _confusion_table(confusion: Confusion) -> Table:
    grid = _ruled("Observed", "Predicted 0", "Predicted 1")
    grid.add_row("0, no default", f"{confusion.tn:,}", f"{confusion.fp:,}")
    grid.add_row("1, default", f"{confusion.fn:,}", f"{confusion.tp:,}")
    return grid


def _deciles_table(deciles: tuple[Decile, ...]) -> Table:
    interval = f"{CONFIDENCE:.0%} interval"
    grid = _ruled("Decile", "PD from", "to", "Rows", "Mean PD", "Default rate", interval)
    for d in deciles:
        grid.add_row(
            str(d.decile),
            f"{d.lower:.2%}",
            f"{d.upper:.2%}",
            f"{d.rows:,}",
            f"{d.mean_pd:.2%}",
            f"{d.default_rate:.2%}",
            f"{d.default_rate_low:.2%} to {d.default_rate_high:.2%}",
        )
    return grid


def _bands_table(bands: tuple[BandResult, ...]) -> Table:
    grid = _ruled("Band", "PD from", "to", "Rows", "Share", "Mean PD", "Default rate", "Decision")
    for b in bands:
        grid.add_row(
            b.band,
            f"{b.lower:.2%}",
            f"{b.upper:.2%}",
            f"{b.rows:,}",
            f"{b.share:.1%}",
            "n/a" if b.mean_pd is None else f"{b.mean_pd:.2%}",
            "n/a" if b.default_rate is None else f"{b.default_rate:.2%}",
            b.decision,
        )
    return grid


def _ruled(first: str, *columns: str) -> Table:
    """An empty table: a header over a rule, and columns of numbers after the first."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column(first, no_wrap=True)
    for column in columns:
        grid.add_column(column, justify="right", no_wrap=True)
    return grid
