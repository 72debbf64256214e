"""The model: calibrated log-odds, their contributions, and how the parts fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from credit_risk import model
from credit_risk.encoder import Column, Encoder
from credit_risk.errors import ExplanationFailed, PackageInvalid
from credit_risk.model import (
    ADDITIVITY_TOLERANCE,
    Calibration,
    Linear,
    LinearModel,
    ModelSpec,
    NetworkModel,
    TreesModel,
    check_additivity,
    probability,
)
from tests import enumeration, strategies, toys
from tests.networks import made_up

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.model import Model
    from credit_risk.schema import Application

    Floats = npt.NDArray[np.float64]

TOY = toys.schema()
MODELS: dict[toys.Kind, Model] = {kind: toys.build(kind) for kind in toys.KINDS}


def column_values(kind: toys.Kind, row: Floats, reference: Floats) -> Floats:
    """Shapley values of the encoded columns by enumeration, summed to fields."""
    built = MODELS[kind]
    assert isinstance(built, LinearModel | TreesModel)
    plan = built.plan

    def log_odds(columns: npt.NDArray[np.float64]) -> Floats:
        if isinstance(built, TreesModel):
            score = built.scorer.margins(columns.astype(np.float32))
        else:
            score = columns @ built.coefficients + built.intercept
        return built.calibration.slope * score + built.calibration.intercept

    encoded = plan.encode(np.vstack([row, reference])).astype(np.float64)
    values = enumeration.shapley(log_odds, encoded[0], encoded[1:])
    summed = np.zeros(len(TOY.fields))
    np.add.at(summed, plan.factors, values)
    return summed


def log_odds_of(kind: toys.Kind, application: Application) -> float:
    """One application's log-odds."""
    return float(MODELS[kind].log_odds(TOY.matrix([application]))[0])


def test_the_linear_toy_scores_as_worked_out_by_hand() -> None:
    """Coefficients times columns, plus intercept, then slope and intercept of the calibration."""
    score = (
        -0.3 * (34 - 40) / 10
        - 0.5 * math.log1p(2500)
        + 0.2 * 1.2
        + 0.25 * 1200 / 2500
        - 0.05 * 4.5
        + 0.4 * 0
        + 0.8 * 1
        + 0.3 * 0
        + 0.1 * 0
        + 2.4
    )

    assert log_odds_of("linear", TOY.example) == pytest.approx(1.2 * score - 0.1, abs=1e-6)


def test_the_toy_forest_scores_as_worked_out_by_hand() -> None:
    """Three leaves and the base, then slope and intercept of the calibration."""
    # Price to income is 0.48, and the years 4.5: -1.5. The history is mixed, and 34 below 35: 1.1.
    # The log income is 7.8, not below 7.5: -0.4.
    score = -0.7 - 1.5 + 1.1 - 0.4

    assert log_odds_of("trees", TOY.example) == pytest.approx(1.2 * score - 0.1)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_contributions_are_those_of_every_coalition(kind: toys.Kind) -> None:
    """The closed form and the tables against brute force over 2^9 coalitions of columns."""
    applicants = TOY.matrix([toys.SAFE, toys.RISKY, TOY.example | {"years_employed": None}])

    found = MODELS[kind].contributions(applicants)

    for row, values in zip(applicants, found, strict=True):
        expected = column_values(kind, row, toys.reference())
        np.testing.assert_allclose(values, expected, atol=1e-9)


@pytest.mark.parametrize("kind", toys.KINDS)
@given(application=strategies.applications(TOY))
def test_contributions_and_base_value_add_up_to_the_log_odds(
    kind: toys.Kind, application: Application
) -> None:
    """For any application that the schema allows."""
    built = MODELS[kind]
    rows = TOY.matrix([application])

    check_additivity(built.log_odds(rows), built.base_value, built.contributions(rows))


@pytest.mark.parametrize("kind", toys.KINDS)
def test_the_base_value_is_the_mean_log_odds_of_the_reference_group(kind: toys.Kind) -> None:
    """What an applicant is compared with."""
    built = MODELS[kind]

    assert built.base_value == pytest.approx(built.log_odds(toys.reference()).mean(), abs=1e-9)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_an_applicant_in_a_group_of_one_like_them_differs_in_nothing(kind: toys.Kind) -> None:
    """Contributions measure the distance from the group."""
    rows = TOY.matrix([toys.RISKY])
    arrays = toys.forest().arrays() if kind == "trees" else {}
    built = model.build(toys.spec(kind), TOY, arrays, rows)

    np.testing.assert_allclose(built.contributions(rows), np.zeros((1, 6)), atol=1e-9)
    assert built.base_value == pytest.approx(float(built.log_odds(rows)[0]))


@pytest.mark.parametrize("kind", toys.KINDS)
def test_calibration_is_affine_in_log_odds(kind: toys.Kind) -> None:
    """Slope and intercept move the log-odds; contributions take the slope only."""
    arrays = toys.forest().arrays() if kind == "trees" else {}
    rows = TOY.matrix(toys.applications(20))
    plain, calibrated = (
        model.build(
            toys.spec(kind).model_copy(update={"calibration": calibration}),
            TOY,
            arrays,
            toys.reference(),
        )
        for calibration in (
            Calibration(slope=1.0, intercept=0.0),
            Calibration(slope=0.6, intercept=-0.25),
        )
    )

    np.testing.assert_allclose(calibrated.log_odds(rows), 0.6 * plain.log_odds(rows) - 0.25)
    np.testing.assert_allclose(
        calibrated.contributions(rows), 0.6 * plain.contributions(rows), atol=1e-12
    )
    assert calibrated.base_value == pytest.approx(0.6 * plain.base_value - 0.25)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_rows_do_not_influence_each_other(kind: toys.Kind) -> None:
    """A row alone and among others."""
    built = MODELS[kind]
    rows = TOY.matrix(toys.applications(30))

    alone = np.concatenate([built.log_odds(rows[i : i + 1]) for i in range(30)])

    np.testing.assert_allclose(built.log_odds(rows), alone, atol=1e-12)
    np.testing.assert_allclose(
        built.contributions(rows)[7:8], built.contributions(rows[7:8]), atol=1e-12
    )


def test_each_kind_says_how_it_explains() -> None:
    """The record names the method."""
    methods = {MODELS[kind].method for kind in toys.KINDS}

    assert len(methods) == 2
    assert all("interventional Shapley values, exact" in method for method in methods)


# Parts that do not fit.


def spec(**changed: object) -> ModelSpec:
    """The linear toy's specification with some of its parts replaced."""
    return toys.spec("linear").model_copy(update=changed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (spec(encoder=None), "a linear model needs an encoder and a calibration"),
        (spec(calibration=None), "a linear model needs an encoder and a calibration"),
        (spec(kind="pipeline", encoder=None), "a pipeline model needs an encoder"),
        (spec(linear=None), "one coefficient for each column"),
        (
            spec(linear=Linear(coefficients=(1.0,) * 8, intercept=0)),
            "one coefficient for each column",
        ),
        (
            spec(
                encoder=Encoder(
                    columns=(Column(name="fee", kind="number", field="fee", factor="fee"),)
                )
            ),
            "column fee reads fee, which is not a field",
        ),
        (toys.spec("trees"), "trees: array missing"),
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong: ModelSpec, message: str) -> None:
    """Missing parts, too few coefficients, fields of another schema."""
    with pytest.raises(PackageInvalid, match=message):
        model.build(wrong, TOY, {}, toys.reference())


@pytest.mark.parametrize("slope", [0.0, -1.0, math.nan, math.inf])
def test_a_calibration_that_turns_the_order_round_is_refused(slope: float) -> None:
    """More risk by the estimator is more risk for the policy."""
    with pytest.raises(ValidationError, match="slope"):
        Calibration(slope=slope, intercept=0.0)


def test_coefficients_are_numbers() -> None:
    """JSON knows NaN in Python; a model does not."""
    with pytest.raises(ValidationError, match="finite"):
        Linear.model_validate_json('{"coefficients": [NaN], "intercept": 0}')


# From log-odds to a probability.


def test_probabilities_are_those_of_the_logistic_function() -> None:
    """0 is even; log 3 is three to one."""
    found = probability(np.array([0.0, math.log(3), -math.log(3)]))

    assert found.tolist() == pytest.approx([0.5, 0.75, 0.25])


def test_probabilities_are_stable_at_both_ends() -> None:
    """No overflow, which would be a warning and so an error here."""
    found = probability(np.array([1000.0, -1000.0, 709.0, -709.0, -40.0]))

    assert found[0] == 1.0
    assert found[1] == 0.0
    assert found[4] == pytest.approx(math.exp(-40), rel=1e-12)
    assert ((found >= 0) & (found <= 1)).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_probabilities_keep_the_order_of_log_odds(log_odds: list[float]) -> None:
    """And stay within 0 and 1."""
    found = probability(np.array(sorted(log_odds)))

    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


# Additivity.


def test_contributions_that_add_up_pass() -> None:
    """Within the tolerance, and for no rows at all."""
    check_additivity(np.array([1.0, 2.0]), 0.5, np.array([[0.25, 0.25], [2.0, -0.5]]))
    check_additivity(np.array([1.0]), 0.5, np.array([[0.5 + ADDITIVITY_TOLERANCE / 2]]))
    check_additivity(np.empty(0), 0.5, np.empty((0, 2)))


@pytest.mark.parametrize(
    "contributions",
    [
        [[0.5], [0.5 + 2 * ADDITIVITY_TOLERANCE]],
        [[0.5 - 2 * ADDITIVITY_TOLERANCE], [0.5]],
        [[0.5], [math.nan]],
        [[0.5], [math.inf]],
    ],
)
def test_one_row_that_does_not_add_up_fails_all(contributions: list[list[float]]) -> None:
    """Also where it is not even a number."""
    with pytest.raises(ExplanationFailed, match="contributions miss the score by "):
        check_additivity(np.array([1.0, 1.0]), 0.5, np.array(contributions))


def test_a_score_that_is_not_a_number_has_no_explanation() -> None:
    """NaN is within no tolerance."""
    with pytest.raises(ExplanationFailed, match="nan log-odds"):
        check_additivity(np.array([math.nan]), 0.0, np.array([[0.0]]))


@pytest.mark.parametrize("kind", toys.KINDS)
def test_unlocked_a_model_gives_the_same_log_odds_to_the_last_bit(kind: toys.Kind) -> None:
    """However they are cut into blocks; explained alike."""
    built = toys.build(kind)
    rows = toys.schema().matrix(toys.applications(1_100))

    many = model.unlocked(built)

    assert many.log_odds(rows).tobytes() == built.log_odds(rows).tobytes()
    assert many.log_odds(rows[700:]).tobytes() == built.log_odds(rows)[700:].tobytes()
    assert many.contributions(rows[:9]).tobytes() == built.contributions(rows[:9]).tobytes()
    assert model.unlocked(many).log_odds(rows[:9]).tobytes() == built.log_odds(rows[:9]).tobytes()


def test_a_network_is_explained_field_by_field_by_every_coalition() -> None:
    """All columns of a field come from the applicant or from the reference row together."""
    built = toys.build("network")
    assert isinstance(built, NetworkModel)
    assert built.reference_rows == 50
    factors, calibration = built.plan.factors, built.calibration
    applicants = TOY.matrix([toys.SAFE, toys.RISKY, TOY.example | {"years_employed": None}])
    reference = built.plan.encode(toys.reference()[:10])

    for row, columns in zip(applicants, built.plan.encode(applicants), strict=True):
        expected = np.zeros(len(TOY.fields))
        for other in reference:

            def log_odds(fields: Floats, own: Any = columns, other: Any = other) -> Floats:  # noqa: ANN401
                mixed = other + fields[:, factors].astype(np.float32) * (own - other)
                return calibration.slope * toys.network().scores(mixed) + calibration.intercept

            ones = np.ones(len(TOY.fields))
            expected += enumeration.shapley(log_odds, ones, 0.0 * ones[np.newaxis])
        few = replace(built.explainer, reference=reference)
        found = replace(built, explainer=few).contributions(row[np.newaxis])[0]
        # Mixed in float32, as columns are.
        np.testing.assert_allclose(found, expected / len(reference), atol=1e-5)


@given(application=strategies.applications(TOY))
def test_a_networks_contributions_and_base_value_add_up(application: Application) -> None:
    """For any application that the schema allows; and bulk work scores it alike."""
    built = toys.build("network")
    rows = TOY.matrix([application])

    check_additivity(built.log_odds(rows), built.base_value, built.contributions(rows))
    assert model.unlocked(built).log_odds(rows) == built.log_odds(rows)


def test_a_network_says_that_its_reasons_are_slow_and_how_they_are_found() -> None:
    """For whoever must not wait, and for the record."""
    built = toys.build("network")

    assert built.slow
    assert built.method == (
        "interventional Shapley values, exact, by every coalition of fields against 50 rows"
    )


def test_a_network_of_other_columns_than_the_encoders_is_refused() -> None:
    """It would score something else."""
    arrays = made_up(columns=8, hidden=(3,)).arrays()

    with pytest.raises(PackageInvalid, match="another number of columns than the encoder makes"):
        model.build(toys.spec("network"), TOY, arrays, toys.reference())
