"""What batching buys: callers one after the other, and through the batcher, in one process.

Three models of the shipped personal-loans portfolio: its own trees with applicants drawn at
large, its own trees with applicants who are all declined, so that every row is explained, and a
pipeline that cannot be compiled. Run as ``python -m benchmarks.batching``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from credit_risk import package, scoring
from credit_risk.batching import Batched, Batcher
from credit_risk.model import probability
from credit_risk.pipeline_model import PipelineModel, frame
from loadtests import applications

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

CALLERS = (1, 8, 32)
ROUNDS = 5
ROWS = 640
DRAWN = 4_000


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and applicants for it."""

    name: str
    package: ModelPackage
    applicants: Sequence[Application]


class Unobserved:
    """Counts nothing."""

    def batched(self, batch: Batched) -> None:
        """Nothing."""


def main(*, as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Measure both ways for each model and number of callers."""
    figures = {case.name: measured(case) for case in cases()}
    if as_json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    table = Table("microseconds a row", "one by one", *(f"{n} callers" for n in CALLERS))
    for name, found in figures.items():
        table.add_row(name, *(f"{figure:,.0f}" for figure in found.values()))
    Console().print(table)


def cases() -> list[Case]:
    """What is measured."""
    root = Path(__file__).parents[1] / "packages"
    folder = applications.folder(root, "personal-loans", "default")
    shipped = package.load(folder)
    many = applications.drawn(folder, DRAWN)
    decisions = scoring.decide(shipped, many)
    declined = [
        one for one, d in zip(many, decisions, strict=True) if d.outcome.scored == "DECLINE"
    ]
    approved = [
        one for one, d in zip(many, decisions, strict=True) if d.outcome.decision == "APPROVE"
    ]
    own = replace(shipped, model=pipeline(shipped, many))
    # Without reasons: an explanation by shap is hundreds of predictions, and takes them as one.
    milder = [
        one
        for one, d in zip(approved, scoring.decide(own, approved), strict=True)
        if d.outcome.decision == "APPROVE"
    ]
    return [
        Case("trees, drawn applicants", shipped, many[:ROWS]),
        Case("trees, all explained", shipped, declined[:ROWS]),
        Case("own pipeline", own, milder[:ROWS]),
    ]


def pipeline(shipped: ModelPackage, applicants: Sequence[Application]) -> PipelineModel:
    """A scikit-learn pipeline without a compiled form, fitted to drawn outcomes."""
    rows = shipped.schema.matrix(applicants)
    chances = probability(shipped.model.log_odds(rows))
    outcomes = np.random.default_rng(0).random(len(chances)) < chances
    numbers = [spec.name for spec in shipped.schema.fields if not spec.is_category]
    words = [spec.name for spec in shipped.schema.fields if spec.is_category]
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), numbers),
            ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), words),
        ]
    )
    fitted = make_pipeline(columns, GaussianNB()).fit(frame(rows, shipped.schema), outcomes)
    return PipelineModel(fitted, shipped.schema, shipped.reference)


def measured(case: Case) -> dict[str, float]:
    """Microseconds a row: one after the other without a batcher, then by number of callers."""
    ways: dict[str, Callable[[], None]] = {"one by one": lambda: one_by_one(case)}
    for callers in CALLERS:
        ways[str(callers)] = lambda callers=callers: asyncio.run(together(case, callers))  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) / len(case.applicants) * 1e6)
    return {name: median(found) for name, found in times.items()}


def one_by_one(case: Case) -> None:
    """Decide about each applicant alone."""
    for applicant in case.applicants:
        scoring.decide(case.package, [applicant])


async def together(case: Case, callers: int) -> None:
    """So many callers, each with its next applicant once it has the answer about the last."""
    batcher = Batcher(Unobserved(), len(case.applicants))
    waiting = list(case.applicants)

    async def caller() -> None:
        while waiting:
            (result,) = await batcher.decide(case.package, [waiting.pop()])
            if isinstance(result, Exception):
                raise result

    await asyncio.gather(*(caller() for _ in range(callers)))
    batcher.close()


if __name__ == "__main__":
    typer.run(main)
