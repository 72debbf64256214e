"""Preparation: each formula worked by hand, each cleaning rule counted, each wrong file refused."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from credit_risk import documents, portfolio
from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.schema import Schema
from credit_risk.training import preparation, settings
from tests import leases, toys

if TYPE_CHECKING:
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import Training

ROOT = Path(__file__).parent.parent.parent
STATUSES = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")
BILLS = tuple(f"BILL_AMT{k}" for k in range(1, 7))
PAYMENTS = tuple(f"PAY_AMT{k}" for k in range(1, 7))
NAN = math.nan

LEASES = documents.parse(
    settings.Training,
    """
portfolio: bicycle-leases
target: late
data: {name: n, licence: l, source: s}
hold_out: {kind: stratified, share: 0.25}
seed: 1
default_estimator: xgboost
estimators: {xgboost: {}}
reference: {group: all, rows: 100}
""",
    "training.yaml",
)

HEADER = "age,income,price,years_employed,history,use,late"
GOOD = "34,2500,1200,4.5,mixed,commuting,0"
GOOD_ROW = [34.0, 2500.0, 1200.0, 4.5, 1.0, 1.0]


def _client(
    statuses: tuple[float | str, ...] = (0,) * 6,
    bills: tuple[float | str, ...] = (1000,) * 6,
    payments: tuple[float | str, ...] = (100,) * 6,
    **others: Any,  # noqa: ANN401 - a cell of a raw table
) -> dict[str, Any]:
    """One row of the raw credit-card table."""
    row: dict[str, Any] = {
        "LIMIT_BAL": 10_000, "SEX": 2, "EDUCATION": 2, "MARRIAGE": 1, "AGE": 40, "Default": 0,
    }  # fmt: skip
    row |= dict(zip(STATUSES, statuses, strict=True))
    row |= dict(zip(BILLS, bills, strict=True))
    row |= dict(zip(PAYMENTS, payments, strict=True))
    return row | others


def _engineered(**client: Any) -> dict[str, float]:  # noqa: ANN401 - as above
    """The seven fields of one client."""
    fields = preparation.credit_cards(pd.DataFrame([_client(**client)]), Path("cards.csv"))
    return {str(name): float(value) for name, value in fields.iloc[0].items()}


def _read(folder: Path, *rows: str, unique: bool = False, schema: Schema | None = None) -> Prepared:
    """What is read of a CSV file of leases with these lines."""
    path = folder / "leases.csv"
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return preparation.read(path, schema or toys.schema(), LEASES, unique=unique)


@pytest.fixture(scope="module")
def cards() -> tuple[Schema, Training]:
    """Schema and training settings of the credit-cards portfolio."""
    loaded = portfolio.load(ROOT / "portfolios", "credit-cards")
    return loaded.schema, settings.load(loaded)


def _read_cards(path: Path, cards: tuple[Schema, Training], *clients: dict[str, Any]) -> Prepared:
    pd.DataFrame(list(clients)).to_csv(path, index=False)
    return preparation.read(path, *cards, unique=False)


def test_a_client_who_uses_no_credit_has_no_delay_and_no_payment_ratio() -> None:
    """Six months of -2 and nothing billed: zeros, and a ratio that does not exist."""
    fields = _engineered(statuses=(-2,) * 6, bills=(0,) * 6, payments=(0,) * 6)

    assert math.isnan(fields.pop("payment_ratio"))
    assert fields == {
        "num_late_payments": 0,
        "avg_delay": 0,
        "credit_utilisation": 0,
        "high_risk_flag": 0,
        "LIMIT_BAL": 10_000,
        "AGE": 40,
    }


def test_a_revolving_client_is_not_late() -> None:
    """Status 0, the minimum paid, is no delay; the highest of six statements is the use."""
    fields = _engineered(
        bills=(9_000, 1_000, 2_000, 3_000, 4_000, 5_000),
        payments=(100, 200, 300, 400, 500, 9_999),
    )

    assert fields["num_late_payments"] == 0
    assert fields["avg_delay"] == 0
    assert fields["credit_utilisation"] == 9_000 / 10_000
    # Five payments answer the five statements of the month before: 1,500 of 15,000.
    assert fields["payment_ratio"] == 0.1
    assert fields["high_risk_flag"] == 0


def test_late_months_are_counted_and_their_delays_averaged_over_all_six() -> None:
    """Of 2, 1, -1, 0, 8, -2 three are late, by eleven months together."""
    fields = _engineered(statuses=(2, 1, -1, 0, 8, -2))

    assert fields["num_late_payments"] == 3
    assert fields["avg_delay"] == pytest.approx(11 / 6)
    assert fields["high_risk_flag"] == 1


@pytest.mark.parametrize(
    ("latest", "flag"), [(-2, 0), (-1, 0), (0, 0), (1, 0), (2, 1), (3, 1), (8, 1)]
)
def test_the_flag_is_up_from_two_months_behind_in_the_latest_month(latest: int, flag: int) -> None:
    """Only the latest status raises it, however late the months before."""
    assert _engineered(statuses=(latest, 8, 8, 8, 8, 8))["high_risk_flag"] == flag


def test_a_credit_balance_counts_as_nothing_billed() -> None:
    """Negative statements neither lower the use nor the sum of what was billed."""
    fields = _engineered(
        bills=(-500, -100, 200, -300, 400, 0), payments=(60, 0, 0, 0, 0, 0), LIMIT_BAL=1_000
    )

    assert fields["credit_utilisation"] == 400 / 1_000
    assert fields["payment_ratio"] == 60 / (200 + 400)


def test_only_credit_balances_are_no_use_and_give_no_ratio() -> None:
    """Nothing was billed, so a payment answers nothing."""
    fields = _engineered(bills=(-5,) * 6, payments=(100,) * 6)

    assert fields["credit_utilisation"] == 0
    assert math.isnan(fields["payment_ratio"])


def test_a_statement_that_no_payment_answers_yet_gives_no_ratio() -> None:
    """The latest statement counts as use, but its payment is due after the data end."""
    fields = _engineered(bills=(3_000, 0, 0, 0, 0, 0), payments=(0,) * 6)

    assert fields["credit_utilisation"] == 0.3
    assert math.isnan(fields["payment_ratio"])


def test_paying_more_than_was_billed_counts_as_paying_all() -> None:
    """The ratio is at most 1."""
    assert _engineered(payments=(5_000,) * 6)["payment_ratio"] == 1


def test_use_above_the_limit_is_above_one() -> None:
    """An overdrawn limit is not cut off."""
    fields = _engineered(bills=(0, 0, 12_500, 0, 0, 0))

    assert fields["credit_utilisation"] == 1.25


def test_numbers_may_be_written_as_text_with_an_exponent(
    tmp_path: Path, cards: tuple[Schema, Training]
) -> None:
    """5.00E+05 is 500,000 wherever it stands."""
    client = _client(
        bills=("2.50E+05", "5.00E+04", 0, 0, 0, 0),
        payments=("1.00E+04", 0, 0, 0, 0, 0),
        LIMIT_BAL="5.00E+05",
    )

    prepared = _read_cards(tmp_path / "cards.csv", cards, client, _client())

    assert prepared.rows[0].tolist() == [0, 0, 0.5, 0.2, 0, 500_000, 40]


@pytest.mark.parametrize("column", ["SEX", "EDUCATION", "MARRIAGE"])
def test_who_a_client_is_changes_no_field(
    tmp_path: Path, cards: tuple[Schema, Training], column: str
) -> None:
    """Any value, or none, gives the same rows; without the column, too."""
    clients = [_client() | {column: value} for value in (0, 1, 2, 3, 6, "x", None)]

    prepared = _read_cards(tmp_path / "cards.csv", cards, *clients)
    without = _read_cards(
        tmp_path / "without.csv", cards, {k: v for k, v in _client().items() if k != column}
    )

    assert (prepared.rows == without.rows).all()
    assert prepared.rows.shape == (7, 7)
    assert column not in cards[0].names


@pytest.mark.parametrize("column", STATUSES)
def test_a_missing_status_drops_the_client(
    tmp_path: Path, cards: tuple[Schema, Training], column: str
) -> None:
    """How often a client was late is not known then, and the reason says so."""
    prepared = _read_cards(
        tmp_path / "cards.csv", cards, _client(), _client() | {column: None}, _client(AGE=41)
    )

    assert prepared.kept.tolist() == [0, 2]
    assert prepared.dropped == {"num_late_payments missing": 1}


def test_a_missing_statement_drops_the_client_and_a_missing_payment_the_ratio(
    tmp_path: Path, cards: tuple[Schema, Training]
) -> None:
    """Use cannot be known without a statement; the ratio alone may be missing."""
    prepared = _read_cards(
        tmp_path / "cards.csv", cards, _client(BILL_AMT3=None), _client(PAY_AMT2=None)
    )

    assert prepared.dropped == {"credit_utilisation missing": 1}
    assert np.isnan(prepared.rows[0, 3])


def test_clients_outside_the_schema_are_dropped_and_counted(
    tmp_path: Path, cards: tuple[Schema, Training]
) -> None:
    """An age of 130, no limit at all, and a status that no month can have."""
    prepared = _read_cards(
        tmp_path / "cards.csv",
        cards,
        _client(AGE=130),
        _client(LIMIT_BAL=0),
        _client(statuses=(0, 0, 0, 0, 0, 60)),
        _client(LIMIT_BAL="n/a"),
        _client(),
    )

    assert prepared.kept.tolist() == [4]
    assert prepared.dropped == {
        "avg_delay outside its range": 1,
        "credit_utilisation outside its range": 1,
        "credit_utilisation missing": 1,
        "AGE outside its range": 1,
    }


@pytest.mark.parametrize("column", [*STATUSES, *BILLS, *PAYMENTS, "LIMIT_BAL", "AGE", "Default"])
def test_a_raw_credit_card_table_without_a_column_is_refused(
    tmp_path: Path, cards: tuple[Schema, Training], column: str
) -> None:
    """The error names the file and the column."""
    client = {name: value for name, value in _client().items() if name != column}

    with pytest.raises(DataInvalid, match=rf"cards\.csv: column {column} is missing"):
        _read_cards(tmp_path / "cards.csv", cards, client)


def test_rows_become_numbers_in_the_schemas_order(tmp_path: Path) -> None:
    """Categories by their place in the schema, missing values as NaN, and a frame of the same."""
    prepared = _read(tmp_path, GOOD, "60,9000,300,,good,cargo,1")

    assert prepared.rows[0].tolist() == GOOD_ROW
    assert prepared.rows[1, [0, 1, 2, 4, 5]].tolist() == [60, 9000, 300, 0, 0]
    assert np.isnan(prepared.rows[1, 3])
    assert prepared.labels.tolist() == [0, 1]
    assert list(prepared.frame.columns) == list(toys.schema().names)
    assert prepared.frame["use"].tolist() == ["commuting", "cargo"]
    assert prepared.rows_read == 2
    assert prepared.dropped == {}
    assert prepared.mended == {}
    assert prepared.time is None
    frame, labels = prepared.take(np.array([1]))
    assert frame["age"].tolist() == [60]
    assert labels.tolist() == [1]


def test_the_file_is_named_by_its_sum(tmp_path: Path) -> None:
    """The SHA-256 of the bytes that were read, for the record."""
    prepared = _read(tmp_path, GOOD)

    assert prepared.sha256 == hashlib.sha256((tmp_path / "leases.csv").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("17,2500,1200,4.5,mixed,commuting,0", "age outside its range"),
        ("101,2500,1200,4.5,mixed,commuting,0", "age outside its range"),
        ("34.5,2500,1200,4.5,mixed,commuting,0", "age outside its range"),
        ("old,2500,1200,4.5,mixed,commuting,0", "age outside its range"),
        (",2500,1200,4.5,mixed,commuting,0", "age missing"),
        ('34,"2,500",1200,4.5,mixed,commuting,0', "income outside its range"),
        ("34,inf,1200,4.5,mixed,commuting,0", "income outside its range"),
        ("34,NA,1200,4.5,mixed,commuting,0", "income outside its range"),
        ("34,2500,,4.5,mixed,commuting,0", "price missing"),
        ("34,2500,1200,4.5,worse,commuting,0", "history of an unknown category"),
        ("34,2500,1200,4.5,Mixed,commuting,0", "history of an unknown category"),
        ("34,2500,1200,4.5,mixed,,0", "use missing"),
        ("34,2500,1200,4.5,mixed,NA,0", "use of an unknown category"),
    ],
)
def test_a_row_outside_the_schema_is_dropped_for_one_reason(
    tmp_path: Path, row: str, reason: str
) -> None:
    """Out of range, no number, a fraction of a whole number, missing, or of no known category."""
    prepared = _read(tmp_path, GOOD, row, GOOD)

    assert prepared.kept.tolist() == [0, 2]
    assert prepared.dropped == {reason: 1}
    assert prepared.rows_read == 3


@pytest.mark.parametrize("value", ["50.5", "-1", "inf", "long"])
def test_a_value_is_set_to_missing_where_the_schema_says_so(tmp_path: Path, value: str) -> None:
    """The row stays, the value goes, and the count says how many did."""
    prepared = _read(tmp_path, GOOD, f"34,2500,1200,{value},mixed,commuting,0")

    assert np.isnan(prepared.rows[1, 3])
    assert prepared.kept.tolist() == [0, 1]
    assert prepared.dropped == {}
    assert prepared.mended == {"years_employed outside its range, set to missing": 1}


def test_a_row_with_two_faults_is_counted_once(tmp_path: Path) -> None:
    """Kept and dropped rows add up to the rows read."""
    prepared = _read(tmp_path, GOOD, "17,1,1,99,worse,x,0", "17,2500,1200,4.5,mixed,commuting,1")

    assert prepared.dropped == {"age outside its range": 2}
    assert len(prepared.kept) + sum(prepared.dropped.values()) == prepared.rows_read


def test_exact_duplicates_are_dropped_for_training_alone(tmp_path: Path) -> None:
    """The first of each stays; another outcome makes another row; values set to missing match."""
    rows = (
        GOOD,
        GOOD,
        GOOD.replace(",0", ",1"),
        GOOD,
        "34,2500,1200,99,mixed,commuting,0",
        "34,2500,1200,,mixed,commuting,0",
        "34,2500.0,1200.00,4.5,mixed,commuting,0",
    )

    unique = _read(tmp_path, *rows, unique=True)
    every = _read(tmp_path, *rows)

    assert unique.kept.tolist() == [0, 2, 4]
    assert unique.dropped == {"exact duplicate of another row": 4}
    assert every.kept.tolist() == list(range(7))
    assert every.dropped == {}


def test_a_field_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    """The error names the file and the column."""
    path = tmp_path / "leases.csv"
    path.write_text("age,income,late\n34,2500,0\n", encoding="utf-8")

    told = r"leases\.csv: column price, years_employed, history, use are missing"
    with pytest.raises(DataInvalid, match=told):
        preparation.read(path, toys.schema(), LEASES, unique=False)


@pytest.mark.parametrize("label", ["2", "-1", "0.5", "", "yes", "nan"])
def test_a_label_other_than_0_and_1_is_refused(tmp_path: Path, label: str) -> None:
    """Nothing is guessed about outcomes."""
    with pytest.raises(DataInvalid, match="column late: a label is neither 0 nor 1"):
        _read(tmp_path, GOOD, GOOD[:-1] + label)


def test_a_file_of_which_no_row_is_left_is_refused(tmp_path: Path) -> None:
    """Whether it had rows, which are counted by what was wrong, or only a header."""
    counted = "no row satisfies the schema: 2 rows read, 1 age outside its range, 1 price outside"
    with pytest.raises(DataInvalid, match=counted):
        _read(
            tmp_path,
            "17,2500,1200,4.5,mixed,commuting,0",
            "27,2500,1200000,4.5,mixed,commuting,0",
        )
    with pytest.raises(DataInvalid, match="no row satisfies the schema: 0 rows read"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xff\xfe\x00\x01", "is not text in UTF-8"),
        ("a.csv", b"a,b\n1,2\n1,2,3,4\n", "is not CSV: Expected 2 fields in line 3, saw 4"),
        ("a.csv", b'a,b\n1,"2\n', "is not CSV: EOF inside string"),
        ("a.csv", b"a,b\n1,2,3\n1,2,3\n", "has more values in a row than names"),
        ("a.csv", b"age;late\n34;0\n", "column late is missing; there is one column only"),
        ("a.parquet", b"age,late\n34,0\n", "is not a Parquet file, or not a whole one"),
        ("a.PARQUET", b"", "is not a Parquet file, or not a whole one"),
        ("a.csv", None, "cannot be read: No such file"),
        ("a.parquet", None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    """Missing, empty, binary, ragged, of other separators: one line in our words, naming it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataInvalid, match=rf"{name}:? {told}") as caught:
        preparation.read(path, toys.schema(), LEASES, unique=False)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Whether its end is gone or something in the middle of it."""
    path = tmp_path / "leases.parquet"
    leases.labelled(500).to_parquet(path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:100] + bytes(len(whole) - 1_500) + whole[-1_400:]):
        path.write_bytes(damaged)

        with pytest.raises(DataInvalid, match=r"leases\.parquet is not a Parquet file"):
            preparation.read(path, toys.schema(), LEASES, unique=False)


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    """The same rows, labels, counts and places, whatever type Parquet keeps the columns in."""
    table = pd.DataFrame(
        {
            "age": pd.array([34, 60, None, 17, 25, 34], dtype="Int64"),
            "income": [2500.5, 9000.0, 1e3, 1e3, 1e3, 2500.5],
            "price": ["1.20E+03", "300", "400", "400", "many", "1.20E+03"],
            "years_employed": pd.array([None, 99.0, 1.0, 1.0, 1.0, None], dtype="Float64"),
            "history": pd.Categorical(["mixed", "good", "poor", "poor", "odd", "mixed"]),
            "use": ["commuting", "cargo", "racing", "racing", None, "commuting"],
            "late": [0, 1, 0, 0, 0, 0],
        }
    )
    table.to_csv(tmp_path / "leases.csv", index=False)
    table.to_parquet(tmp_path / "leases.parquet")

    csv, parquet = (
        preparation.read(tmp_path / f"leases.{kind}", toys.schema(), LEASES, unique=True)
        for kind in ("csv", "parquet")
    )

    np.testing.assert_array_equal(csv.rows, parquet.rows)
    np.testing.assert_array_equal(csv.labels, parquet.labels)
    assert csv.kept.tolist() == parquet.kept.tolist() == [0, 1]
    assert csv.dropped == parquet.dropped
    assert csv.dropped == {
        "age outside its range": 1,
        "age missing": 1,
        "price outside its range": 1,
        "exact duplicate of another row": 1,
    }
    assert csv.mended == parquet.mended
    assert csv.mended == {"years_employed outside its range, set to missing": 1}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_categories_may_be_named_by_numbers(tmp_path: Path, kind: str) -> None:
    """Codes such as 01 and 2 are names: they are found as they are written."""
    text = toys.SCHEMA.replace("[cargo, commuting, racing]", '["1", "2", "3"]')
    schema = documents.parse(Schema, text.replace("example: commuting", 'example: "1"'), "s")
    table = pd.DataFrame([{**toys.SAFE, "use": use, "late": 0} for use in (3, 1)])
    path = tmp_path / f"leases.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)

    prepared = preparation.read(path, schema, LEASES, unique=False)

    assert prepared.rows[:, 5].tolist() == [2, 0]
    assert prepared.frame["use"].tolist() == ["3", "1"]


def test_a_row_without_the_time_that_orders_it_is_dropped(tmp_path: Path) -> None:
    """An out-of-time hold-out cannot place it."""
    training = LEASES.model_copy(
        update={"hold_out": settings.HoldOut(kind="out-of-time", share=0.3, column="day")}
    )
    path = tmp_path / "leases.csv"
    path.write_text(
        f"{HEADER},day\n{GOOD},2025-01-02\n{GOOD},\n{GOOD},2025-01-01\n", encoding="utf-8"
    )

    prepared = preparation.read(path, toys.schema(), training, unique=False)

    assert prepared.kept.tolist() == [0, 2]
    assert prepared.dropped == {"day missing": 1}
    assert prepared.time is not None
    assert prepared.time.tolist() == ["2025-01-02", "2025-01-01"]


def test_a_file_without_the_time_column_is_refused(tmp_path: Path) -> None:
    """The error names the column that training.yaml asks for."""
    training = LEASES.model_copy(
        update={"hold_out": settings.HoldOut(kind="out-of-time", share=0.3, column="day")}
    )
    path = tmp_path / "leases.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")

    with pytest.raises(DataInvalid, match="column day is missing"):
        preparation.read(path, toys.schema(), training, unique=False)


@pytest.mark.parametrize("name", ["no_such_module:fields", "math:no_such_function", ".made:fields"])
def test_a_preparation_function_that_is_not_there_is_the_portfolios_fault(
    tmp_path: Path, name: str
) -> None:
    """The error names it."""
    training = LEASES.model_copy(update={"preparation": name})
    path = tmp_path / "leases.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")

    with pytest.raises(PortfolioInvalid, match=f"preparation {name} cannot be imported"):
        preparation.read(path, toys.schema(), training, unique=False)


def test_a_preparation_function_that_loses_rows_is_the_portfolios_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes would belong to other rows then."""
    (tmp_path / "losing_rows.py").write_text(
        "def fields(raw, path):\n    return raw.dropna()\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    training = LEASES.model_copy(update={"preparation": "losing_rows:fields"})
    path = tmp_path / "leases.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{GOOD.replace('4.5', '')}\n", encoding="utf-8")

    with pytest.raises(PortfolioInvalid, match="losing_rows:fields: gave 1 rows for 2"):
        preparation.read(path, toys.schema(), training, unique=False)
