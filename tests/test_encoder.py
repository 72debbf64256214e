"""The encoder: each kind of column, by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from pydantic import ValidationError

from credit_risk import encoder
from credit_risk.encoder import Column, Encoder
from credit_risk.errors import PackageInvalid
from credit_risk.schema import UNSEEN
from tests import strategies, toys

if TYPE_CHECKING:
    import numpy.typing as npt

TOY = toys.schema()
NAN = math.nan


@pytest.fixture(params=["compiled", "interpreted"], autouse=True)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "interpreted":
        kernel = "_encode"
        monkeypatch.setattr(encoder, kernel, getattr(encoder, kernel).py_func)


def encoded(column: Column, *values: float) -> list[float]:
    """What one column becomes for one row each of these values of its field."""
    rows = np.tile(np.array(TOY.vector(TOY.example)), (len(values), 1))
    rows[:, TOY.index[column.field]] = values
    plan = Encoder(columns=(column,)).plan(TOY)
    columns: npt.NDArray[np.float32] = plan.encode(rows)
    assert columns.dtype == np.float32
    return [float(value) for value in columns[:, 0]]


def column(kind: str, field: str, **settings: Any) -> Column:  # noqa: ANN401 - of any type
    """A column reported under its own field."""
    document = {"name": "x", "kind": kind, "field": field, "factor": field, **settings}
    return Column.model_validate(document)


def test_a_number_is_itself() -> None:
    """In float32."""
    assert encoded(column("number", "price"), 900, 0.1) == [900, float(np.float32(0.1))]


def test_a_missing_number_is_filled() -> None:
    """And only that one."""
    assert encoded(column("number", "years_employed", fill=3.5), NAN, 0, 7) == [3.5, 0, 7]


def test_a_missing_number_may_stay_missing() -> None:
    """Trees send it where the node's default says."""
    missing, present = encoded(column("number", "years_employed", fill=NAN), NAN, 2)

    assert math.isnan(missing)
    assert present == 2


def test_a_number_is_logged_and_then_scaled() -> None:
    """(log(1 + x) - center) / scale."""
    logged = column("number", "price", log=True, center=2.0, scale=0.5)

    expected = [(math.log1p(x) - 2.0) / 0.5 for x in (0, 99, 20000)]
    assert encoded(logged, 0, 99, 20000) == pytest.approx(expected, rel=1e-6)


def test_a_ramp_rises_from_0_to_1_over_its_part_of_the_range() -> None:
    """And is level on both sides; a ratio's likewise. What stays missing is no number still."""
    ramp = column("number", "price", center=500, scale=1000, ramp=True)
    ratio = column("ratio", "price", denominator="income", center=0.2, scale=0.4, ramp=True)
    unfilled = column("number", "years_employed", fill=NAN, center=1, scale=1, ramp=True)

    assert encoded(ramp, 50, 500, 1000, 1500, 20000) == [0, 0, 0.5, 1, 1]
    assert encoded(ratio, 250, 1000, 5000) == pytest.approx([0, 0.5, 1])
    assert math.isnan(encoded(unfilled, NAN)[0])


def test_a_fill_is_a_value_like_any_other() -> None:
    """It is logged and scaled too."""
    filled = column("number", "years_employed", log=True, center=1.0, scale=2.0, fill=9.0)

    assert encoded(filled, NAN) == encoded(filled, 9.0) == [pytest.approx((math.log(10) - 1) / 2)]


def test_an_ordered_category_is_its_place() -> None:
    """Safest first; one that the schema does not list comes before all."""
    assert encoded(column("number", "history"), 0, 1, 2, UNSEEN) == [0, 1, 2, -1]


def test_a_ratio_divides_two_fields() -> None:
    """The example's income is 2500."""
    ratio = column("ratio", "price", denominator="income", center=0.2, scale=2.0)

    assert encoded(ratio, 500, 5000) == pytest.approx([0.0, 0.9])


def test_each_part_of_a_ratio_is_filled() -> None:
    """Numerator, denominator or both may be missing."""
    ratio = column("ratio", "price", denominator="income", fill=300, denominator_fill=1500)
    plan = Encoder(columns=(ratio,)).plan(TOY)
    rows = np.tile(np.array(TOY.vector(TOY.example)), (4, 1))
    rows[:, TOY.index["price"]] = [600, NAN, 600, NAN]
    rows[:, TOY.index["income"]] = [1000, 1000, NAN, NAN]

    assert plan.encode(rows)[:, 0].tolist() == pytest.approx([0.6, 0.3, 0.4, 0.2])


def test_an_indicator_is_1_for_its_category_only() -> None:
    """An unseen category has no indicator that is 1."""
    assert encoded(column("indicator", "use", category=2), 0, 1, 2, UNSEEN) == [0, 0, 1, 0]


def test_a_missing_category_stands_for_the_one_that_fills_it() -> None:
    """Most frequent, say commuting (1)."""
    assert encoded(column("indicator", "use", category=1, fill=1), NAN) == [1]
    assert encoded(column("indicator", "use", category=2, fill=1), NAN) == [0]


def test_a_missing_column_tells_whether_the_field_was_stated() -> None:
    """0 is stated."""
    assert encoded(column("missing", "years_employed"), NAN, 0, 4) == [1, 0, 0]


def test_columns_keep_their_order_and_factors() -> None:
    """The estimator's order; three of the toy's columns are reported under two fields."""
    plan = toys.encoder().plan(TOY)

    assert plan.names[:4] == ("age", "income", "price", "price_to_income")
    assert plan.factors.tolist() == [0, 1, 2, 2, 3, 3, 4, 5, 5]
    example = plan.encode(TOY.matrix([TOY.example]))
    expected = [-0.6, math.log1p(2500), 1.2, 0.48, 4.5, 0, 1, 0, 0]
    np.testing.assert_allclose(example, [expected], rtol=1e-6)


def test_no_rows_become_no_rows() -> None:
    """Of the right width."""
    assert toys.encoder().plan(TOY).encode(np.empty((0, 6))).shape == (0, 9)


@given(strategies.applications(TOY))
def test_an_application_that_is_allowed_becomes_finite_numbers(application: dict[str, Any]) -> None:
    """The toy's encoder fills whatever may be missing."""
    assert np.isfinite(toys.encoder().plan(TOY).encode(TOY.matrix([application]))).all()


@pytest.mark.parametrize("part", ["field", "factor", "denominator"])
def test_a_column_of_an_unknown_field_is_refused_by_name(part: str) -> None:
    """An encoder made for another schema."""
    ratio = column("ratio", "price", denominator="income").model_copy(update={part: "fees"})

    with pytest.raises(PackageInvalid, match="column x reads fees, which is not a field"):
        Encoder(columns=(ratio,)).plan(TOY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ratio"},
        {"kind": "number", "denominator": "income"},
        {"kind": "number", "scale": 0},
        {"kind": "number", "scale": -1},
        {"kind": "square"},
    ],
)
def test_a_column_that_cannot_be_computed_is_refused(wrong: dict[str, Any]) -> None:
    """A ratio without a denominator, a division by 0, an unknown kind."""
    with pytest.raises(ValidationError):
        column(field="price", **wrong)


def test_a_category_is_looked_up() -> None:
    """The last value is that of a category the schema does not list; missing stays missing."""
    looked_up = column("lookup", "use", fill=NAN, values=[1, 0, NAN, 7])

    expected = [1, 0, NAN, 7, NAN]
    np.testing.assert_array_equal(encoded(looked_up, 0, 1, 2, UNSEEN, NAN), expected)


def test_a_lookup_may_be_filled() -> None:
    """With the code of a category, or of none."""
    values = [1, 0, 5, 7]
    assert encoded(column("lookup", "use", fill=2, values=values), NAN, 0) == [5, 1]
    assert encoded(column("lookup", "use", fill=UNSEEN, values=values), NAN, 0) == [7, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"field": "use", "values": [1, 0, 5]},
        {"field": "use", "values": [1, 0, 5, 7], "fill": 3},
        {"field": "use", "values": [1, 0, 5, 7], "fill": 0.5},
        {"field": "price", "values": [1]},
    ],
)
def test_a_lookup_that_does_not_fit_the_categories_is_refused(wrong: dict[str, Any]) -> None:
    """It would read beside its values."""
    with pytest.raises(PackageInvalid, match="column x does not fit the categories of"):
        Encoder(columns=(column("lookup", **wrong),)).plan(TOY)


def test_lookups_of_one_field_are_one_player() -> None:
    """They stand for one column; other columns of the field were columns of their own."""
    values = [1, 0, 0, 0]
    columns = (
        column("lookup", "use", values=values),
        column("number", "use"),
        column("lookup", "history", values=values),
        column("lookup", "use", values=values[::-1]),
    )
    assert Encoder(columns=columns).plan(TOY).players.tolist() == [0, 1, 2, 0]


def test_an_encoder_survives_being_written() -> None:
    """Also what is NaN."""
    looked_up = column("lookup", "use", fill=NAN, values=[0, 1, NAN, 0])
    filled = column("number", "price", fill=NAN)
    original = Encoder(columns=(filled, looked_up, *toys.encoder().columns))

    again = Encoder.model_validate_json(original.model_dump_json())

    assert math.isnan(again.columns[0].fill)
    assert math.isnan(again.columns[1].values[2])
    assert repr(again) == repr(original)
