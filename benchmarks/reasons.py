"""Exact reasons for one row: this server's against shap's, in one process.

Ours against the package's whole reference group; ``shap.TreeExplainer``, interventional, against
`BACKGROUND` rows of it. Run as ``python -m benchmarks.reasons PACKAGE PIPELINE``; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
import shap

from credit_risk import package
from loadtests import applications

if TYPE_CHECKING:
    from collections.abc import Callable

BACKGROUND = 100
ROWS = 200
REPEATS = 5
TOLERANCE = 1e-5
"""Log-odds; XGBoost's own margins are float32."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.reasons", description=__doc__)
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="a package's folder")
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE", help="its pipeline, by joblib")
    given = parser.parse_args()
    folder = given.package
    loaded, fitted = package.load(folder), joblib.load(given.pipeline)
    rows = applications.drawn(folder, ROWS)
    vectors = loaded.schema.matrix(rows)
    encoded = fitted[:-1].transform(pd.DataFrame(rows))
    group = [loaded.schema.application(row) for row in loaded.reference[:BACKGROUND].tolist()]
    explainer = shap.TreeExplainer(
        fitted[-1],
        fitted[:-1].transform(pd.DataFrame(group)),
        feature_perturbation="interventional",
    )

    def ours(i: int) -> None:
        loaded.model.contributions(vectors[i : i + 1])

    def theirs(i: int) -> None:
        explainer.shap_values(encoded[i : i + 1])

    # Both are explanations: of the score, to the last digit that either has.
    totals = loaded.model.contributions(vectors).sum(axis=1) + loaded.model.base_value
    margins = explainer.shap_values(encoded).sum(axis=1) + explainer.expected_value
    if np.abs(totals - margins).max() > TOLERANCE:
        sys.exit("the two explain different scores")
    figures = {
        "reference_rows": len(loaded.reference),
        "background_rows": BACKGROUND,
        "ours_us": _median_us(ours),
        "shap_us": _median_us(theirs),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _median_us(explain: Callable[[int], None]) -> float:
    """Median microseconds for one row; the first round warms up."""
    times = []
    for repeat in range(REPEATS + 1):
        for i in range(ROWS):
            began = time.perf_counter_ns()
            explain(i)
            if repeat:
                times.append((time.perf_counter_ns() - began) / 1e3)
    return median(times)


if __name__ == "__main__":
    main()
