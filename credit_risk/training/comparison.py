"""Several estimators on the same folds, and which of them is chosen by what rule.

Every estimator is fitted to the same part of the rows and judged on the same rest, fold after
fold; then its model, compiled as it would be packaged, is timed. The rule is data: `Choice` in
``training.yaml``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich import box
from rich.table import Table
from scipy.stats import t as student
from sklearn.model_selection import StratifiedKFold, TimeSeriesSplit

from credit_risk import model
from credit_risk.documents import Document
from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.training import compilation, network, pipeline, preparation
from credit_risk.training.evaluation import CONFIDENCE, evaluate
from credit_risk.training.settings import Choice, EstimatorName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from credit_risk.portfolio import Portfolio
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import Training

    Floats = npt.NDArray[np.float64]
    Places = npt.NDArray[np.intp]

FigureName = Literal["roc_auc", "brier", "ece_equal_count", "ks"]
HIGHER_IS_BETTER: dict[FigureName, bool] = {
    "roc_auc": True,
    "brier": False,
    "ece_equal_count": False,
    "ks": True,
}
TITLES: dict[FigureName, str] = {
    "roc_auc": "ROC-AUC",
    "brier": "Brier score",
    "ece_equal_count": "Calibration error",
    "ks": "KS",
}

TIMED_ROWS = 20
TIMED_SECONDS = 0.5
"""Rows are timed one by one until so long has passed."""


class Figure(Document):
    """One figure over the folds: its mean, an interval at `CONFIDENCE`, and each fold's."""

    mean: float
    low: float
    high: float
    folds: tuple[float, ...]


class Contender(Document):
    """What one estimator reached, and what it costs.

    ``fit_seconds`` is the mean over the folds, calibration included. The last two are medians of
    one application alone, in microseconds: its log-odds, and its reasons.
    """

    estimator: EstimatorName
    figures: dict[FigureName, Figure]
    fit_seconds: float
    score_microseconds: float
    reasons_microseconds: float


class Comparison(Document):
    """Estimators side by side.

    ``folds_by`` says whether folds were drawn or follow the time; ``left_out`` has the estimators
    that could not take part, with why; ``behind`` how much worse than the best one's each mean
    figure of the rule is, in standard errors of the difference.
    """

    portfolio: str
    data_sha256: str
    rows: int
    defaults: int
    folds: int
    folds_by: Literal["drawn", "time"]
    contenders: tuple[Contender, ...]
    left_out: dict[EstimatorName, str]
    rule: Choice
    behind: dict[EstimatorName, float]
    chosen: EstimatorName

    @property
    def because(self) -> str:
        """The rule in words, with what came of it."""
        figure = TITLES[self.rule.figure]
        best = min(self.behind, key=lambda name: self.behind[name])
        allowed = f"{self.rule.margin} of the difference"
        if self.chosen == best:
            why = f"no simpler one comes within {allowed}"
            if next(n for n in self.rule.simplest_first if n in self.behind) == best:
                why = "none is simpler"
            return f"it has the best mean {figure}, and {why}"
        return (
            f"its mean {figure} is within {allowed} of that of {best}, the best "
            f"({self.behind[self.chosen]:.2f}), and no simpler one's is"
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and what its plots are drawn from.

    ``labels`` and, by estimator, ``pds`` are of the rows of all folds, each judged by a model that
    was not fitted to it.
    """

    result: Comparison
    labels: npt.NDArray[np.int64]
    pds: dict[EstimatorName, Floats]


def compare(
    portfolio: Portfolio,
    training: Training,
    data: Path,
    *,
    estimators: Sequence[EstimatorName] | None = None,
    folds: int = 5,
    step: Callable[[str], None] = lambda _: None,
) -> Compared:
    """Cross-validate estimators and choose one.

    Args:
        portfolio: schema and policy.
        training: the portfolio's ``training.yaml``.
        data: the labelled raw file.
        estimators: some of those in ``training.yaml``; without it all of them but a network where
            PyTorch is not installed, or cannot be imported.
        folds: how many, two at least. They follow the time where the portfolio's hold-out does.
        step: called with the name of each step as it begins.

    Raises:
        DataInvalid: the file cannot be used, or has too few rows for so many folds.
        PortfolioInvalid: no settings for an estimator.
        TorchMissing: a network was asked for where none can be fitted; nothing was.
    """
    names = list(dict.fromkeys(estimators or training.estimators))
    left_out: dict[EstimatorName, str] = {}
    for name in names:
        if name not in training.estimators:
            msg = f"training.yaml: no settings for estimator {name}"
            raise PortfolioInvalid(msg)
    if "neural-network" in names:
        try:
            network.check()
        except network.TorchMissing as error:
            if estimators:
                raise
            names.remove("neural-network")
            left_out["neural-network"] = str(error)
    step("Reading and cleaning the data")
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    parts = list(_folds(prepared, training, folds))
    contenders = []
    pds = {}
    for name in names:
        step(f"Fitting {name} to {folds} folds, and timing it")
        contender, pds[name] = _judge(name, portfolio, training, prepared, parts)
        contenders.append(contender)
    sizes = [len(judged) / len(fitted) for fitted, judged in parts]
    behind = _behind(contenders, training.choice, float(np.mean(sizes)))
    tested = np.concatenate([judged for _, judged in parts])
    return Compared(
        Comparison(
            portfolio=portfolio.schema.portfolio,
            data_sha256=prepared.sha256,
            rows=len(prepared.labels),
            defaults=int(prepared.labels.sum()),
            folds=folds,
            folds_by="drawn" if prepared.time is None else "time",
            contenders=tuple(contenders),
            left_out=left_out,
            rule=training.choice,
            behind=behind,
            chosen=choose(behind, training.choice),
        ),
        prepared.labels[tested],
        pds,
    )


def choose(behind: dict[EstimatorName, float], rule: Choice) -> EstimatorName:
    """The simplest estimator that is behind the best by no more than the rule allows."""
    return next(n for n in rule.simplest_first if behind.get(n, np.inf) <= rule.standard_errors)


def standard_error(values: Floats, test_to_train: float) -> float:
    """Standard error of a mean over folds, which share most of the rows that they are fitted to.

    ``sqrt((1 / k + test / train) s^2)``, with s^2 the variance over k folds (Nadeau and Bengio,
    "Inference for the Generalization Error", Machine Learning 52, 2003); without the second term
    it is far too small.
    """
    variance = float(np.var(values, ddof=1))
    return float(np.sqrt((1.0 / len(values) + test_to_train) * variance))


def _folds(prepared: Prepared, training: Training, folds: int) -> Iterator[tuple[Places, Places]]:
    """Places of the rows fitted to and of the rows judged, fold by fold."""
    counts = np.bincount(prepared.labels, minlength=2)
    if counts.min() < 2 * folds * pipeline.CALIBRATION_FOLDS:
        msg = f"only {counts.min()} rows of one outcome: too few for {folds} folds"
        raise DataInvalid(msg)
    if prepared.time is None:
        drawn = StratifiedKFold(folds, shuffle=True, random_state=training.seed)
        yield from drawn.split(prepared.labels, prepared.labels)
        return
    order = np.argsort(prepared.time, kind="stable")
    for earlier, later in TimeSeriesSplit(folds).split(order):
        yield order[earlier], order[later]


def _judge(
    name: EstimatorName,
    portfolio: Portfolio,
    training: Training,
    prepared: Prepared,
    parts: list[tuple[Places, Places]],
) -> tuple[Contender, Floats]:
    found: dict[FigureName, list[float]] = {figure: [] for figure in TITLES}
    models, seconds, pds = [], [], []
    for fitted_to, judged in parts:
        began = time.perf_counter()
        unfitted = pipeline.build(portfolio.schema, name, training.estimators[name], training.seed)
        models.append(unfitted.fit(*prepared.take(fitted_to)))
        seconds.append(time.perf_counter() - began)
        frame, labels = prepared.take(judged)
        pds.append(models[-1].predict_proba(frame)[:, 1])
        evaluation = evaluate(labels, pds[-1], portfolio.policy)
        for figure, values in found.items():
            values.append(getattr(evaluation, figure))
    share = float(np.mean([len(judged) / len(fitted_to) for fitted_to, judged in parts]))
    compiled = compilation.compile_pipeline(models[-1], portfolio.schema, name)
    generator = np.random.default_rng(training.seed)
    reference = prepared.rows[generator.integers(len(prepared.rows), size=training.reference.rows)]
    served = model.build(compiled.spec, portfolio.schema, compiled.arrays, reference)
    rows = prepared.rows[parts[-1][1]][:TIMED_ROWS]
    contender = Contender(
        estimator=name,
        figures={figure: _figure(values, share) for figure, values in found.items()},
        fit_seconds=float(np.mean(seconds)),
        score_microseconds=_microseconds(served.log_odds, rows),
        reasons_microseconds=_microseconds(served.contributions, rows),
    )
    return contender, np.concatenate(pds)


def _figure(values: list[float], test_to_train: float) -> Figure:
    over = np.array(values)
    error = standard_error(over, test_to_train)
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    mean = float(over.mean())
    return Figure(mean=mean, low=mean - reach, high=mean + reach, folds=tuple(values))


def _microseconds(call: Callable[[Floats], Floats], rows: Floats) -> float:
    """Median time of a call with one row."""
    call(rows[:1])  # compiles what is not compiled yet
    taken: list[float] = []
    until = time.perf_counter() + TIMED_SECONDS
    while not taken or time.perf_counter() < until:
        for i in range(len(rows)):
            began = time.perf_counter()
            call(rows[i : i + 1])
            taken.append(time.perf_counter() - began)
    return 1e6 * median(taken)


def _behind(
    contenders: list[Contender], rule: Choice, test_to_train: float
) -> dict[EstimatorName, float]:
    """How much worse than the best each is, in standard errors of the paired difference."""
    sign = 1.0 if HIGHER_IS_BETTER[rule.figure] else -1.0
    values = {c.estimator: sign * np.array(c.figures[rule.figure].folds) for c in contenders}
    best = max(values, key=lambda name: float(values[name].mean()))
    behind = dict.fromkeys(values, 0.0)
    for name, own in values.items():
        lost = values[best] - own
        if lost.any():
            error = standard_error(lost, test_to_train)
            behind[name] = float(lost.mean()) / error if error else float("inf")
    return behind


def table(result: Comparison) -> Table:
    """The figures for a terminal: means, and half the width of their intervals."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("Estimator", no_wrap=True)
    for column in (*TITLES.values(), "Fit", "Score", "Reasons"):
        grid.add_column(column, justify="right")
    for c in result.contenders:
        grid.add_row(*cells(c), style="bold" if c.estimator == result.chosen else None)
    return grid


def cells(contender: Contender) -> tuple[str, ...]:
    """A contender's line of a table."""
    figures = [contender.figures[name] for name in TITLES]
    return (
        contender.estimator,
        *(f"{f.mean:.4f} ±{f.high - f.mean:.4f}" for f in figures),
        f"{contender.fit_seconds:.1f} s",
        _duration(contender.score_microseconds),
        _duration(contender.reasons_microseconds),
    )


def _duration(microseconds: float) -> str:
    if microseconds < 1_000:  # noqa: PLR2004 - a millisecond
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1_000:.1f} ms"
