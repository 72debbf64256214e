"""Retraining: a candidate for who decides now, of newer rows, judged beside it on the same ones.

The rows come from a labelled file, or are the recorded applications whose outcome is known. They
are validated before anything is learned of them (`credit_risk.training.validation`); the candidate
becomes a package like any other. It decides nothing until somebody activates it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from credit_risk.audit.records import moment
from credit_risk.errors import DataInvalid
from credit_risk.model import probability
from credit_risk.performance import ACCEPTED_ONLY
from credit_risk.training import challenge, preparation, validation
from credit_risk.training import train as training_run
from credit_risk.training.settings import PORTFOLIO_NOTES, DataSource

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from credit_risk.outcomes import Labelled
    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.schema import Schema
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.challenge import Comparison
    from credit_risk.training.settings import EstimatorName, Training
    from credit_risk.training.validation import Check, Report, ValidationPolicy

MAY_HAVE_SEEN = (
    "The champion may have been trained on some of these rows, which flatters it; nobody can tell, "
    "as no package holds rows."
)
HAS_SEEN = (
    "The champion was trained on this very file, all of it: its figures flatter it, and the "
    "candidate's do not."
)

IS_CHAMPION = (
    "The candidate is the package that decides, byte for byte: the same data, settings and "
    "library versions make the same. There is nothing to promote."
)


class DataRefused(DataInvalid):
    """A file that validation refuses; ``report`` says for what."""

    def __init__(self, report: Report) -> None:
        refusals = sum(finding.severity == "refused" for finding in report.findings)
        super().__init__(f"the data are refused for {refusals} of their faults")
        self.report = report


@dataclass(frozen=True, slots=True)
class Retrained:
    """A candidate's package, and what is known of it: ``caveats`` are sentences for people.

    ``development`` are the figures that the champion's package has of rows held out of its own
    training. ``rows_left_out`` are rows held out that the champion cannot score: they are in no
    figure of the comparison. ``is_champion`` is true where the same package decides already.
    """

    packaged: Packaged
    estimator: EstimatorName
    validation: Report
    comparison: Comparison
    development: dict[str, Any]
    rows_left_out: int
    caveats: tuple[str, ...]
    is_champion: bool


def retrain(
    portfolio: Portfolio,
    training: Training,
    policy: ValidationPolicy,
    data: Path,
    out: Path,
    *,
    champion: ModelPackage,
    estimator: EstimatorName | None = None,
    only_warn: Collection[Check] = (),
    caveats: Iterable[str] = (),
    step: Callable[[str], None] = lambda _: None,
) -> Retrained:
    """Validate a file, train on it, and compare with who decides now.

    Args:
        portfolio: schema, policy and reasons.
        training: the portfolio's ``training.yaml``.
        policy: its ``validation.yaml``.
        data: the labelled raw file.
        out: folder that receives ``portfolio/version``.
        champion: the package that decides.
        estimator: what to train; the champion's own if ``training`` has it, or else its default.
        only_warn: checks that refuse nothing here.
        caveats: what to be told of these data besides.
        step: called with the name of each step as it begins.

    Raises:
        DataRefused: validation refuses the file; nothing was trained.
        DataInvalid, PortfolioInvalid, CompilationDiffers: see `train.train`.
    """
    step("Validating the data")
    report = validation.validate(
        data, portfolio.schema, training, policy, champion, only_warn=only_warn
    )
    if report.refused:
        raise DataRefused(report)
    name = estimator or estimator_of(champion, training)
    packaged = training_run.train(portfolio, training, data, out, estimator=name, step=step)

    step(f"Comparing with package {champion.version}, which decides, on the rows held out")
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    _, held_out = training_run.split(prepared, training)
    known = preparation.read(data, champion.schema, training, unique=False)
    place = np.full(prepared.rows_read, -1)
    place[known.kept] = np.arange(len(known.kept))
    of_champion = place[prepared.kept[held_out]]
    both = of_champion >= 0
    if not both.any():
        msg = f"package {champion.version} cannot score any of the rows held out"
        raise DataInvalid(msg)
    pds = probability(champion.model.log_odds(known.rows[of_champion[both]]))
    compared = challenge.compare(
        prepared.labels[held_out][both],
        (pds, champion.policy),
        (packaged.held_out_pds[both], portfolio.policy),
        seed=training.seed,
    )
    trained_on = (champion.provenance.trained_on or {}).get("sha256")
    is_champion = packaged.version == champion.version
    same = [IS_CHAMPION] if is_champion else []
    return Retrained(
        packaged=packaged,
        estimator=name,
        validation=report,
        comparison=compared,
        development=champion.metrics.get("hold_out", {}),
        rows_left_out=int((~both).sum()),
        caveats=(*same, HAS_SEEN if trained_on == report.sha256 else MAY_HAVE_SEEN, *caveats),
        is_champion=is_champion,
    )


def estimator_of(champion: ModelPackage, training: Training) -> EstimatorName:
    """What the champion was made with, where ``training`` has parameters for it."""
    made_with = champion.provenance.settings.get("estimator")
    return made_with if made_with in training.estimators else training.default_estimator


def recorded(
    rows: Iterable[Labelled],
    schema: Schema,
    training: Training,
    policy: ValidationPolicy,
    path: Path,
) -> tuple[Training, ValidationPolicy]:
    """Write recorded applications and their outcomes as a file to train on.

    Applications have the schema's fields, so that no preparation function is called, and come in
    the order of decisions. Those that are erased, or sealed with a key that is not here, are not
    among them.

    Args:
        rows: what is on record.
        schema: the portfolio's.
        training: its ``training.yaml``.
        policy: its ``validation.yaml``.
        path: the file, which is not there yet. It holds personal data.

    Returns:
        The same settings of these data: to train with, and to validate by.

    Raises:
        DataInvalid: there is none.
    """
    column = training.hold_out.column
    times: list[str] = []
    with path.open("x", encoding="utf-8", newline="") as file:
        path.chmod(0o600)
        writer = csv.writer(file)
        names = [*schema.names, training.target]
        writer.writerow(names if column is None else [*names, column])
        for row in rows:
            if row.application is None:
                continue
            times.append(moment(row.decided))
            cells = [*(row.application.get(name) for name in schema.names), int(row.defaulted)]
            writer.writerow(cells if column is None else [*cells, times[-1]])
    if not times:
        raise DataInvalid("no application on record has an outcome, or none of them can be opened")
    data = DataSource(
        name=f"Recorded decisions with an outcome, {times[0][:10]} to {times[-1][:10]}",
        licence="the lender's own",
        source="the chain of records",
    )
    notes = {t: text for t, text in training.notes.items() if t in PORTFOLIO_NOTES}
    notes["Limits"] = ACCEPTED_ONLY
    return (
        training.model_copy(update={"preparation": None, "data": data, "notes": notes}),
        # The columns of the raw table are not here.
        policy.model_copy(update={"columns": (), "identifiers": ()}),
    )


def markdown(retrained: Retrained, champion: str) -> str:
    """The report on a candidate, for people; ``champion`` is the version that decides."""
    checked = retrained.validation
    title = f"# Candidate {retrained.packaged.version} for {checked.portfolio}"
    about = (
        f"Made with `{retrained.estimator}`, beside {champion}, which decides. Nothing is "
        "activated by this."
    )
    data = (
        f"{checked.rows:,} rows, SHA-256 `{checked.sha256}`: {checked.verdict.lower()}, checked "
        f"for {', '.join(checked.checked)}."
    )
    findings = [f"- {f.severity}: {_place(f.column)}{f.message}" for f in checked.findings]
    known = [f"- {sentence}" for sentence in (*retrained.caveats, *retrained.packaged.warnings)]
    if retrained.rows_left_out:
        known.append(
            f"- {retrained.rows_left_out:,} rows held out are none that {champion} scores."
        )
    parts = [
        *(title, "", about, "", "## Data", "", data, ""),
        *(findings or ["No findings."]),
        *("", "## Champion and candidate", ""),
        *(*challenge.lines(retrained.comparison, retrained.development), "", *known, ""),
    ]
    return "\n".join(parts)


def _place(column: str | None) -> str:
    return "" if column is None else f"{column}: "
