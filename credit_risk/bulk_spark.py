"""Bulk scoring on Apache Spark, for portfolios that outgrow one machine.

Spark reads, distributes, tries again what failed, and writes; each of its Arrow batches goes
through the same `bulk.Scorer`. The package travels with the job and is verified where it arrives.
This program has to be installed for the executors' Python, with the extra ``train``, and the
files have to lie where driver and executors see them under one path.

Which Spark it is, is Spark's own configuration (``spark-defaults.conf``, or
``PYSPARK_SUBMIT_ARGS="--master ... pyspark-shell"``); without any, one on this machine.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import time
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from credit_risk import package as packages
from credit_risk.bulk import ERRORS_SUFFIX, RowError, Scorer, Summary
from credit_risk.errors import DataInvalid, FileNotFound, OutputRefused
from credit_risk.policy import BAND_ORDER, DECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark import Broadcast

    from credit_risk.bulk import Options
    from credit_risk.package import ModelPackage

ROWS_PER_BATCH = 65_536
_PLACE, _FILE, _ERRORS = "_place", "_file", "_errors"
_ERROR_TYPE = "array<struct<pointer:string,detail:string>>"


def score_file(package: ModelPackage, source: Path, output: Path, options: Options) -> Summary:
    """Score a Parquet file, or a folder of them, to a folder of Parquet files.

    Rows are numbered through the files in the order of their names, and are in that order in
    ``output``. A run that was killed starts again; its output appears once, complete.

    Raises:
        DataInvalid: pyspark is not installed, a path is one of CSV, or see `Scorer.check`.
        OutputRefused: there is such an output.
    """
    try:
        # Not among the libraries that every environment has.
        from pyspark.sql import SparkSession  # noqa: PLC0415
        from pyspark.sql import functions as sql  # noqa: PLC0415
    except ImportError as error:
        raise DataInvalid("Spark is not here: install requirements/spark.txt") from error
    began = time.monotonic()
    if ".csv" in (source.suffix, output.suffix):
        raise DataInvalid("scoring on Spark reads and writes Parquet; CSV is for the local engine")
    if not source.exists():
        raise FileNotFound(f"{source} does not exist")
    if output.exists():
        raise OutputRefused(f"{output} exists: delete it, or name another output")
    spark = SparkSession.builder.appName("credit-risk score").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", ROWS_PER_BATCH)
    table = spark.read.parquet(_uri(source))
    scorer = Scorer(package, options)
    scorer.check(table.columns, source)
    files = [
        (row[_FILE], row["count"])
        for row in table.groupBy(sql.col("_metadata.file_path").alias(_FILE)).count().collect()
    ]
    firsts: dict[str, int] = {}
    rows = 0
    for name, count in sorted(files):
        firsts[name] = rows
        rows += count
    read = table.select(
        *(sql.col(f"`{name}`") for name in scorer.columns),
        sql.col("_metadata.file_path").alias(_FILE),
        sql.col("_metadata.row_index").alias(_PLACE),
    )
    sent = spark.sparkContext.broadcast(_packed(package))
    score = partial(_score, sent, package.version, options, firsts)
    staging = Path(f"{output}.spark")
    shutil.rmtree(staging, ignore_errors=True)
    kept = [f"`{name}` {table.schema[name].dataType.simpleString()}" for name in options.keep]
    with warnings.catch_warnings():
        # Of pandas 3 altogether; batches of Arrow never become pandas.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        answers = read.mapInArrow(score, _columns(kept, options))
    # Written once, so that every row is scored once: the steps below read it again.
    answers.write.parquet(_uri(staging / "scored"))
    scored = spark.read.parquet(_uri(staging / "scored"))
    scored.drop(_ERRORS).sort("row").write.parquet(_uri(staging / "output"))
    errors = Path(f"{output}{ERRORS_SUFFIX}")
    wrong = scored.where(sql.col(_ERRORS).isNotNull()).select("row", _ERRORS).sort("row")
    with (staging / "errors").open("w", encoding="utf-8") as file:
        for row in wrong.toLocalIterator():
            for fault in row[_ERRORS]:
                line = {"row": row["row"], **fault.asDict()}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    counts = {
        name: {row[name]: row["count"] for row in scored.groupBy(name).count().collect()}
        for name in ("decision", "risk_band")
    }
    (staging / "errors").replace(errors)
    (staging / "output").replace(output)
    shutil.rmtree(staging)
    refused = counts["decision"].get(None, 0)
    return Summary(
        rows=rows,
        scored=rows - refused,
        refused=refused,
        decisions={name: counts["decision"].get(name, 0) for name in DECISIONS},
        bands={name: counts["risk_band"].get(name, 0) for name in BAND_ORDER},
        rows_resumed=0,
        seconds=round(time.monotonic() - began, 3),
        portfolio=package.portfolio,
        model_version=package.version,
        policy_version=package.policy_version,
        output=str(output),
        errors=str(errors),
    )


def _uri(path: Path) -> str:
    """Of this machine or a mounted share, whatever Spark's default file system is."""
    return path.absolute().as_uri()


def _columns(kept: list[str], options: Options) -> str:
    """The output's columns and the errors, as Spark's DDL."""
    return ", ".join(
        [
            "row bigint",
            *kept,
            "probability_of_default double",
            "prediction tinyint",
            "risk_band string",
            "decision string",
            "rules array<string>",
            "model_version string",
            "policy_version string",
            *(["reasons array<string>"] if options.reasons else []),
            f"{_ERRORS} {_ERROR_TYPE}",
        ]
    )


def _packed(package: ModelPackage) -> bytes:
    """The package's folder as one archive."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(shutil.make_archive(f"{folder}/package", "zip", package.path)).read_bytes()


def _score(
    sent: Broadcast[bytes],
    version: str,
    options: Options,
    firsts: dict[str, int],
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Score the batches of one task; runs on an executor."""
    scorer = _scorer(sent, version, options)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        starts = pa.array([firsts[name] for name in table[_FILE].to_pylist()], pa.int64())
        numbers = pc.add(table[_PLACE], starts).to_numpy()
        answers, errors = scorer.score(table, numbers)
        answers = answers.append_column(_ERRORS, _by_row(numbers.tolist(), errors))
        plain = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in answers.columns
        ]
        yield from pa.table(plain, answers.column_names).combine_chunks().to_batches()


_SCORERS: dict[tuple[str, Options], Scorer] = {}
"""Those of an executor's Python process, which works on one task after another."""


def _scorer(sent: Broadcast[bytes], version: str, options: Options) -> Scorer:
    key = (version, options)
    if key not in _SCORERS:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(io.BytesIO(sent.value)) as archive:
                archive.extractall(folder)
            _SCORERS[key] = Scorer(packages.load(Path(folder), version), options)
    return _SCORERS[key]


def _by_row(numbers: list[int], errors: list[RowError]) -> pa.Array:
    """The errors of each row, null where there are none."""
    found: dict[int, list[dict[str, str]]] = {}
    for e in errors:
        fault = {"pointer": e.error.pointer, "detail": e.error.detail}
        found.setdefault(e.row, []).append(fault)
    fault_type = pa.struct({"pointer": pa.string(), "detail": pa.string()})
    return pa.array([found.get(number) for number in numbers], pa.list_(fault_type))
