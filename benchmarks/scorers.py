"""Which scorer: one model's trees in this project's kernels, XGBoost and ONNX Runtime.

Each is given what it wants, a float32 matrix of encoded applicants, and asked for margins, for 1,
32 and 500 rows, on one thread; all must agree. Rounds are interleaved, and medians are told. Run
as ``python -m benchmarks.scorers`` with onnx and onnxruntime on the path (``make bench-scorers``).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import joblib
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import model
from credit_risk import package, trees
from credit_risk.model import TreesModel

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Columns = npt.NDArray[np.float32]
    Scores = npt.NDArray[np.floating]
    Scorer = Callable[[Columns], Scores]

SIZES = (1, 32, 500)
ROUNDS = 15
ROUND_SECONDS = 0.05
TOLERANCE = 1e-4
"""Log-odds: XGBoost and ONNX Runtime add up hundreds of leaves in float32."""


def main(*, as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Measure the scorers side by side."""
    with tempfile.TemporaryDirectory() as folder:
        material = model.make(Path(folder))
        loaded, fitted = package.load(material.package), joblib.load(material.pipeline)
    served = loaded.model
    if not isinstance(served, TreesModel):
        sys.exit("the pipeline was not compiled to trees")
    scorer, ensemble = served.scorer, served.scorer.ensemble
    applicants = [row for batch in material.batches for row in batch][: max(SIZES)]
    columns = served.plan.encode(loaded.schema.matrix(applicants))
    scorers = {
        "this project, walking": ensemble.margins,
        "this project, leaf masks": scorer.margins,
        "XGBoost, in place": _xgboost(fitted[-1].get_booster()),
        "ONNX Runtime": _onnx(ensemble, columns.shape[1]),
    }
    if strangers := differing(scorers, columns):
        sys.exit(f"other scores: {', '.join(strangers)}")
    figures = {str(size): microseconds(scorers, columns[:size]) for size in SIZES}
    if as_json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    table = Table("microseconds for", *(f"{size} rows" for size in SIZES), title="scorers")
    for name in scorers:
        table.add_row(name, *(f"{figures[str(size)][name]:,.1f}" for size in SIZES))
    Console().print(table)


def differing(scorers: dict[str, Scorer], columns: Columns) -> list[str]:
    """Those that do not score as the first does."""
    first = next(iter(scorers.values()))(columns)
    return [
        name for name, score in scorers.items() if np.abs(score(columns) - first).max() > TOLERANCE
    ]


def microseconds(scorers: dict[str, Scorer], columns: Columns) -> dict[str, float]:
    """Median over the rounds of each scorer's mean time for the rows."""
    times: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(ROUNDS):
        for name, score in scorers.items():
            number, began = 0, time.perf_counter()
            passed = 0.0
            while passed < ROUND_SECONDS:
                score(columns)
                number += 1
                passed = time.perf_counter() - began
            times[name].append(passed / number * 1e6)
    return {name: median(found) for name, found in times.items()}


def _xgboost(booster: object) -> Scorer:
    """XGBoost's prediction without a DMatrix."""
    booster.set_param({"nthread": 1})  # type: ignore[attr-defined]

    def score(columns: Columns) -> Scores:
        return booster.inplace_predict(columns, predict_type="margin")  # type: ignore[attr-defined,no-any-return]

    return score


def _onnx(ensemble: trees.Ensemble, width: int) -> Scorer:
    """The same trees as an ONNX graph of one operator, on one thread."""
    import onnx  # noqa: PLC0415 - beside the environment
    import onnxruntime  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    roots = ensemble.roots.tolist()
    tree = np.searchsorted(ensemble.roots, np.arange(len(ensemble.column)), side="right") - 1
    node = np.arange(len(ensemble.column)) - ensemble.roots[tree]
    split = ensemble.column != trees.LEAF
    leaf = np.flatnonzero(~split)
    start = ensemble.roots[tree]
    operator = helper.make_node(
        "TreeEnsembleRegressor",
        ["columns"],
        ["margins"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[ensemble.base],
        nodes_treeids=tree.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_modes=["BRANCH_LT" if one else "LEAF" for one in split],
        nodes_featureids=np.where(split, ensemble.column, 0).tolist(),
        nodes_values=np.where(split, ensemble.threshold, 0.0).tolist(),
        nodes_truenodeids=np.where(split, ensemble.left - start, 0).tolist(),
        nodes_falsenodeids=np.where(split, ensemble.right - start, 0).tolist(),
        nodes_missing_value_tracks_true=ensemble.default_left.astype(int).tolist(),
        target_treeids=tree[leaf].tolist(),
        target_nodeids=node[leaf].tolist(),
        target_ids=[0] * len(leaf),
        target_weights=ensemble.value[leaf].tolist(),
    )
    graph = helper.make_graph(
        [operator],
        f"{len(roots)} trees",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("margins", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    built = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(built)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(built.SerializeToString(), options)

    def score(columns: Columns) -> Scores:
        (margins,) = session.run(None, {"columns": columns})
        return margins[:, 0]  # type: ignore[no-any-return]

    return score


if __name__ == "__main__":
    typer.run(main)
