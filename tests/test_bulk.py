"""Bulk scoring: the server's answers, whole files, and what being killed leaves."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import bulk, package, portfolio
from credit_risk.bulk import Options, Scorer, score_file
from credit_risk.errors import (
    ApplicationInvalid,
    DataInvalid,
    ExplanationFailed,
    FieldError,
    OutputRefused,
)
from credit_risk.scoring import decide
from credit_risk.training import preparation, settings
from tests import strategies, toys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
TOY = toys.load_package("trees")
DIRT: tuple[Application, ...] = (
    {"age": 17},
    {"age": 44.5},
    {"age": None},
    {"income": float("inf")},
    {"income": float("nan")},
    {"price": -1.0, "use": "flying", "history": None},
    {"years_employed": 51.0},
    {"history": "Good"},
)
"""What is wrong with some rows, in types that a column of a table can hold."""

RUN = """\
import sys, time
from pathlib import Path
from credit_risk import bulk, package
folder, source, output, rows = sys.argv[1:]
bulk.score_file(
    package.load(Path(folder)), Path(source), Path(output), bulk.Options(reasons=True),
    rows_per_part=int(rows), progress=lambda *_: time.sleep(0.01),
)
"""
MEASURED = """\
import resource, sys
from pathlib import Path
from credit_risk import bulk, package
folder, source, output = sys.argv[1:]
bulk.score_file(package.load(Path(folder)), Path(source), Path(output), bulk.Options())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def table(applications: list[Application]) -> pa.Table:
    """Applications as a table with the toy schema's columns; ages may be fractions."""
    kinds = {"history": pa.string(), "use": pa.string()}
    return pa.table(
        {
            name: pa.array([a.get(name) for a in applications], kinds.get(name, pa.float64()))
            for name in TOY.schema.names
        }
    )


def mixed(rows: int) -> list[Application]:
    """Drawn applications, about one in ten of them with something wrong."""
    drawn = toys.applications(rows)
    return [a | DIRT[i // 10 % len(DIRT)] if i % 10 == 3 else a for i, a in enumerate(drawn)]


def write(path: Path, rows: pa.Table, **options: Any) -> Path:  # noqa: ANN401 - pyarrow's
    """Write a table as the file's suffix says."""
    if path.suffix == ".csv":
        pa.csv.write_csv(rows, path, **options)
    else:
        pa.parquet.write_table(rows, path, **options)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """A written file's rows; a null's column is None."""
    rows: list[dict[str, Any]] = pa.parquet.read_table(path).to_pylist()
    return rows


def errors(output: Path) -> list[dict[str, Any]]:
    """The side file's lines."""
    text = Path(f"{output}.errors.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def by_server(
    loaded: ModelPackage, applications: list[Application]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the request path answers to each row, in the columns of the output, and its errors."""
    answers: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for row, application in enumerate(applications):
        # JSON has no NaN: a missing value is null.
        sent = {k: None if v != v else v for k, v in application.items()}  # noqa: PLR0124
        answer: dict[str, Any] = dict.fromkeys(bulk.ANSWER_COLUMNS) | {"row": row}
        try:
            (decision,) = decide(loaded, [loaded.schema.validate_application(sent)])
        except ApplicationInvalid as error:
            problems += [
                {"row": row, "pointer": e.pointer, "detail": e.detail} for e in error.errors
            ]
        else:
            outcome = decision.outcome
            answer |= {
                "probability_of_default": decision.probability_of_default,
                "prediction": outcome.prediction,
                "risk_band": outcome.band,
                "decision": outcome.decision,
                "rules": [rule.name for rule in outcome.rules],
                "model_version": loaded.version,
                "policy_version": loaded.policy_version,
                "reasons": [reason.code for reason in decision.reasons],
            }
        answers.append(answer)
    return answers, problems


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal but for the last bits of a PD."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        pd_ = other["probability_of_default"]
        close = None if pd_ is None else pytest.approx(pd_, rel=0, abs=1e-12)
        assert one == other | {"probability_of_default": close}


@pytest.mark.parametrize("kind", ["trees", "linear"])
def test_every_row_is_answered_as_the_server_answers_it(kind: toys.Kind, tmp_path: Path) -> None:
    """Decision, PD, band, rules, versions, reasons, and the words of every error; order kept."""
    loaded = toys.load_package(kind)
    applications = mixed(700)
    source = write(tmp_path / "in.parquet", table(applications), row_group_size=130)

    summary = score_file(
        loaded, source, tmp_path / "out.parquet", Options(reasons=True), rows_per_part=97
    )

    answers, problems = by_server(loaded, applications)
    same(read(tmp_path / "out.parquet"), answers)
    assert errors(tmp_path / "out.parquet") == problems
    assert len({p["detail"] for p in problems}) >= 6
    assert summary.rows == 700
    assert summary.refused == len({p["row"] for p in problems}) == 700 - summary.scored
    assert sum(summary.decisions.values()) == sum(summary.bands.values()) == summary.scored
    assert summary.rows_resumed == 0


@given(st.lists(strategies.applications(TOY.schema), max_size=20))
def test_any_valid_application_is_answered_as_the_server_answers_it(
    applications: list[Application],
) -> None:
    """Values at the ends of their ranges, and missing ones, too."""
    answers, found = Scorer(TOY, Options(reasons=True)).score(table(applications), 0)

    assert found == []
    same(answers.to_pylist(), by_server(TOY, applications)[0])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                f.name: st.none() | st.sampled_from(["", "good", "racing", "Good", "poor "])
                if f.is_category
                else st.none() | st.floats() | st.sampled_from([18.0, 100.0, 50.0, 20000.0])
                for f in TOY.schema.fields
            }
        ),
        max_size=8,
    )
)
def test_any_row_at_all_is_refused_in_the_words_of_the_server(
    applications: list[Application],
) -> None:
    """The checks of whole columns let nothing through and refuse nothing more."""
    answers, found = Scorer(TOY, Options(reasons=True)).score(table(applications), 0)

    expected, problems = by_server(TOY, applications)
    same(answers.to_pylist(), expected)
    assert [e.to_json() for e in found] == problems


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"age": pa.array(["34"])}, "Input should be a valid integer"),
        ({"age": pa.array([True])}, "Input should be a valid integer"),
        ({"age": pa.array([None], pa.null())}, "Input should be a valid integer"),
        ({"price": pa.array([0], pa.timestamp("s"))}, "Input should be a valid number"),
        ({"use": pa.array([1])}, "Input should be 'cargo', 'commuting' or 'racing'"),
        ({"use": pa.array([b"racing"])}, "Input should be 'cargo', 'commuting' or 'racing'"),
    ],
)
def test_a_column_of_the_wrong_type_is_an_error_of_each_row(
    columns: dict[str, pa.Array], detail: str
) -> None:
    """As a request with such values would be refused; text is no number there either."""
    rows = table([TOY.schema.example])
    for name, column in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, column)

    answers, found = Scorer(TOY, Options()).score(rows, 5)

    (name,) = columns
    assert found == [bulk.RowError(5, FieldError(f"/{name}", detail))]
    assert answers.column("decision").to_pylist() == [None]


def test_numbers_of_every_type_and_coded_categories_are_read() -> None:
    """Narrow integers, decimals, floats, dictionaries that differ by chunk, long strings."""
    rows = table([TOY.schema.example, toys.SAFE])
    expected = Scorer(TOY, Options()).score(rows, 0)[0]
    kinds = {
        "age": pa.int8(),
        "income": pa.decimal128(12, 2),
        "price": pa.uint32(),
        "years_employed": pa.float32(),
        "use": pa.large_string(),
    }
    for name, kind in kinds.items():
        rows = rows.set_column(rows.column_names.index(name), name, rows[name].cast(kind))
    coded = pa.chunked_array([pa.array([h]).dictionary_encode() for h in ("mixed", "good")])
    rows = rows.set_column(rows.column_names.index("history"), "history", coded)
    assert rows["income"].to_pylist()[0] == Decimal(2500)

    answers, found = Scorer(TOY, Options()).score(rows, 0)

    assert found == []
    assert answers.equals(expected)


def test_csv_and_parquet_give_the_same_answers_and_errors(tmp_path: Path) -> None:
    """Each into each; lists are words in CSV."""
    applications = mixed(300)
    # Infinity has no spelling in CSV that is a number.
    applications = [a for a in applications if a["income"] != float("inf")]
    rows = table(applications)
    write(tmp_path / "in.parquet", rows)
    write(tmp_path / "in.csv", rows)

    for source in ("in.parquet", "in.csv"):
        for output in ("out.parquet", "out.csv"):
            score_file(
                TOY,
                tmp_path / source,
                tmp_path / f"{source}.{output}",
                Options(reasons=True),
                rows_per_part=64,
            )

    answers, problems = by_server(TOY, applications)
    for source in ("in.parquet", "in.csv"):
        same(read(tmp_path / f"{source}.out.parquet"), answers)
        nan = [p for p in errors(tmp_path / f"{source}.out.csv") if p not in problems]
        assert {p["pointer"] for p in nan} <= {"/income"}
        with (tmp_path / f"{source}.out.csv").open(newline="", encoding="utf-8") as file:
            words = list(csv.DictReader(file))
        assert [w["rules"].split() for w in words] == [a["rules"] or [] for a in answers]
        assert [w["reasons"].split() for w in words] == [a["reasons"] or [] for a in answers]
        assert [w["decision"] for w in words] == [a["decision"] or "" for a in answers]
        pds = [float(w["probability_of_default"]) for w in words if w["decision"]]
        expected = [a["probability_of_default"] for a in answers if a["decision"]]
        assert pds == pytest.approx(expected, rel=0, abs=1e-12)


def test_text_in_numbers_of_a_csv_file_is_refused_and_never_quoted(tmp_path: Path) -> None:
    """Only what JSON would call a number is one; an empty cell is missing."""
    header = ",".join(TOY.schema.names)
    cells = [
        "34",
        "3.4e1",
        "34.0",
        "abc",
        "nan",
        "inf",
        "0x22",
        "1e999",
        "1_0",
        " 34",
        "34 years",
        "",
    ]
    lines = [f"{cell},2500,1200,,mixed,commuting" for cell in cells]
    source = tmp_path / "in.csv"
    source.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")

    score_file(TOY, source, tmp_path / "out.parquet", Options())

    decided = [row["decision"] is not None for row in read(tmp_path / "out.parquet")]
    assert decided == [True] * 3 + [False] * 9
    assert [e["row"] for e in errors(tmp_path / "out.parquet")] == list(range(3, 12))
    text = Path(f"{tmp_path}/out.parquet.errors.jsonl").read_text(encoding="utf-8")
    assert "years" not in text
    assert "abc" not in text


def test_columns_asked_for_are_carried_over_as_they_are(tmp_path: Path) -> None:
    """Identifiers keep their type, or in CSV their spelling; a field may be kept as well."""
    rows = table([toys.SAFE, toys.RISKY, toys.SAFE])
    rows = rows.append_column("customer", pa.array(["007", "008", None]).dictionary_encode())
    rows = rows.append_column("account", pa.array([7, 8, 9], pa.int32()))
    for name in ("in.parquet", "in.csv"):
        options = Options(keep=("customer", "account", "age"))
        score_file(
            TOY, write(tmp_path / name, rows), tmp_path / f"{name}.out.parquet", options,
            rows_per_part=2,
        )  # fmt: skip

    found = pa.parquet.read_table(tmp_path / "in.parquet.out.parquet")
    assert found.column_names[:4] == ["row", "customer", "account", "age"]
    assert "reasons" not in found.column_names
    assert found["customer"].to_pylist() == ["007", "008", None]
    assert found["account"].type == pa.int32()
    assert found["age"].to_pylist() == [60.0, 19.0, 60.0]
    spelled = pa.parquet.read_table(tmp_path / "in.csv.out.parquet")
    assert spelled["customer"].to_pylist() == ["007", "008", None]
    assert spelled["account"].to_pylist() == ["7", "8", "9"]


def retyped(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    """A table with one column of another type, all null: the type alone is wrong."""

    def change(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index(name)
        return rows.set_column(place, name, pa.nulls(len(rows), kind))

    return change


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (lambda t: t.drop_columns(["years_employed"]), Options(), "no column years_employed"),
        (lambda t: t, Options(keep=("customer",)), "no column customer"),
        (lambda t: t.append_column("decision", t["age"]), Options(keep=("decision",)), "decision"),
        (
            lambda t: t.append_column("note", t["age"]),
            Options(strict=True),
            "unknown columns: note",
        ),
        (lambda t: t.append_column("age", t["age"]), Options(), "age more than once"),
        (retyped("income", pa.string()), Options(), "column income is string and has to be num"),
        (retyped("age", pa.bool_()), Options(), "column age is bool and has to be numbers"),
        (retyped("use", pa.binary()), Options(), "column use is binary and has to be text"),
        (
            lambda t: retyped("age", pa.bool_())(retyped("use", pa.large_binary())(t)),
            Options(),
            "age is bool and has to be numbers; column use is large_binary and has to be text",
        ),
    ],
)
def test_wrong_columns_end_the_run_before_it_begins(
    change: Callable[[pa.Table], pa.Table], options: Options, told: str, tmp_path: Path
) -> None:
    """A field that may be null still needs its column: a misspelt name changes every score."""
    source = write(tmp_path / "in.parquet", change(table([toys.SAFE])))

    with pytest.raises(DataInvalid, match=told) as caught:
        score_file(TOY, source, tmp_path / "out.parquet", options)

    assert str(source) in str(caught.value) or "cannot be kept" in str(caught.value)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in.parquet"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["a", "b"]]),
        pa.array([{"a": 1}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
    ],
)
def test_a_column_of_lists_structs_or_maps_is_kept_in_parquet_only(
    values: pa.Array, tmp_path: Path
) -> None:
    """For CSV it is refused before the run begins."""
    rows = table([toys.SAFE]).append_column("history of", values)
    source = write(tmp_path / "in.parquet", rows)
    options = Options(keep=("history of",))

    with pytest.raises(DataInvalid, match=r"history of of .*in.parquet cannot be kept in CSV"):
        score_file(TOY, source, tmp_path / "out.csv", options)

    assert [f.name for f in tmp_path.iterdir()] == ["in.parquet"]
    score_file(TOY, source, tmp_path / "out.parquet", options)
    assert pa.parquet.read_table(tmp_path / "out.parquet")["history of"].to_pylist() == (
        values.to_pylist()
    )


def test_columns_of_nothing_but_nulls_are_of_every_type(tmp_path: Path) -> None:
    """As pandas writes a column without values: missing, where it may be missing."""
    rows = retyped("years_employed", pa.null())(table([toys.SAFE]))
    source = write(tmp_path / "in.parquet", rows.append_column("note", pa.nulls(1)))

    summary = score_file(TOY, source, tmp_path / "out.csv", Options(keep=("note",)))

    assert summary.scored == 1


def test_unknown_columns_are_let_be(tmp_path: Path) -> None:
    """A portfolio's file holds more than an application; strict also lets kept ones be."""
    rows = table([toys.SAFE]).append_column("note", pa.array(["x"]))
    source = write(tmp_path / "in.parquet", rows)

    score_file(TOY, source, tmp_path / "a.parquet", Options())
    score_file(TOY, source, tmp_path / "b.parquet", Options(strict=True, keep=("note",)))

    assert read(tmp_path / "b.parquet")[0]["note"] == "x"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("in.parquet", b"no such thing", "is not a Parquet file, or not a whole one"),
        ("in.parquet", b"", "is not a Parquet file, or not a whole one"),
        ("in.csv", b"age,income\n1,2\n", "has no column price, years_employed, history, use"),
        (
            "in.csv",
            b"age;income\n1;2\n",
            ".*: are its values separated by commas",
        ),
        ("in.csv", b"", "is empty"),
        ("in.csv", b"\xff\xfe", "is not CSV in UTF-8"),
        ("in.txt", b"", "its name ends in neither"),
        ("in.csv", None, "cannot be read: No such file"),
        ("in.parquet", None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_table_is_refused(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    """In one line that names the file and says why."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(DataInvalid, match=rf"{name}:? {told}"):
        score_file(TOY, tmp_path / name, tmp_path / "out.parquet", Options())

    assert not (tmp_path / "out.parquet").exists()


GOOD = "34,2500,1200,,mixed,commuting"
"""A row of the toy schema, as CSV has it."""


def csv_file(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    """A CSV file with the toy schema's header before the lines."""
    text = "\n".join([",".join(TOY.schema.names), *lines, ""])
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_a_csv_row_of_too_few_or_many_values_is_an_error_of_its_own(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is, in blocks of any size; the rows around it keep their numbers."""
    monkeypatch.setattr(bulk, "_CSV_BLOCK", block)
    monkeypatch.setattr(bulk, "_UNEVEN_AT_ONCE", 3)
    uneven = {0: 2, 1: 7, 12: 1, 20: 2, 21: 2, 22: 2, 23: 2, 24: 2, 25: 2, 26: 2, 39: 9}
    rows = [",".join(["secret"] * uneven[i]) if i in uneven else GOOD for i in range(40)]
    # Empty lines are no rows, and a row may be of several lines.
    rows[5] = "\n\n" + rows[5]
    rows[6] = '34,2500,1200,,"mi\nxed",commuting'
    source = csv_file(tmp_path / "in.csv", rows)

    summary = score_file(TOY, source, tmp_path / "out.parquet", Options(), rows_per_part=8)

    found = read(tmp_path / "out.parquet")
    assert [row["row"] for row in found] == list(range(40))
    assert [i for i, row in enumerate(found) if row["decision"] is None] == sorted([*uneven, 6])
    told = [(e["row"], e["pointer"], e["detail"]) for e in errors(tmp_path / "out.parquet")]
    assert [e for e in told if e[0] != 6] == [
        (row, "", f"Row has {values} values, the header 6") for row, values in uneven.items()
    ]
    assert (summary.rows, summary.refused) == (40, 12)


@pytest.mark.parametrize("rows", [1, 7, 8, 40])
def test_a_csv_file_of_which_no_row_can_be_read_has_an_error_of_each(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each row ends in a comma and the header does not."""
    monkeypatch.setattr(bulk, "_CSV_BLOCK", 256)
    source = csv_file(tmp_path / "in.csv", [f"{GOOD},"] * rows)

    summary = score_file(TOY, source, tmp_path / "out.csv", Options(), rows_per_part=8)

    assert (summary.rows, summary.scored) == (rows, 0)
    assert errors(tmp_path / "out.csv") == [
        {"row": row, "pointer": "", "detail": "Row has 7 values, the header 6"}
        for row in range(rows)
    ]


@given(
    st.lists(st.sampled_from([GOOD, "1", "\xe9,2,3,4,5,6,7", "\xe9,1,1,,good,cargo"]), max_size=40),
    st.sampled_from([64, 100, 1_000]),
    st.integers(1, 9),
)
def test_rows_that_cannot_be_read_never_move_the_others(
    rows: list[str], block: int, rows_per_part: int
) -> None:
    """Each row's answer is that of the row alone."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(bulk, "_CSV_BLOCK", block)
        source = csv_file(Path(folder) / "in.csv", rows, "latin-1")
        output = Path(folder) / "out.parquet"

        score_file(TOY, source, output, Options(), rows_per_part=rows_per_part)

        assert [row["decision"] is not None for row in read(output)] == [r == GOOD for r in rows]
        assert [e["row"] for e in errors(output)] == [i for i, r in enumerate(rows) if r != GOOD]


def test_a_csv_value_that_is_not_utf_8_is_an_error_of_its_row(tmp_path: Path) -> None:
    """Of fields and of columns kept; of a column that is not read nobody knows."""
    source = tmp_path / "in.csv"
    head = f"{','.join(TOY.schema.names)},name,note\n".encode()
    lines = [
        GOOD.encode() + b",Mayer,x",
        GOOD.encode() + b",M\xfcller,x",
        GOOD.encode() + "ä,Müller,x".encode(),
        GOOD.encode().replace(b"mixed", b"m\xefxed") + b",Mayer,x",
        GOOD.encode() + b",Mayer,\xff",
    ]
    source.write_bytes(head + b"\n".join(lines))

    score_file(TOY, source, tmp_path / "out.parquet", Options(keep=("name",)))

    found = read(tmp_path / "out.parquet")
    assert [row["name"] for row in found] == ["Mayer", "M\ufffdller", "Müller", "Mayer", "Mayer"]
    assert [row["decision"] is None for row in found] == [False, True, True, True, False]
    told = errors(tmp_path / "out.parquet")
    assert [(e["row"], e["detail"]) for e in told if e["row"] != 2] == [
        (1, "Column name is not UTF-8"),
        (3, "Column history is not UTF-8"),
    ]


@pytest.mark.parametrize("cell", ["mixed", "commuting", "34"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quotation_mark_open_at_the_end_of_a_file_loses_no_rows(
    cell: str, end: str, tmp_path: Path
) -> None:
    """All that follows it would be one value, of a row that may even have the right number."""
    rows = [GOOD, GOOD, GOOD.replace(cell, f'"{cell}'), GOOD, GOOD]
    source = csv_file(tmp_path / "in.csv", rows)
    source.write_text(source.read_text(encoding="utf-8").rstrip("\n") + end, encoding="utf-8")

    with pytest.raises(DataInvalid, match=r"in.csv: row 2 cannot be read: .* not closed"):
        score_file(TOY, source, tmp_path / "out.csv", Options())

    assert [f.name for f in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("uneven", [0, 3])
def test_a_quotation_mark_that_is_never_closed_is_told_with_its_row(
    uneven: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows it cannot be told apart; the file can be mended and scored."""
    monkeypatch.setattr(bulk, "_CSV_BLOCK", 256)
    lines = ["1"] * uneven + [GOOD] * 100
    broken = [*lines, GOOD.replace("mixed", '"mixed'), *[GOOD] * 100]
    source = csv_file(tmp_path / "in.csv", broken)
    output = tmp_path / "out.parquet"

    with pytest.raises(DataInvalid, match=f"in.csv: row {100 + uneven} cannot be read") as caught:
        score_file(TOY, source, output, Options(), rows_per_part=20)

    assert "mixed" not in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == ["in.csv"]
    csv_file(source, lines)
    assert score_file(TOY, source, output, Options()).rows == 100 + uneven


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_without_rows_gives_a_file_without_rows(suffix: str, tmp_path: Path) -> None:
    """With the columns it would have."""
    source = write(tmp_path / f"in.{suffix}", table([]))

    summary = score_file(TOY, source, tmp_path / "out.parquet", Options(reasons=True))

    assert summary.rows == 0
    found = pa.parquet.read_table(tmp_path / "out.parquet")
    assert tuple(found.column_names) == bulk.ANSWER_COLUMNS
    assert errors(tmp_path / "out.parquet") == []


def test_a_row_whose_decision_has_no_reason_is_not_decided() -> None:
    """With reasons asked for, as the server would refuse it; the rows beside it are."""

    class Giver:
        def give(self, _outcome: object, contributions: object) -> tuple[()]:
            if contributions is not None:
                msg = "a decision of DECLINE has no adverse reason"
                raise ExplanationFailed(msg)
            return ()

    loaded = toys.load_package("trees")
    vars(loaded)["grouping"] = Giver()

    answers, found = Scorer(loaded, Options(reasons=True)).score(
        table([toys.SAFE, toys.RISKY, toys.SAFE]), 10
    )

    assert [e.to_json() for e in found] == [
        {"row": 11, "pointer": "", "detail": "a decision of DECLINE has no adverse reason"}
    ]
    assert answers["decision"].to_pylist() == ["APPROVE", None, "APPROVE"]


def program(text: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """Start a program of this repository in a process of its own."""
    return subprocess.Popen(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """The same bytes, no row twice, none lost, and no output until the end."""
    folder = toys.write_package(tmp_path / "packages", "trees")
    source = write(tmp_path / "in.parquet", table(mixed(12_000)), row_group_size=1_000)
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    options = Options(reasons=True)
    score_file(package.load(folder), source, whole, options, rows_per_part=100)
    parts = Path(f"{output}.parts")

    seen = 0
    for more in (1, 20, 30):
        with program(RUN, folder, source, output, "100") as running:
            while len(list(parts.glob("part-*.arrow"))) < seen + more:
                assert running.poll() is None
                assert not output.exists()
                time.sleep(0.001)
            os.kill(running.pid, signal.SIGKILL)
        assert running.returncode == -signal.SIGKILL
        assert not output.exists()
        seen = len(list(parts.glob("part-*.arrow")))
    assert seen < 120
    summary = score_file(package.load(folder), source, output, options, rows_per_part=100)

    assert summary.rows == 12_000
    assert summary.rows_resumed >= 100
    assert output.read_bytes() == whole.read_bytes()
    assert errors(output) == errors(whole)
    assert [row["row"] for row in read(output)] == list(range(12_000))
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith("out")) == [
        "out.parquet",
        "out.parquet.errors.jsonl",
    ]


def test_a_run_killed_while_it_clears_up_can_be_run_again(tmp_path: Path) -> None:
    """The output is complete; what is missing of the parts is made again."""
    source = write(tmp_path / "in.csv", table(mixed(500)))
    output = tmp_path / "out.csv"
    interrupted(source, output, Options())
    parts = Path(f"{output}.parts")
    output.write_bytes(b"what an earlier assembly put there")
    next(parts.glob("part-*.arrow")).unlink()

    score_file(TOY, source, output, Options(), rows_per_part=50)
    score_file(TOY, source, tmp_path / "whole.csv", Options(), rows_per_part=50)

    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not parts.exists()


class Interrupted(Exception):
    """Raised in the middle of a run."""


def interrupted(source: Path, output: Path, options: Options, after: int = 150) -> None:
    """A run of 50 rows a part that stops when so many rows, or some more, are done."""

    def stop(done: int, total: int | None) -> None:
        assert total is None or done <= total
        if done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        score_file(TOY, source, output, options, rows_per_part=50, progress=stop)


def test_parts_of_another_input_package_or_option_are_not_taken_up(tmp_path: Path) -> None:
    """The refusal names what differs; nothing is written or lost."""
    source = write(tmp_path / "in.parquet", table(mixed(500)))
    output = tmp_path / "out.parquet"
    interrupted(source, output, Options())
    before = sorted(f.name for f in Path(f"{output}.parts").iterdir())

    with pytest.raises(OutputRefused, match="another package"):
        score_file(toys.load_package("linear"), source, output, Options(), rows_per_part=50)
    with pytest.raises(OutputRefused, match="another options"):
        score_file(TOY, source, output, Options(reasons=True), rows_per_part=50)
    other = write(tmp_path / "other.parquet", table(mixed(501)))
    with pytest.raises(OutputRefused, match="input sha256"):
        score_file(TOY, other, output, Options(), rows_per_part=50)

    assert sorted(f.name for f in Path(f"{output}.parts").iterdir()) == before
    assert not output.exists()
    assert score_file(TOY, source, output, Options(), rows_per_part=50).rows_resumed >= 150


def test_parts_that_are_damaged_are_made_again(tmp_path: Path) -> None:
    """Cut short, overwritten, or without their errors; the others are taken over."""
    source = write(tmp_path / "in.parquet", table(mixed(500)))
    output, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    score_file(TOY, source, whole, Options(), rows_per_part=50)
    interrupted(source, output, Options(), after=300)
    parts = sorted(Path(f"{output}.parts").glob("part-*.arrow"))
    content = parts[0].read_bytes()
    parts[0].write_bytes(content[: len(content) // 2])
    parts[1].write_bytes(b"")
    parts[2].write_bytes(b"\0" * parts[2].stat().st_size)
    parts[3].with_suffix(".jsonl").write_bytes(b"")
    parts[4].with_suffix(".jsonl").unlink()

    summary = score_file(TOY, source, output, Options(), rows_per_part=50)

    assert output.read_bytes() == whole.read_bytes()
    assert errors(output) == errors(whole)
    assert summary.rows_resumed == 50 * (len(parts) - 5)


def test_all_parts_taken_over_count_as_resumed(tmp_path: Path) -> None:
    """Also those behind one that is missing."""
    source = write(tmp_path / "in.parquet", table(mixed(480)))
    output = tmp_path / "out.parquet"
    interrupted(source, output, Options(), after=480)
    Path(f"{output}.parts/part-00000000.arrow").unlink()

    assert score_file(TOY, source, output, Options(), rows_per_part=50).rows_resumed == 430


def test_a_run_of_which_no_part_was_finished_blocks_nothing(tmp_path: Path) -> None:
    """Failed or killed before that, another may begin with whatever it likes."""
    source = write(tmp_path / "in.parquet", table([toys.SAFE]))
    output, folder = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    folder.mkdir()
    (folder / bulk.MANIFEST).write_text('{"input_bytes": 1}')
    (folder / "part-00000000.arrow.writing").write_bytes(b"half")

    assert score_file(TOY, source, output, Options()).rows_resumed == 0
    assert not folder.exists()


def test_what_failed_before_its_first_part_leaves_nothing(tmp_path: Path) -> None:
    """Whatever it failed of."""
    source = write(tmp_path / "in.parquet", table([toys.SAFE]))
    whole = source.read_bytes()
    middle = len(whole) // 4
    source.write_bytes(whole[:middle] + bytes(8) + whole[middle + 8 :])

    with pytest.raises(DataInvalid, match="not a whole one"):
        score_file(TOY, source, tmp_path / "out.parquet", Options())

    assert [f.name for f in tmp_path.iterdir()] == ["in.parquet"]


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file can be longer than so many bytes: as on a full disk, writing fails."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@pytest.mark.parametrize(
    ("most", "keep", "named"),
    [
        (100, (), bulk.MANIFEST),
        (2_000, (), "part-00000000.arrow"),
        (20_000, ("note",), "output.csv.writing"),
    ],
)
def test_a_full_disk_is_told_with_the_name_of_the_file(
    most: int, keep: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    """By the error that the command line prints as one line; nothing finished is lost."""
    applications = toys.applications(400)
    rows = table(applications).append_column("note", pa.array(["long " * 10] * 400))
    source, output = write(tmp_path / "in.parquet", rows), tmp_path / "out.csv"
    options = Options(keep=keep)

    with full_disk(most), pytest.raises(OSError, match="File too large") as caught:
        score_file(TOY, source, output, options, rows_per_part=40)

    assert caught.value.filename == str(tmp_path / "out.csv.parts" / named)
    assert caught.value.strerror == os.strerror(errno.EFBIG)
    assert Path(f"{output}.parts").exists() == bool(keep)
    assert score_file(TOY, source, output, options, rows_per_part=40).rows == 400


def test_an_output_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    """The folder, and not a file of ours within."""
    source = write(tmp_path / "in.parquet", table([toys.SAFE]))

    with pytest.raises(OutputRefused, match=f"no folder {tmp_path}/none for the output"):
        score_file(TOY, source, tmp_path / "none" / "out.csv", Options())


def test_an_output_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    """Decisions may have been acted on."""
    source = write(tmp_path / "in.parquet", table([toys.SAFE]))
    (tmp_path / "out.parquet").write_bytes(b"kept")

    with pytest.raises(OutputRefused, match="exists"):
        score_file(TOY, source, tmp_path / "out.parquet", Options())

    assert (tmp_path / "out.parquet").read_bytes() == b"kept"


def test_two_runs_do_not_write_the_same_output(tmp_path: Path) -> None:
    """The second is told so while the first goes on."""
    source = write(tmp_path / "in.parquet", table(mixed(500)))
    output = tmp_path / "out.parquet"
    told: list[str] = []

    def run_again(_done: int, _total: int | None) -> None:
        with pytest.raises(OutputRefused) as caught:
            score_file(TOY, source, output, Options(), rows_per_part=50)
        told.append(str(caught.value))

    score_file(TOY, source, output, Options(), rows_per_part=50, progress=run_again)

    assert told
    assert all("another run is writing" in text for text in told)


def test_an_input_that_changes_meanwhile_gives_no_output(tmp_path: Path) -> None:
    """The parts would be of two files."""
    source = write(tmp_path / "in.parquet", table(mixed(500)))
    output = tmp_path / "out.parquet"

    with pytest.raises(DataInvalid, match="changed while it was read"):
        score_file(
            TOY, source, output, Options(), rows_per_part=50, progress=lambda *_: os.utime(source)
        )

    assert [f.name for f in tmp_path.iterdir()] == ["in.parquet"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A million rows, in one row group, in under a gigabyte."""
    folder = toys.write_package(tmp_path / "packages", "trees")
    some = table(toys.applications(100_000))
    rows = pa.concat_tables([some] * 10)
    source = write(tmp_path / "in.parquet", rows, row_group_size=len(rows))
    del rows, some

    with program(MEASURED, folder, source, tmp_path / "out.parquet") as running:
        printed, _ = running.communicate()

    assert running.returncode == 0
    assert pa.parquet.read_metadata(tmp_path / "out.parquet").num_rows == 1_000_000
    assert int(printed) < 1_000


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data, the real data, is not here")
@pytest.mark.parametrize("name", ["personal-loans", "credit-cards"])
def test_every_row_of_the_real_data_is_answered_as_the_server_answers_it(
    name: str, tmp_path: Path
) -> None:
    """Dirt included: ages of 144, missing rates, clients who were billed nothing."""
    shipped = ROOT / "packages" / name
    loaded = package.load(shipped / (shipped / "default").read_text(encoding="utf-8").strip())
    chosen = portfolio.load(ROOT / "portfolios", name)
    training = settings.load(chosen)
    data = DATA / f"{name.replace('-', '_')}.csv"
    raw = pd.read_csv(data, keep_default_na=False, na_values=[""])
    frame = preparation.credit_cards(raw, data) if training.preparation else raw
    fields = frame[list(loaded.schema.names)]
    fields.to_parquet(tmp_path / "in.parquet")
    rows = fields.astype(object).to_numpy().tolist()
    applications = [dict(zip(loaded.schema.names, row, strict=True)) for row in rows]

    summary = score_file(
        loaded, tmp_path / "in.parquet", tmp_path / "out.parquet", Options(reasons=True)
    )

    answers, problems = by_server(loaded, applications)
    same(read(tmp_path / "out.parquet"), answers)
    assert errors(tmp_path / "out.parquet") == problems
    assert summary.rows == len(raw)
    assert np.isfinite([a["probability_of_default"] or 0.0 for a in answers]).all()
    if name == "personal-loans":
        assert summary.refused >= 3
        again = tmp_path / "csv.parquet"
        score_file(loaded, data, again, Options(reasons=True))
        same(read(again), answers)
