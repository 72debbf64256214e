"""Validation: what is right passes, and each kind of broken data is refused for what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from credit_risk import documents, package, portfolio
from credit_risk.errors import PortfolioInvalid
from credit_risk.training import settings, validation
from credit_risk.training import train as training_run
from credit_risk.training.validation import CHECKS, RELATIVE, ValidationPolicy
from tests import leases, toys

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage
    from credit_risk.training.validation import Check, Finding, Report

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
FILES = {"personal-loans": "personal_loans.csv", "credit-cards": "credit_cards.csv"}
TRAINING = documents.parse(settings.Training, leases.TRAINING, "training.yaml")
POLICY = ValidationPolicy(portfolio=toys.NAME, version="1")
TARGET = leases.TARGET


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """What was trained on other leases of the same kind."""
    folder = tmp_path_factory.mktemp("champion")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("credit_risk.training.plots.png", lambda _figure: b"")
        made = training_run.train(
            *leases.write_portfolio(folder / "portfolios"),
            leases.write_labelled(folder / "leases.csv"),
            folder / "packages",
            estimator="logistic-regression",
        )
    return package.load(made.path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file to validate is."""
    return tmp_path / "new.csv"


def validated(
    path: Path,
    champion: ModelPackage | None = None,
    policy: ValidationPolicy = POLICY,
    only_warn: frozenset[Check] = frozenset(),
) -> Report:
    """A file of leases, validated."""
    return validation.validate(path, toys.schema(), TRAINING, policy, champion, only_warn=only_warn)


def refusals(report: Report) -> list[Finding]:
    """What the file is refused for."""
    return [finding for finding in report.findings if finding.severity == "refused"]


def test_other_rows_of_the_same_kind_are_accepted(file: Path, champion: ModelPackage) -> None:
    """All checks were made, and none found anything."""
    report = validated(leases.write_labelled(file, seed=4), champion)

    assert (report.verdict, report.findings) == ("ACCEPTED", ())
    assert (report.rows, report.reference) == (1_500, champion.version)
    assert report.checked == CHECKS


def test_parquet_is_read_too(file: Path, champion: ModelPackage) -> None:
    """By the end of the file's name."""
    leases.labelled(seed=4).to_parquet(path := file.with_suffix(".parquet"))

    assert validated(path, champion).verdict == "ACCEPTED"


def test_without_a_package_nothing_is_compared_with_its_population(file: Path) -> None:
    """As for the first model of a portfolio."""
    report = validated(leases.write_labelled(file))

    assert report.verdict == "ACCEPTED"
    assert set(CHECKS) - set(report.checked) == RELATIVE


def _text_in_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    rows["price"] = rows["price"].astype(object)
    rows.loc[[3, 7], "price"] = "secret"
    return rows


def _decimal_commas(rows: pd.DataFrame) -> pd.DataFrame:
    rows["price"] = rows["price"].astype(str).str.replace(".", ",")
    return rows


def _other_unit(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(income=rows["income"] / 1_000.0)


def _half_years(rows: pd.DataFrame) -> pd.DataFrame:
    rows["age"] = rows["age"] + 0.5 * (rows.index < 9)
    return rows


def _gaps(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[[0, 1], "income"] = np.nan
    return rows


def _unheard_of(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[5:6, "use"] = "touring"
    return rows


def _other_case(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[[4], "use"] = "Racing "
    return rows


def _no_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    rows[TARGET] = rows[TARGET].astype(float)
    rows.loc[[8], TARGET] = np.nan
    return rows


def _third_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[[9], TARGET] = 2
    return rows


def _one_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{TARGET: 0})


def _twice(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, rows[:100]])


def _contradicting(rows: pd.DataFrame) -> pd.DataFrame:
    again = rows[:100]
    return pd.concat([rows, again.assign(**{TARGET: 1 - again[TARGET]})])


def _copied(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(years_employed=rows[TARGET] * 10.0)


def _told_by_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(years_employed=rows["years_employed"].fillna(1.0).where(rows[TARGET] == 0))


def _flipped(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{TARGET: 1 - rows[TARGET]})


def _shifted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{TARGET: np.roll(rows[TARGET], 1)})


def _older(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(age=(rows["age"] + 20).clip(upper=100))


def _more_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[rows.index % 10 == 0, "years_employed"] = np.nan
    return rows


BROKEN: dict[
    str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Check, str | None, tuple[str, ...]]
] = {
    "a column is missing": (
        lambda rows: rows.drop(columns="price"), "columns", "price", ("is missing",),
    ),
    "text where numbers are": (
        _text_in_numbers, "type", "price", ("2 of 1,500", "hold no number", "rows 4, 8"),
    ),
    "decimal commas": (_decimal_commas, "type", "price", ("hold no number", "rows 1, 2, 3")),
    "another unit": (_other_unit, "range", "income", ("outside the range", "more")),
    "fractions of whole numbers": (
        _half_years, "type", "age", ("9 of 1,500", "no whole number", "rows 1, 2"),
    ),
    "gaps in what is required": (_gaps, "missing", "income", ("hold nothing: rows 1, 2",)),
    "unheard-of categories": (_unheard_of, "category", "use", ("not in the list: rows 6, 7",)),
    "categories in another case": (_other_case, "category", "use", ("not in the list: row 5",)),
    "outcomes are missing": (_no_outcome, "label", TARGET, ("has no outcome: row 9",)),
    "a third outcome": (_third_outcome, "label", TARGET, ("neither 0 nor 1: row 10",)),
    "one outcome only": (_one_outcome, "size", TARGET, ("only 0 defaulted", "100 are needed")),
    "too few rows": (lambda rows: rows[:900], "size", None, ("only 900 rows", "1,000")),
    "rows are there twice": (
        _twice, "duplicate", None, ("100 of 1,600", "at most 2.00%", "rows 1501, 1502"),
    ),
    "rows contradict each other": (
        _contradicting, "contradiction", None, ("200 of 1,600", "rows 1, 2", "190 more"),
    ),
    "a field has one value": (
        lambda rows: rows.assign(age=40), "constant", "age", ("the same value",),
    ),
    "a field is the outcome": (
        _copied, "leakage", "years_employed", ("completely", "a copy"),
    ),
    "gaps tell the outcome": (
        _told_by_gaps, "leakage", "years_employed", ("whether it is missing", "limit is 0.95"),
    ),
    "outcomes are turned round": (
        _flipped, "default-rate", TARGET, ("of rows default", "in development"),
    ),
    "outcomes are those of other rows": (
        _shifted, "outcome", TARGET, ("an AUC of 0.", "of other rows?", "the limit is 0.5"),
    ),
    "other applicants": (_older, "drift", "age", ("drifted", "PSI", "the limit is 0.25")),
    "more is missing": (
        _more_gaps, "drift", "years_employed", ("is missing in 2", "the limit is 0.05"),
    ),
}  # fmt: skip
"""Each kind of broken data: how it is made, and what it has to be refused for, and how."""


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_data_are_refused_for_what_they_are(
    file: Path, champion: ModelPackage, kind: str
) -> None:
    """With the rows and why; nothing that a row holds is told."""
    breaking, check, column, told = BROKEN[kind]
    breaking(leases.labelled(seed=4)).to_csv(file, index=False)

    report = validated(file, champion)

    assert report.refused
    (finding,) = [f for f in refusals(report) if (f.check, f.column) == (check, column)]
    for words in told:
        assert words in finding.message
    assert "secret" not in report.model_dump_json()
    assert "touring" not in report.model_dump_json()


GARBLED: dict[str, tuple[Callable[[bytes], bytes], Check, str]] = {
    "encodings are mixed": (
        lambda content: content.replace(b"cargo", b"c\xe9rgo", 1), "file", "not text in UTF-8",
    ),
    "rows are cut": (
        lambda content: content.rpartition(b",")[0], "file", "1 row does not have as many",
    ),
    "a column is there twice": (
        lambda content: content.replace(b"price", b"income", 1), "columns", "there twice",
    ),
    "semicolons": (
        lambda content: content.replace(b",", b";"), "columns", "separated by commas?",
    ),
    "semicolons and decimal commas": (
        lambda content: content.replace(b",", b";").replace(b".", b","), "file", "by commas?",
    ),
    "another encoding": (
        lambda content: content.decode().encode("utf-16"), "file", "from its first line on",
    ),
    "names in capitals": (
        lambda content: content.replace(b"price", b" Price", 1), "columns", "column 3 is called so",
    ),
    "a quote is not closed": (
        lambda content: content.replace(b"cargo", b'"cargo', 1), "file", "is not CSV",
    ),
    "nothing": (lambda _: b"", "file", "is empty"),
    "names alone": (lambda content: content.splitlines()[0], "size", "only 0 rows"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBLED)
def test_garbled_files_are_refused(file: Path, kind: str) -> None:
    """Before anybody makes a table of them; the checks that were not made are not claimed."""
    garble, check, words = GARBLED[kind]
    file.write_bytes(garble(leases.write_labelled(file).read_bytes()))

    report = validated(file)

    assert report.refused
    assert any(f.check == check and words in f.message for f in refusals(report))
    assert "leakage" not in report.checked


def test_what_is_no_parquet_is_refused(file: Path) -> None:
    """The library's error is for those who know the format."""
    (path := file.with_suffix(".parquet")).write_bytes(b"no")

    assert refusals(validated(path))[0].message == "is not a Parquet file, or not a whole one"


def test_lists_are_no_values(file: Path) -> None:
    """Whichever column of a Parquet file holds them."""
    rows = leases.labelled().assign(extra=pd.Series([[1]] * 1_500, dtype=object))
    rows.to_parquet(path := file.with_suffix(".parquet"))

    (finding,) = refusals(validated(path))
    assert finding.message == "has lists or structs in column extra"


def test_a_row_in_place_of_the_names_is_not_told(file: Path) -> None:
    """Of which two values may be alike, as names may not be."""
    rows = leases.write_labelled(file).read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(["secret,1,secret,2,3,4,5", *rows[1:]]), encoding="utf-8")

    report = validated(file)

    assert report.findings[0].message == "the column is there twice: columns 1, 3"
    assert "secret" not in report.model_dump_json()


def test_times_of_a_hold_out_sort_as_they_are_written(file: Path) -> None:
    """Rows are put in order by them; none may be missing, nor in the future."""
    rows = leases.labelled()
    rows["issued"] = "2025-03-31"
    by_time = settings.HoldOut(kind="out-of-time", share=0.2, column="issued")
    training = TRAINING.model_copy(update={"hold_out": by_time})

    def found() -> list[tuple[str, tuple[int, ...]]]:
        rows.to_csv(file, index=False)
        report = validation.validate(file, toys.schema(), training, POLICY)
        return [(f.check, f.first) for f in refusals(report)]

    assert found() == []
    rows.loc[4, "issued"] = "31/03/2025"
    rows.loc[5, "issued"] = None
    rows.loc[6:9, "issued"] = "2925-03-31T10:00:00Z"
    assert found() == [("type", (5,)), ("range", (7, 8, 9, 10)), ("missing", (6,))]


def test_a_byte_order_mark_is_no_part_of_a_name(file: Path) -> None:
    """Spreadsheets write one."""
    file.write_bytes(b"\xef\xbb\xbf" + leases.write_labelled(file).read_bytes())

    assert validated(file).verdict == "ACCEPTED"


def test_a_few_rows_out_of_range_are_a_warning(file: Path) -> None:
    """A typist's error in a thousand rows does not keep the others from being learned of."""
    rows = leases.labelled(2_000)
    rows.loc[11, "age"] = 7
    rows.to_csv(file, index=False)

    report = validated(file)

    assert report.verdict == "ACCEPTED"
    (finding,) = report.findings
    assert (finding.check, finding.severity, finding.first) == ("range", "warning", (12,))


def test_checks_may_be_told_to_warn_only(file: Path, champion: ModelPackage) -> None:
    """Of those who were accepted everybody knows that they are not all who apply."""
    _older(leases.labelled(seed=4)).to_csv(file, index=False)

    report = validated(file, champion, only_warn=RELATIVE)

    assert report.verdict == "ACCEPTED"
    assert {f.check for f in report.findings} == {"drift"}


def test_identifiers_name_one_row_each_and_are_no_part_of_it(file: Path) -> None:
    """Rows that differ by them alone are the same."""
    policy = POLICY.model_copy(update={"identifiers": ("number",)})
    rows = _twice(leases.labelled()).assign(number=range(1_600))
    rows.to_csv(file, index=False)
    assert [f.column for f in refusals(validated(file, policy=policy))] == [None]

    rows.drop_duplicates(subset=leases.labelled().columns).assign(number=1).to_csv(
        file, index=False
    )
    (finding,) = refusals(validated(file, policy=policy))
    assert (finding.check, finding.column, finding.rows) == ("duplicate", "number", 1_499)


def test_a_stated_ratio_has_to_follow_from_its_parts(file: Path) -> None:
    """As the schema says that it does."""
    chosen = portfolio.load(ROOT / "portfolios", "personal-loans")
    loans = pd.DataFrame([chosen.schema.example] * 1_500)
    loans["person_income"] = 20_000 + 10 * np.arange(1_500)
    loans["loan_percent_income"] = (loans["loan_amnt"] / loans["person_income"]).round(2)
    loans.loc[:99, "loan_percent_income"] += 0.1
    loans["loan_status"] = np.arange(1_500) % 2
    loans.to_csv(file, index=False)
    training = settings.load(chosen)

    report = validation.validate(file, chosen.schema, training, validation.read(chosen))

    (finding,) = [f for f in refusals(report) if f.check == "ratio"]
    assert (finding.column, finding.rows) == ("loan_percent_income", 100)
    assert finding.message.endswith("rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 90 more")


def test_limits_are_data(tmp_path: Path, file: Path) -> None:
    """A portfolio's own, checked like its other files; without any, the usual ones."""
    chosen, _ = leases.write_portfolio(tmp_path / "portfolios")
    assert validation.read(chosen).limits == validation.Limits()
    path = chosen.path / validation.FILE

    path.write_text(f"{{portfolio: {toys.NAME}, version: 2, least_rows: 5000}}", encoding="utf-8")
    with pytest.raises(PortfolioInvalid, match="version"):
        validation.read(chosen)
    path.write_text("{portfolio: others, version: '2'}", encoding="utf-8")
    with pytest.raises(PortfolioInvalid, match="'others'"):
        validation.read(chosen)
    text = "{portfolio: %s, version: '2', limits: {auc: {warn: 2, refuse: 1}}}"
    path.write_text(text % toys.NAME, encoding="utf-8")
    with pytest.raises(PortfolioInvalid, match="warn is above refuse"):
        validation.read(chosen)
    path.write_text(f"{{portfolio: {toys.NAME}, version: '2', least_rows: 5000}}", encoding="utf-8")
    policy = validation.read(chosen)
    assert [f.check for f in refusals(validated(leases.write_labelled(file), policy=policy))] == [
        "size"
    ]


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data, the real data, is not here")
@pytest.mark.parametrize("name", FILES)
def test_the_real_data_pass_beside_the_shipped_package(name: str) -> None:
    """The few ages and employments that nobody has are warned of."""
    chosen = portfolio.load(ROOT / "portfolios", name)
    folder = ROOT / "packages" / name
    shipped = package.load(folder / (folder / "default").read_text(encoding="utf-8").strip())
    training = settings.load(chosen)

    report = validation.validate(
        DATA / FILES[name], chosen.schema, training, validation.read(chosen), shipped
    )

    assert report.verdict == "ACCEPTED"
    assert {(f.check, f.column) for f in report.findings} == (
        {("range", "person_age"), ("range", "person_emp_length")}
        if name == "personal-loans"
        else set()
    )
