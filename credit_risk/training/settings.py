"""``training.yaml``: how a portfolio's model is trained. Data, like the rest of a portfolio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.errors import PortfolioInvalid

if TYPE_CHECKING:
    from credit_risk.portfolio import Portfolio

EstimatorName = Literal[
    "xgboost", "logistic-regression", "random-forest", "gradient-boosting", "neural-network"
]


PORTFOLIO_NOTES = ("Intended use", "Out of scope")
"""Notes of these titles are true of whatever model the portfolio has."""


class DataSource(Document):
    """Where the training data come from, for the model card.

    ``sha256`` is that of the one file meant, which the notes are about too; without it any file
    that is trained on is meant.
    """

    name: str
    licence: str
    source: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class HoldOut(Document):
    """Rows kept back for the figures: a stratified share, or the latest share by ``column``."""

    kind: Literal["stratified", "out-of-time"]
    share: Annotated[float, Field(gt=0.0, lt=0.5)]
    column: str | None = None


class Reference(Document):
    """The group that reasons are measured against, and the drawn rows that stand for it.

    ``all`` and ``approved`` are the two groups of Regulation B's official interpretation
    (comment 9(b)(2)-5): all applicants, or those at or slightly above the passing score, here
    the approved ones from ``approved_from`` PD upwards.
    """

    group: Literal["all", "approved"]
    approved_from: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    rows: Annotated[int, Field(ge=100, le=20_000)]


class Choice(Document):
    """Which of several estimators is chosen when they are compared.

    The first of ``simplest_first`` whose mean ``figure`` over the folds is not worse than the
    best one's by more than ``standard_errors`` of their difference: what a more complicated model
    gains has to show above the noise (the rule of one standard error, Breiman et al.,
    "Classification and Regression Trees", 1984, on differences between the same folds).
    """

    figure: Literal["brier", "roc_auc", "ks", "ece_equal_count"] = "brier"
    standard_errors: Annotated[float, Field(ge=0.0)] = 1.0
    simplest_first: tuple[EstimatorName, ...] = (
        "logistic-regression",
        "xgboost",
        "gradient-boosting",
        "random-forest",
        "neural-network",
    )

    @property
    def margin(self) -> str:
        """How much worse a simpler one may be, in words."""
        return f"{self.standard_errors:g} standard error{'' if self.standard_errors == 1 else 's'}"

    @model_validator(mode="after")
    def _names_each_once(self) -> Choice:
        if sorted(self.simplest_first) != sorted(get_args(EstimatorName)):
            msg = "simplest_first names every estimator once"
            raise ValueError(msg)
        return self


class Training(Document):
    """Everything about training that is not in the schema.

    ``preparation`` names a function ``module:function`` that turns the raw table into the
    schema's fields; without it the raw table has them already. ``estimators`` holds each
    estimator's parameters, ``choice`` the rule by which one of them is chosen when they are
    compared. ``notes`` are paragraphs for the model card: those on `PORTFOLIO_NOTES`
    are about the portfolio, the others about ``data`` and ``default_estimator``.
    """

    portfolio: str
    target: str
    data: DataSource
    preparation: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    hold_out: HoldOut
    seed: int
    default_estimator: EstimatorName
    estimators: dict[EstimatorName, dict[str, Any]]
    choice: Choice = Field(default_factory=Choice)
    reference: Reference
    golden_records: Annotated[int, Field(ge=4, le=200)] = 24
    notes: dict[str, str] = Field(default_factory=dict)


def load(portfolio: Portfolio) -> Training:
    """The portfolio's training settings.

    Raises:
        PortfolioInvalid: the file is missing, wrong, or another portfolio's.
    """
    path = portfolio.path / "training.yaml"
    training = documents.read(Training, path)
    if training.portfolio != portfolio.schema.portfolio:
        msg = f"{path}: it says it belongs to portfolio {training.portfolio!r}"
        raise PortfolioInvalid(msg)
    if training.hold_out.kind == "out-of-time" and training.hold_out.column is None:
        msg = f"{path}: hold_out: out-of-time needs a column"
        raise PortfolioInvalid(msg)
    if training.default_estimator not in training.estimators:
        msg = f"{path}: default_estimator has no entry under estimators"
        raise PortfolioInvalid(msg)
    return training
