"""Assembly: a package stands for the model it was made of, or it is not made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import model, package
from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.model import probability
from credit_risk.scoring import check_golden
from credit_risk.training import assembly, compilation, pipeline, preparation, settings
from credit_risk.training.evaluation import evaluate
from tests import leases, toys

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from credit_risk.portfolio import Portfolio
    from credit_risk.schema import Schema
    from credit_risk.training.assembly import Candidate, Packaged
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import EstimatorName, Training

    Floats = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("_undrawn")

APPROVING_NOBODY = toys.POLICY.replace("decision: APPROVE", "decision: REVIEW")
DECLINING_NOBODY = toys.POLICY.replace("decision: DECLINE", "decision: REVIEW")
DECLINING_FROM_HIGH = toys.POLICY.replace("decision: REVIEW", "decision: DECLINE")
CAUTIOUS = (
    toys.POLICY.replace("0.1, ", "0.02, ").replace("0.2, ", "0.04, ").replace("0.4, ", "0.06, ")
)


@pytest.fixture(scope="module")
def leasing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Portfolio, Training]:
    """The toy portfolio, ready to train."""
    return leases.write_portfolio(tmp_path_factory.mktemp("portfolios"))


@pytest.fixture(scope="module")
def prepared(
    leasing: tuple[Portfolio, Training], tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """Its data."""
    path = leases.write_labelled(tmp_path_factory.mktemp("data") / "leases.csv")
    return preparation.read(path, leasing[0].schema, leasing[1], unique=True)


@pytest.fixture(scope="module")
def candidate(leasing: tuple[Portfolio, Training], prepared: Prepared) -> Candidate:
    """A logistic regression fitted to all of the data."""
    schema = leasing[0].schema
    fitted = pipeline.build(schema, "logistic-regression", {}, 7).fit(
        prepared.frame, prepared.labels
    )
    compiled = compilation.compile_pipeline(fitted, schema, "logistic-regression")
    pds = fitted.predict_proba(prepared.frame)[:, 1]
    return assembly.Candidate(
        spec=compiled.spec,
        arrays=compiled.arrays,
        pipeline=None,
        skops=b"",
        pds=pds,
        held_out_labels=prepared.labels,
        held_out_pds=pds,
        evaluation=evaluate(prepared.labels, pds, leasing[0].policy),
        settings={},
        fitted_here=True,
    )


def _assemble(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, out: Path
) -> Packaged:
    return assembly.assemble(*leasing, prepared, candidate, out, step=lambda _: None)


def _by(policy: str, folder: Path) -> Portfolio:
    return leases.write_portfolio(folder / "others", policy=policy)[0]


def _with_reference(training: Training, reference: settings.Reference) -> Training:
    return training.model_copy(update={"reference": reference})


def test_a_model_that_differs_from_its_pipeline_is_not_packaged(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """One row that is off by more than a millionth is enough, and so is a PD that is no number."""
    for wrong in (2e-6, np.nan):
        pds = candidate.pds.copy()
        pds[700] += wrong
        with pytest.raises(assembly.CompilationDiffers, match=r"differs from the pipeline by"):
            _assemble(leasing, prepared, replace(candidate, pds=pds), tmp_path)
    assert not list(tmp_path.iterdir())

    pds = candidate.pds.copy()
    pds[700] += 5e-7
    made = _assemble(leasing, prepared, replace(candidate, pds=pds), tmp_path)
    assert made.largest_difference == pytest.approx(5e-7, rel=0.01)


def _card(made: Packaged) -> str:
    return (made.path / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sum_is", "estimator", "fitted_here", "told_of_data", "told_of_model"),
    [
        ("this file's", "logistic-regression", True, True, True),
        ("not given", "logistic-regression", True, True, True),
        ("another's", "logistic-regression", True, False, False),
        ("this file's", "xgboost", True, True, False),
        ("this file's", "logistic-regression", False, True, False),
        ("not given", "logistic-regression", False, False, False),
    ],
)
def test_a_card_says_only_what_was_written_about_its_data_and_model(
    leasing: tuple[Portfolio, Training],
    prepared: Prepared,
    candidate: Candidate,
    tmp_path: Path,
    *,
    sum_is: str,
    estimator: EstimatorName,
    fitted_here: bool,
    told_of_data: bool,
    told_of_model: bool,
) -> None:
    """Another file is unknown, another model has none of the notes but those on the portfolio."""
    sums = {"this file's": prepared.sha256, "another's": "0" * 64, "not given": None}
    notes = {"Intended use": "Leases.", "Limits": "337 rows.", "Legal": "Never rises with age."}
    training = leasing[1].model_copy(
        update={
            "data": leasing[1].data.model_copy(update={"sha256": sums[sum_is]}),
            "default_estimator": estimator,
            "notes": notes,
        }
    )

    made = _assemble(
        (leasing[0], training), prepared, replace(candidate, fitted_here=fitted_here), tmp_path
    )

    card = _card(made)
    assert "Leases." in card
    assert ("CC0 1.0" in card, "Made-up leases" in card) == (told_of_data, told_of_data)
    assert ("| Licence | unknown: not stated |" in card) is not told_of_data
    assert ("337 rows." in card, "Never rises with age." in card) == (told_of_model, told_of_model)
    assert ("(Limits, Legal) are about another data file" in card) is not told_of_model


def test_golden_records_come_from_every_band_in_turn(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """Twelve records, three of each band; the package answers them."""
    loaded = package.load(_assemble(leasing, prepared, candidate, tmp_path).path)

    bands = [record.band for record in loaded.golden]
    assert bands == ["LOW", "MEDIUM", "HIGH", "VERY_HIGH"] * 3
    check_golden(loaded)


def test_golden_records_are_as_many_as_asked_for_where_bands_stay_empty(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """Bands that no drawn applicant falls into are passed over."""
    policy = toys.POLICY
    for old, new in (("0.4, ", "0.999998, "), ("0.2, ", "0.999997, "), ("0.1, ", "0.999996, ")):
        policy = policy.replace(f"lower: {old}", f"lower: {new}")
        policy = policy.replace(f"upper: {old}", f"upper: {new}")

    made = _assemble((_by(policy, tmp_path), leasing[1]), prepared, candidate, tmp_path)

    assert [record.band for record in package.load(made.path).golden] == ["LOW"] * 12


def test_the_reference_group_is_drawn_from_all_applicants_or_from_those_just_approved(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """It says which; the approved ones are safer than all, but not the safest."""
    approved = settings.Reference(group="approved", approved_from=0.05, rows=400)
    everybody = package.load(_assemble(leasing, prepared, candidate, tmp_path).path)
    passing = package.load(
        _assemble(
            (leasing[0], _with_reference(leasing[1], approved)), prepared, candidate, tmp_path
        ).path
    )

    group = (candidate.pds >= 0.05) & (candidate.pds < 0.2)
    assert everybody.provenance.reference.name == "all-applicants"
    assert "(1500 rows)" in everybody.provenance.reference.description
    assert passing.provenance.reference.name == "applicants-at-or-slightly-above-the-passing-score"
    assert f"a PD of 0.05 or more in the data ({group.sum()} rows)" in (
        passing.provenance.reference.description
    )
    assert passing.provenance.reference.rows == len(passing.reference) == 400
    typical = float(np.median(probability(passing.model.log_odds(passing.reference))))
    assert typical == pytest.approx(np.median(candidate.pds[group]), abs=0.02)
    assert passing.model.base_value < everybody.model.base_value


def test_a_reference_group_of_too_few_real_rows_is_refused(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """A description of a handful would describe each of them."""
    few = settings.Reference(group="approved", approved_from=0.1999, rows=1_000)
    training = _with_reference(leasing[1], few)

    with pytest.raises(DataInvalid, match=r"only \d rows are approved applicants with a PD of 0.1"):
        _assemble((leasing[0], training), prepared, candidate, tmp_path)


def test_a_reference_group_of_approved_applicants_needs_a_policy_that_approves(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """A policy that refers everybody leaves the group empty."""
    approved = settings.Reference(group="approved", rows=200)
    other = _by(APPROVING_NOBODY, tmp_path), _with_reference(leasing[1], approved)

    with pytest.raises(DataInvalid, match="only 0 rows are approved applicants"):
        _assemble(other, prepared, candidate, tmp_path)


def test_a_reference_group_riskier_than_applicants_who_are_declined_is_refused(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """An applicant below the group's average who is declined may have no adverse reason."""
    with pytest.raises(PortfolioInvalid, match=r"declines from 0\.06 on: .* no adverse reason"):
        _assemble((_by(CAUTIOUS, tmp_path), leasing[1]), prepared, candidate, tmp_path)


def test_a_cautious_policy_takes_a_reference_group_it_approves(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """What the refusal of the test above recommends is accepted."""
    approved = settings.Reference(group="approved", rows=200)
    other = _by(CAUTIOUS, tmp_path), _with_reference(leasing[1], approved)

    made = _assemble(other, prepared, candidate, tmp_path)

    check_golden(package.load(made.path))


def _coarse(prepared: Prepared, candidate: Candidate, schema: Schema) -> tuple[Prepared, Candidate]:
    """The same applicants, told apart by history, use and little else."""
    rows = prepared.rows.copy()
    rows[:, :4] = [40.0, 2_000.0, 900.0, 5.0]
    rows[::2, 0] = 30.0
    built = model.build(candidate.spec, schema, candidate.arrays, rows[:1])
    pds = probability(built.log_odds(rows))
    return replace(prepared, rows=rows), replace(candidate, pds=pds, held_out_pds=pds)


def test_nobody_is_drawn_by_chance_as_long_as_fields_tell_people_apart(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """With all but one combination of coarse fields taken, that one is what is taken first."""
    schema = leasing[0].schema
    all_taken, judged = _coarse(prepared, candidate, schema)
    free = (all_taken.rows[:, 4] == 0) & (all_taken.rows[:, 5] == 1) & (all_taken.rows[:, 0] == 40)
    rows = all_taken.rows.copy()
    rows[free, 0] = 30.0
    built = model.build(candidate.spec, schema, candidate.arrays, rows[:1])
    pds = probability(built.log_odds(rows))
    with_room = replace(all_taken, rows=rows), replace(judged, pds=pds)

    some, none = (
        package.load(_assemble(leasing, *group, tmp_path).path).reference
        for group in (with_room, (all_taken, judged))
    )

    def not_real(drawn: Floats, real: Floats) -> list[int]:
        seen = {tuple(row) for row in real.tolist()}
        return [place for place, row in enumerate(drawn.tolist()) if tuple(row) not in seen]

    assert len(some) == len(none) == 200
    first = not_real(some, rows)
    assert first == list(range(len(first)))
    assert len(first) > 20
    assert (some[first] == [40.0, 2_000.0, 900.0, 5.0, 0.0, 1.0]).all()
    assert not_real(none, all_taken.rows) == []


def test_reasons_against_drawn_applicants_are_compared_for_every_decline(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """Declines by the band's decision, whichever bands those are."""
    usual = _assemble(leasing, prepared, candidate, tmp_path)
    strict = _by(DECLINING_FROM_HIGH, tmp_path)
    more = _assemble((strict, leasing[1]), prepared, candidate, tmp_path)

    assert usual.fidelity["declines_compared"] == (candidate.pds >= 0.4).sum()
    assert more.fidelity["declines_compared"] == (candidate.pds >= 0.2).sum()
    for made in (usual, more):
        assert made.fidelity["same_first_reason"] >= 0.9
        assert made.fidelity["same_set_of_reasons"] <= 1


def test_a_portfolio_that_declines_nobody_has_no_declines_to_compare(
    leasing: tuple[Portfolio, Training], prepared: Prepared, candidate: Candidate, tmp_path: Path
) -> None:
    """The figure is left out rather than made up."""
    lenient = _by(DECLINING_NOBODY, tmp_path), leasing[1]

    made = _assemble(lenient, prepared, candidate, tmp_path)

    assert made.fidelity == {"declines_compared": 0}


def test_json_in_a_package_depends_on_its_content_alone() -> None:
    """Keys sorted, UTF-8, a newline at the end."""
    assert assembly.json_bytes({"b": 1, "a": "é"}) == '{\n "a": "é",\n "b": 1\n}\n'.encode()
