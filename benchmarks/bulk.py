"""Bulk scoring of a Parquet file, beside XGBoost predicting the same rows already in memory.

Ours is `bulk.score_file` in a process of its own, from opening the file to the output being whole:
reading, validation, encoding, scoring, policy, writing. XGBoost is given the matrix that the
encoder makes of the same rows and asked for margins, with the same trees on all cores. Run as
``python -m benchmarks.bulk``; with five million rows it needs 3 GB of memory for XGBoost's side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import typer

from benchmarks import model
from credit_risk import package, profile
from credit_risk.model import TreesModel, probability
from loadtests import applications

if TYPE_CHECKING:
    import numpy.typing as npt

    from benchmarks.model import Material
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

ROWS_AT_ONCE = 250_000
ROUNDS = 3
TOLERANCE = 1e-5
"""Of a PD: XGBoost adds up hundreds of leaves in float32."""
SHARE, MEGABYTES = 0.7, 1_000
"""Targets: rows a second against XGBoost's, and memory."""
OURS = """\
import json, sys
from pathlib import Path
from credit_risk import bulk, package
folder, source, output = map(Path, sys.argv[1:])
summary = bulk.score_file(package.load(folder), source, output, bulk.Options())
# Not ru_maxrss, which begins with what the process that started this one holds.
status = Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps({"seconds": summary.seconds, "scored": summary.scored, "peak_mb": peak / 1e3}))
"""


def main(
    rows: Annotated[int, typer.Option(min=1, help="Rows to score.")] = 5_000_000,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure both, and say whether the targets are met."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(model.make(Path(folder)), Path(folder), rows)
    if as_json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    for name, figure in figures.items():
        sys.stdout.write(f"{name.replace('_', ' ')}: {figure:,.2f}\n")
    for met, target in (
        (figures["share"] >= SHARE, f"at least {SHARE} of XGBoost's rows a second"),
        (figures["our_megabytes"] <= MEGABYTES, f"at most {MEGABYTES:,} MB"),
    ):
        sys.stdout.write(f"{'OK' if met else 'MISSED'}: {target}\n")


def measure(material: Material, folder: Path, rows: int) -> dict[str, float]:
    """Both sides, on rows drawn from the shipped package's profile and written to ``folder``.

    Rows a second are medians over `ROUNDS`, memory is the most of them.
    """
    loaded, fitted = package.load(material.package), joblib.load(material.pipeline)
    shipped = package.load(
        applications.folder(Path(__file__).parents[1] / "packages", model.PORTFOLIO, "default")
    )
    source, output = folder / "in.parquet", folder / "out.parquet"
    sizes = [min(ROWS_AT_ONCE, rows - first) for first in range(0, rows, ROWS_AT_ONCE)]

    served = loaded.model
    if not isinstance(served, TreesModel):
        sys.exit("the pipeline was not compiled to trees")
    writer, encoded = None, []
    for i, size in enumerate(sizes):
        drawn = profile.draw(shipped.profile, shipped.schema, size, model.SEED + i)
        encoded.append(served.plan.encode(drawn))
        written = table(loaded.schema, drawn)
        writer = writer or pa.parquet.ParquetWriter(source, written.schema)
        writer.write_table(written)
    if writer is not None:
        writer.close()
    columns = np.concatenate(encoded)
    del encoded

    runs = []
    for _ in range(ROUNDS):
        output.unlink(missing_ok=True)
        runs.append(_ours(loaded, source, output))
    if any(run["scored"] != rows for run in runs):
        sys.exit("not every row was scored")
    booster = fitted[-1].get_booster()
    booster.set_param({"nthread": len(os.sched_getaffinity(0))})
    margins = booster.inplace_predict(columns, predict_type="margin")
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        booster.inplace_predict(columns, predict_type="margin")
        times.append(time.perf_counter() - began)
    told = pa.parquet.read_table(output, columns=["probability_of_default"])
    log_odds = served.calibration.slope * margins + served.calibration.intercept
    if np.abs(told.column(0).to_numpy() - probability(log_odds)).max() > TOLERANCE:
        sys.exit("XGBoost gives other scores")
    ours = median(run["seconds"] for run in runs)
    return {
        "rows": rows,
        "our_rows_a_second": rows / ours,
        "xgboost_rows_a_second": rows / median(times),
        "share": median(times) / ours,
        "our_megabytes": max(run["peak_mb"] for run in runs),
    }


def table(schema: Schema, rows: Floats) -> pa.Table:
    """Rows of numbers, see `Schema.vector`, as somebody's file has them."""
    columns: dict[str, pa.Array] = {}
    for spec, values in zip(schema.fields, rows.T, strict=True):
        missing = np.isnan(values)
        if spec.is_category:
            codes = pa.array(np.where(missing, 0, values).astype(np.int8), mask=missing)
            names = pa.array(spec.categories, pa.string())
            columns[spec.name] = pa.DictionaryArray.from_arrays(codes, names)
        elif spec.type == "integer":
            whole = np.where(missing, 0, values).astype(np.int64)
            columns[spec.name] = pa.array(whole, mask=missing)
        else:
            columns[spec.name] = pa.array(values, mask=missing)
    return pa.table(columns)


def _ours(loaded: ModelPackage, source: Path, output: Path) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", OURS, str(loaded.path), str(source), str(output)],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    typer.run(main)
