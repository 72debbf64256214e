"""Training: from a labelled file to a model package on disk.

Prepare the file; hold rows out; fit on the rest and evaluate on the rows held out; fit again on
all rows; compile; assemble the package. Same data, settings and library versions give the same
bytes, so the same version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import train_test_split

from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.model import probability
from credit_risk.training import assembly, compilation, network, pipeline, preparation
from credit_risk.training.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import EstimatorName, Training

    Places = npt.NDArray[np.int64]


def train(
    portfolio: Portfolio,
    training: Training,
    data: Path,
    out: Path,
    *,
    estimator: EstimatorName | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Packaged:
    """Train a portfolio's model and write its package under ``out``.

    Args:
        portfolio: schema, policy and reasons.
        training: the portfolio's ``training.yaml``.
        data: the labelled raw file.
        out: folder that receives ``portfolio/version``.
        estimator: one of those in ``training.yaml``; its default otherwise.
        step: called with the name of each step as it begins.

    Raises:
        DataInvalid: the file cannot be used.
        PortfolioInvalid: no settings for the estimator.
        CompilationDiffers: the compiled model differs from the pipeline.
        TorchMissing: a network where none can be fitted; the data were not read.
    """
    name = estimator or training.default_estimator
    if name not in training.estimators:
        msg = f"training.yaml: no settings for estimator {name}"
        raise PortfolioInvalid(msg)
    if name == "neural-network":
        network.check()
    parameters = training.estimators[name]

    def unfitted() -> Pipeline:
        return pipeline.build(portfolio.schema, name, parameters, training.seed)

    step("Reading and cleaning the data")
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    development, held_out = split(prepared, training)

    step(f"Fitting {name} on {len(development):,} rows, {len(held_out):,} held out")
    frame, labels = prepared.take(held_out)
    pds = unfitted().fit(*prepared.take(development)).predict_proba(frame)[:, 1]
    evaluation = evaluate(labels, pds, portfolio.policy)

    step(f"Fitting {name} on all {len(prepared.labels):,} rows")
    final = unfitted().fit(prepared.frame, prepared.labels)
    compiled = compilation.compile_pipeline(final, portfolio.schema, name)
    candidate = assembly.Candidate(
        spec=compiled.spec,
        arrays=compiled.arrays,
        pipeline=None,
        skops=b"",
        pds=final.predict_proba(prepared.frame)[:, 1],
        held_out_labels=labels,
        held_out_pds=pds,
        evaluation=evaluation,
        settings={
            "estimator": name,
            "parameters": parameters,
            "seed": training.seed,
            "threads": pipeline.THREADS,
            "calibration_folds": pipeline.CALIBRATION_FOLDS,
            "hold_out": training.hold_out.model_dump(),
            "rows_held_out": len(held_out),
        },
        fitted_here=True,
    )
    return assembly.assemble(portfolio, training, prepared, candidate, out, step=step)


def split(prepared: Prepared, training: Training) -> tuple[Places, Places]:
    """Places of the development rows and of the rows held out.

    Raises:
        DataInvalid: too few rows or only one outcome.
    """
    places = np.arange(len(prepared.labels))
    counts = np.bincount(prepared.labels, minlength=2)
    if counts.min() < 2 * pipeline.CALIBRATION_FOLDS:
        msg = f"only {counts.min()} rows of one outcome: too few to train on"
        raise DataInvalid(msg)
    if prepared.time is not None:
        order = np.argsort(prepared.time, kind="stable")
        cut = round(len(places) * (1.0 - training.hold_out.share))
        earlier, later = places[order[:cut]], places[order[cut:]]
        fewest = np.bincount(prepared.labels[earlier], minlength=2).min()
        if fewest < pipeline.CALIBRATION_FOLDS or len(np.unique(prepared.labels[later])) < 2:  # noqa: PLR2004
            msg = (
                f"hold-out by {training.hold_out.column}: too few rows of one outcome before or "
                "after the cut"
            )
            raise DataInvalid(msg)
        return earlier, later
    development, held_out = train_test_split(
        places,
        test_size=training.hold_out.share,
        stratify=prepared.labels,
        random_state=training.seed,
    )
    return np.sort(development), np.sort(held_out)


def evaluate_package(loaded: ModelPackage, training: Training, data: Path) -> dict[str, Any]:
    """Score a labelled raw file with a package, through the same preparation as training.

    Returns:
        The evaluation's figures, the rows read and scored, and the others counted by reason.
        ``same_file_as_training`` is true where the file is the very one the package was trained
        on; whether another file has some of its rows is not known.

    Raises:
        DataInvalid: the file cannot be used.
    """
    prepared = preparation.read(data, loaded.schema, training, unique=False)
    pds = probability(loaded.model.log_odds(prepared.rows))
    evaluation = evaluate(prepared.labels, pds, loaded.policy)
    trained_on = loaded.provenance.trained_on or {}
    return {
        "portfolio": loaded.portfolio,
        "model_version": loaded.version,
        "policy_version": loaded.policy_version,
        "data_sha256": prepared.sha256,
        "same_file_as_training": prepared.sha256 == trained_on.get("sha256"),
        "rows_read": prepared.rows_read,
        "rows_scored": len(pds),
        "rows_not_scored": prepared.dropped,
        "values_set_to_missing": prepared.mended,
        **evaluation.model_dump(mode="json"),
    }
