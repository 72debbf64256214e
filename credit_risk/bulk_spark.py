"""Bulk scoring on Apache Spark, for portfolios that outgrow one machine.

Spark reads, distributes, tries again what failed, and writes; each of its Arrow batches goes
through the same `bulk.Scorer`. The package travels with the job and is verified where it arrives.
CSV is read and written by `bulk` too, on the driver and through Parquet beside the output: Spark's
own reader has other numbers, and does not say what row it could not read.

This program has to be installed for the executors' Python, with the extra ``train``, and the
files have to lie where driver and executors see them under one path.

Which Spark it is, is Spark's own configuration (``spark-defaults.conf``, or
``PYSPARK_SUBMIT_ARGS="--master ... pyspark-shell"``); without any, one on this machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import time
import warnings
import zipfile
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from credit_risk import package as packages
from credit_risk.bulk import (
    ERRORS_SUFFIX,
    FAULT,
    RowError,
    Scorer,
    Summary,
    in_words,
    open_input,
)
from credit_risk.errors import DataInvalid, FileNotFound, OutputRefused
from credit_risk.policy import BAND_ORDER, DECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark import Broadcast
    from pyspark.sql import Row

    from credit_risk.bulk import Kind, Options
    from credit_risk.package import ModelPackage

ROWS_PER_BATCH = 65_536
_PLACE, _FILE, _ERRORS = "_place", "_file", "_errors"
_ERROR_TYPE = "array<struct<pointer:string,detail:string>>"


def score_file(package: ModelPackage, source: Path, output: Path, options: Options) -> Summary:
    """Score a Parquet file, a folder of them, or a CSV file.

    The output is one CSV file where its name ends in .csv, or else a folder of Parquet files. Rows
    are numbered through the files in the order of their names, and are in that order in
    ``output``. A run that was killed begins again; its output appears once, complete.

    Raises:
        DataInvalid: pyspark is not installed, the input is not what it should be, or see
            `Scorer.check`.
        OutputRefused: there is such an output, or no folder for it.
    """
    try:
        # Not among the libraries that every environment has.
        from pyspark.sql import SparkSession  # noqa: PLC0415
        from pyspark.sql import functions as sql  # noqa: PLC0415
        from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415
    except ImportError as error:
        raise DataInvalid("Spark is not here: install requirements/spark.txt") from error
    began = time.monotonic()
    if not source.exists():
        raise FileNotFound(f"{source} does not exist")
    if output.exists():
        raise OutputRefused(f"{output} exists: delete it, or name another output")
    if not output.parent.is_dir():
        raise OutputRefused(f"there is no folder {output.parent} for the output")
    text, into = source.suffix.lower() == ".csv", _kind(output)
    scorer = Scorer(package, options, text=text)
    staging = Path(f"{output}.spark")
    shutil.rmtree(staging, ignore_errors=True)
    readable = _as_parquet(source, scorer, staging, into) if text else source
    with _silent_about_pandas():
        spark = SparkSession.builder.appName("credit-risk score").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", ROWS_PER_BATCH)
    table = spark.read.parquet(_uri(readable))
    if not text:
        scorer.check(to_arrow_schema(table.schema), source, into)
    counted = table.groupBy(sql.col("_metadata.file_path").alias(_FILE)).count().collect()
    sizes = dict(sorted((row[_FILE], row["count"]) for row in counted))
    firsts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    rows = sum(sizes.values())
    read = table.select(
        *(sql.col(f"`{name}`") for name in [*scorer.columns, *([FAULT] if text else [])]),
        sql.col("_metadata.file_path").alias(_FILE),
        sql.col("_metadata.row_index").alias(_PLACE),
    )
    sent = spark.sparkContext.broadcast(_packed(package))
    score = partial(_score, sent, package.version, options, firsts, text=text)
    kept = [f"`{name}` {table.schema[name].dataType.simpleString()}" for name in options.keep]
    with _silent_about_pandas():
        answers = read.mapInArrow(score, _columns(kept, options))
    # Written once, so that every row is scored once: the steps below read it again.
    answers.write.parquet(_uri(staging / "scored"))
    scored = spark.read.parquet(_uri(staging / "scored"))
    scored.drop(_ERRORS).sort("row").write.parquet(_uri(staging / "output"))
    errors = Path(f"{output}{ERRORS_SUFFIX}")
    wrong = scored.where(sql.col(_ERRORS).isNotNull()).select("row", _ERRORS).sort("row")
    _write_errors(wrong.toLocalIterator(), staging / "errors")
    counts = {
        name: {row[name]: row["count"] for row in scored.groupBy(name).count().collect()}
        for name in ("decision", "risk_band")
    }
    written = staging / "output"
    if into == "csv":
        written = _as_csv(written, staging / "output.csv")
    (staging / "errors").replace(errors)
    written.replace(output)
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


@contextlib.contextmanager
def _silent_about_pandas() -> Iterator[None]:
    """Spark warns of pandas 3 altogether, but batches of Arrow never become pandas here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        yield


def _kind(output: Path) -> Kind:
    """A folder of Parquet may have any name."""
    return "csv" if output.suffix.lower() == ".csv" else "parquet"


def _as_parquet(source: Path, scorer: Scorer, folder: Path, into: Kind) -> Path:
    """A CSV file's rows as `bulk` reads them, where executors see them."""
    tables = open_input(source, scorer, ROWS_PER_BATCH, into).batches(lambda *_: True)
    _, empty = next(tables)
    folder.mkdir()
    path = folder / "input.parquet"
    with pa.parquet.ParquetWriter(path, empty.schema, compression="zstd") as writer:
        for _, table in tables:
            writer.write_table(table)
    return path


def _write_errors(rows: Iterator[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            for fault in row[_ERRORS]:
                line = {"row": row["row"], **fault.asDict()}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _as_csv(folder: Path, path: Path) -> Path:
    """A folder of Parquet files, in the order of their names, as one CSV file."""
    # Of an input without rows there is a file too.
    files = sorted(folder.glob("*.parquet"))
    none = in_words(pa.parquet.read_schema(files[0]).empty_table())
    with pa.csv.CSVWriter(path, none.schema) as writer:
        for file in files:
            with pa.parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(ROWS_PER_BATCH):
                    writer.write_table(in_words(pa.Table.from_batches([batch])))
    return path


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
    *,
    text: bool,
) -> Iterator[pa.RecordBatch]:
    """Score the batches of one task; runs on an executor."""
    scorer = _scorer(sent, version, options, text=text)
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


_SCORERS: dict[tuple[str, Options, bool], Scorer] = {}
"""Those of an executor's Python process, which works on one task after another."""


def _scorer(sent: Broadcast[bytes], version: str, options: Options, *, text: bool) -> Scorer:
    key = (version, options, text)
    if key not in _SCORERS:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(io.BytesIO(sent.value)) as archive:
                archive.extractall(folder)
            _SCORERS[key] = Scorer(packages.load(Path(folder), version), options, text=text)
    return _SCORERS[key]


def _by_row(numbers: list[int], errors: list[RowError]) -> pa.Array:
    """The errors of each row, null where there are none."""
    found: dict[int, list[dict[str, str]]] = {}
    for e in errors:
        fault = {"pointer": e.error.pointer, "detail": e.error.detail}
        found.setdefault(e.row, []).append(fault)
    fault_type = pa.struct({"pointer": pa.string(), "detail": pa.string()})
    return pa.array([found.get(number) for number in numbers], pa.list_(fault_type))
