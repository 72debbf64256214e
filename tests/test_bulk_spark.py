"""Bulk scoring on Spark: what one machine answers, from executors in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from credit_risk import bulk, bulk_spark, package
from credit_risk.bulk import Options
from credit_risk.errors import DataInvalid, FileNotFound, OutputRefused
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage

ROOT = Path(__file__).parent.parent
INSTALLED = importlib.util.find_spec("pyspark")

RUN = """\
import sys
from pathlib import Path
from credit_risk import bulk, bulk_spark, package
loaded, folder = package.load(Path(sys.argv[1])), Path(sys.argv[2])
bulk_spark.score_file(loaded, folder / "in.parquet", folder / "out", bulk.Options())
"""

needs_spark = pytest.mark.skipif(
    INSTALLED is None or shutil.which("java") is None,
    reason="pyspark or Java is not here: `make test-spark` installs the one and wants the other",
)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two executors, each a Java process with Python processes of its own."""
    assert INSTALLED is not None
    assert INSTALLED.origin is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPARK_HOME", str(Path(INSTALLED.origin).parent))
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patched.setenv("PYSPARK_PYTHON", sys.executable)
        # Executors find the program of this checkout, and pyspark where it was found here.
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        from pyspark.sql import SparkSession  # noqa: PLC0415 - see `needs_spark`

        session = (
            SparkSession.builder.master("local-cluster[2,1,1024]")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.files.maxPartitionBytes", "40k")
            .config("spark.sql.files.openCostInBytes", "0")
            .config("spark.local.dir", str(tmp_path_factory.mktemp("spark")))
            .config("spark.worker.cleanup.enabled", "false")
            .getOrCreate()
        )
        yield session
        session.stop()


@pytest.fixture
def loaded(tmp_path: Path) -> ModelPackage:
    """The toy package, in a folder that stays."""
    return package.load(toys.write_package(tmp_path / "packages", "trees"))


def leases(rows: int) -> pa.Table:
    """Leases with a number each, one in ten of them with nothing right about its age."""
    drawn = toys.applications(rows)
    ages = [None if i % 20 == 3 else 7 if i % 20 == 9 else a["age"] for i, a in enumerate(drawn)]
    columns = {name: [a[name] for a in drawn] for name in toys.SAFE if name != "age"}
    return pa.table({"lease": [f"L{i}" for i in range(rows)], "age": ages, **columns})


@needs_spark
def test_two_executors_answer_what_one_machine_does(
    spark: Any,  # noqa: ANN401 - pyspark may not be there
    loaded: ModelPackage,
    tmp_path: Path,
) -> None:
    """Row for row and in order, with every option, from several files."""
    rows = leases(9_000)
    (tmp_path / "in").mkdir()
    for i, size in enumerate((4_000, 5_000)):
        file = tmp_path / "in" / f"part {i}.parquet"
        pa.parquet.write_table(rows.slice(4_000 * i, size), file, row_group_size=500)
    pa.parquet.write_table(rows, tmp_path / "in.parquet")
    options = Options(keep=("lease", "age"), reasons=True)

    summary = bulk_spark.score_file(loaded, tmp_path / "in", tmp_path / "spark", options)
    local = bulk.score_file(loaded, tmp_path / "in.parquet", tmp_path / "one.parquet", options)

    found = pa.parquet.read_table(tmp_path / "spark")
    expected = pa.parquet.read_table(tmp_path / "one.parquet")
    assert found.column_names == expected.column_names
    assert found.to_pylist() == expected.to_pylist()
    errors = [Path(f"{tmp_path}/{name}.errors.jsonl") for name in ("spark", "one.parquet")]
    assert errors[0].read_bytes() == errors[1].read_bytes()
    assert len(errors[0].read_text(encoding="utf-8").splitlines()) == 900
    assert json.loads(errors[0].read_text(encoding="utf-8").splitlines()[0])["row"] == 3
    same = ("rows", "scored", "refused", "decisions", "bands", "model_version")
    assert [summary.to_json()[n] for n in same] == [local.to_json()[n] for n in same]
    assert not (tmp_path / "spark.spark").exists()
    # The cluster's own word for it: the driver and two more.
    assert spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() == 3  # noqa: SLF001


@needs_spark
@pytest.mark.usefixtures("spark")
def test_what_a_killed_run_left_is_not_taken_for_its_output(
    loaded: ModelPackage, tmp_path: Path
) -> None:
    """It is scored again; an output that exists stays, and wrong columns end it at once."""
    pa.parquet.write_table(leases(40), tmp_path / "in.parquet")
    (tmp_path / "out.spark" / "scored").mkdir(parents=True)
    (tmp_path / "out.spark" / "scored" / "part-0.parquet").write_bytes(b"half")

    summary = bulk_spark.score_file(loaded, tmp_path / "in.parquet", tmp_path / "out", Options())

    assert summary.rows == pa.parquet.read_table(tmp_path / "out").num_rows == 40
    with pytest.raises(OutputRefused, match="exists"):
        bulk_spark.score_file(loaded, tmp_path / "in.parquet", tmp_path / "out", Options())
    with pytest.raises(DataInvalid, match="unknown columns: lease"):
        bulk_spark.score_file(
            loaded, tmp_path / "in.parquet", tmp_path / "other", Options(strict=True)
        )


@needs_spark
@pytest.mark.usefixtures("spark")
def test_csv_is_read_and_written_as_one_machine_does(loaded: ModelPackage, tmp_path: Path) -> None:
    """The same bytes, and the same errors of rows that are no rows."""
    source = tmp_path / "in.csv"
    pa.csv.write_csv(leases(900), source)
    lines = source.read_text(encoding="utf-8").splitlines()
    lines[5], lines[8] = "one", f"{lines[8]},more"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = Options(keep=("lease", "age"), reasons=True)

    summary = bulk_spark.score_file(loaded, source, tmp_path / "spark.csv", options)
    bulk.score_file(loaded, source, tmp_path / "one.csv", options)

    assert (tmp_path / "spark.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    errors = [Path(f"{tmp_path}/{name}.csv.errors.jsonl") for name in ("spark", "one")]
    assert errors[0].read_bytes() == errors[1].read_bytes()
    assert summary.refused == 92
    assert not (tmp_path / "spark.csv.spark").exists()


@needs_spark
def test_a_spark_of_this_machine_runs_without_a_warning(
    loaded: ModelPackage, tmp_path: Path
) -> None:
    """In a process of its own, as the command starts it: Python's warnings would be errors."""
    pa.parquet.write_table(leases(40), tmp_path / "in.parquet")
    environment = {k: v for k, v in os.environ.items() if k != "SPARK_HOME"}
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])

    subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-W", "error::FutureWarning", "-c", RUN, loaded.path, tmp_path],
        env=environment | {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": paths},
        check=True,
    )

    assert pa.parquet.read_table(tmp_path / "out").num_rows == 40


@needs_spark
@pytest.mark.usefixtures("spark")
def test_wrong_types_are_told_before_the_run_begins(loaded: ModelPackage, tmp_path: Path) -> None:
    """As on one machine, with a path that leads nowhere and an output that has no folder."""
    rows = leases(4)
    rows = rows.set_column(1, "age", rows["age"].cast(pa.string()))
    pa.parquet.write_table(rows, tmp_path / "in.parquet")

    with pytest.raises(DataInvalid, match="column age is string"):
        bulk_spark.score_file(loaded, tmp_path / "in.parquet", tmp_path / "out", Options())
    with pytest.raises(FileNotFound, match="does not exist"):
        bulk_spark.score_file(loaded, tmp_path / "no", tmp_path / "out", Options())
    with pytest.raises(OutputRefused, match="no folder"):
        bulk_spark.score_file(loaded, tmp_path / "in.parquet", tmp_path / "no" / "o", Options())


@pytest.mark.skipif(INSTALLED is not None, reason="pyspark is here")
def test_without_pyspark_it_says_what_to_install(loaded: ModelPackage, tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(DataInvalid, match="requirements/spark"):
        bulk_spark.score_file(loaded, tmp_path / "in", tmp_path / "out", Options())
