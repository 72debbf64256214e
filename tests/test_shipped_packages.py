"""The shipped packages, on drawn applicants: no data set is needed to see that they hold."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydantic_core
import pytest

from credit_risk import package, portfolio, profile
from credit_risk.manifest import verify
from credit_risk.model import ADDITIVITY_TOLERANCE, probability
from credit_risk.policy import BAND_ORDER
from credit_risk.replay import replay
from credit_risk.scoring import check_golden, decide
from tests.recorded import decided

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

    Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).parent.parent
PORTFOLIOS = portfolio.names(ROOT / "portfolios")
SHIPPED = sorted(path.parent for path in (ROOT / "packages").glob("*/*/manifest.json"))
DRAWN = 1_000
DATA_FORMATS = {".json", ".yaml", ".npz", ".md", ".png"}


def _default(name: str) -> str:
    return (ROOT / "packages" / name / "default").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def shipped(request: pytest.FixtureRequest) -> ModelPackage:
    """Each shipped package in turn, loaded under the version its folder is named by."""
    path = request.param
    return package.load(path, path.name)


@pytest.fixture(scope="module")
def rows(shipped: ModelPackage) -> Floats:
    """Applicants drawn from the package's own profile."""
    return profile.draw(shipped.profile, shipped.schema, DRAWN, seed=20)


@pytest.fixture(scope="module")
def applications(shipped: ModelPackage, rows: Floats) -> list[Application]:
    """The same, as a caller would send them."""
    return [shipped.schema.application(row) for row in rows.tolist()]


@pytest.fixture(scope="module")
def decisions(shipped: ModelPackage, applications: list[Application]) -> list[Decision]:
    """What is decided about them, explained."""
    return decide(shipped, applications, explain=True)


@pytest.mark.parametrize("name", PORTFOLIOS)
def test_each_portfolio_ships_the_version_it_serves_by_default(name: str) -> None:
    """It is there, whole, and made of the portfolio's files as they are now."""
    loaded = package.load(ROOT / "packages" / name / _default(name), _default(name))

    assert loaded.portfolio == name
    for file in ("schema.yaml", "policy.yaml", "reasons.yaml"):
        assert (loaded.path / file).read_bytes() == (ROOT / "portfolios" / name / file).read_bytes()


def test_a_package_is_whole_and_runs_no_code(shipped: ModelPackage) -> None:
    """Every file has its sum, and is of a format that is data alone."""
    manifest = verify(shipped.path)

    assert manifest.version == shipped.path.name
    assert manifest.portfolio == shipped.path.parent.name
    assert {Path(name).suffix for name in manifest.files} <= DATA_FORMATS
    assert shipped.spec.kind in ("trees", "linear")


def test_golden_records_get_their_answers(shipped: ModelPackage) -> None:
    """All of them, from every band of the policy."""
    check_golden(shipped)

    assert {record.band for record in shipped.golden} == set(BAND_ORDER)
    for record in shipped.golden:
        shipped.schema.validate_application(dict(record.application))


def test_the_reference_group_satisfies_the_schema(shipped: ModelPackage) -> None:
    """Each of its applicants could have applied, and there are as many as it says."""
    assert len(shipped.reference) == shipped.provenance.reference.rows >= 1_000
    for row in shipped.reference.tolist():
        application = shipped.schema.application(row)
        assert shipped.schema.validate_application(application) == application


def test_a_package_says_what_it_was_made_of(shipped: ModelPackage) -> None:
    """The data set's name, licence and SHA-256 are in its provenance and in its card."""
    trained_on = shipped.provenance.trained_on
    assert trained_on is not None
    card = (shipped.path / "card.md").read_text(encoding="utf-8")

    assert len(trained_on["sha256"]) == 64
    for fact in (trained_on["sha256"], trained_on["licence"]):
        assert fact in card
    # Markdown may escape the brackets of a name.
    assert trained_on["name"].split("(")[0].strip() in card
    assert shipped.metrics["hold_out"]["roc_auc"] > 0.7
    assert shipped.metrics["fidelity"]["same_first_reason"] >= 0.9
    assert shipped.metrics["largest_difference_from_pipeline"] <= 1e-6


def test_explanations_add_up(
    shipped: ModelPackage, rows: Floats, decisions: list[Decision]
) -> None:
    """Within a millionth of log-odds, for every drawn applicant and every member of the group."""
    for decision in decisions:
        assert decision.explanation is not None
        total = decision.explanation.base_value + sum(decision.explanation.contributions.values())
        assert total == pytest.approx(decision.log_odds, abs=ADDITIVITY_TOLERANCE)

    contributions = shipped.model.contributions(shipped.reference)
    assert np.abs(contributions.mean(axis=0)).max() < ADDITIVITY_TOLERANCE
    assert shipped.model.base_value == pytest.approx(
        shipped.model.log_odds(shipped.reference).mean(), abs=ADDITIVITY_TOLERANCE
    )
    assert np.isfinite(shipped.model.contributions(rows)).all()


def test_one_application_gets_the_answer_it_gets_in_a_batch(
    shipped: ModelPackage, applications: list[Application], decisions: list[Decision]
) -> None:
    """To the last bit, reasons included; asking for the explanation changes no answer."""
    for application, decision in zip(applications, decisions, strict=True):
        (alone,) = decide(shipped, [application])
        assert alone == decision._replace(explanation=None)


def test_every_declined_applicant_has_a_reason(
    shipped: ModelPackage, decisions: list[Decision]
) -> None:
    """One to four, none twice, each with the approved text; approved applicants have none."""
    declined = [d for d in decisions if d.outcome.decision == "DECLINE"]
    assert len(declined) > DRAWN / 50

    for decision in decisions:
        codes = [reason.code for reason in decision.reasons]
        assert (len(codes) == 0) == (decision.outcome.decision == "APPROVE")
        assert len(codes) == len(set(codes)) <= 4
        assert [r.text for r in decision.reasons] == [shipped.reasons.texts[c] for c in codes]


def test_setting_the_named_factors_to_their_reference_values_lowers_the_pd(
    shipped: ModelPackage, rows: Floats, decisions: list[Decision]
) -> None:
    """For at least 95 in 100 declined applicants: the reasons are what kept the PD up."""
    usual = np.empty(rows.shape[1])
    for i, spec in enumerate(shipped.schema.fields):
        stated = shipped.reference[:, i][~np.isnan(shipped.reference[:, i])]
        usual[i] = (
            np.bincount(stated.astype(np.intp)).argmax() if spec.is_category else np.median(stated)
        )
    declined = [i for i, d in enumerate(decisions) if d.outcome.decision == "DECLINE"]
    after = rows[declined].copy()
    for row, place in zip(after, declined, strict=True):
        for reason in decisions[place].reasons:
            fields = [shipped.schema.index[name] for name in reason.fields]
            row[fields] = usual[fields]

    before = shipped.model.log_odds(rows[declined])
    assert (shipped.model.log_odds(after) < before).mean() >= 0.95


def test_a_promised_direction_is_kept(shipped: ModelPackage, rows: Floats) -> None:
    """Raising a field moves no drawn applicant's PD against what the schema promises."""
    some = rows[:100]
    promised = [f for f in shipped.schema.fields if f.direction != "none"]
    assert promised

    for spec in promised:
        place = shipped.schema.index[spec.name]
        seen = np.unique(shipped.reference[:, place])
        values = seen[~np.isnan(seen)]
        if spec.is_category:
            values = np.arange(float(len(spec.categories)))
        values = values[np.linspace(0, len(values) - 1, 40).astype(np.intp)]
        swept = np.repeat(some[:, None, :], len(values), axis=1)
        swept[:, :, place] = values
        log_odds = shipped.model.log_odds(swept.reshape(-1, some.shape[1]))
        steps = np.diff(probability(log_odds).reshape(len(some), -1), axis=1)
        sign = 1.0 if spec.direction == "increasing" else -1.0
        assert (sign * steps).min() >= -1e-12, spec.name


def test_every_pd_is_in_its_band(shipped: ModelPackage, decisions: list[Decision]) -> None:
    """Every PD is a probability, in the band and with the prediction that the policy says."""
    for decision in decisions:
        pd = decision.probability_of_default
        assert 0 < pd < 1
        assert shipped.policy.band_of(pd).name == decision.outcome.band
        assert decision.outcome.prediction == int(pd >= shipped.policy.cut_off)


@pytest.mark.parametrize("name", ["personal-loans", "credit-cards"])
def test_no_reason_says_more_than_the_model_promises(name: str) -> None:
    """Where a field has no direction, its reason's text does not say that the value is too high."""
    root = Path(__file__).parents[1] / "portfolios"
    chosen = portfolio.load(root, name)
    judging = ("too ", "excess", "insufficient", "limited", "low", "high", "short", "long ")

    for spec in chosen.schema.fields:
        text = chosen.reasons.texts[spec.reason].lower()
        if spec.direction == "none":
            assert not any(word in text for word in judging), f"{spec.name}: {text}"


def test_ten_thousand_decisions_come_out_again(shipped: ModelPackage) -> None:
    """Decided a few at a time, as a server does, and replayed together: to the last bit."""
    rows = profile.draw(shipped.profile, shipped.schema, 10_000, seed=17)
    applications = [shipped.schema.application(row) for row in rows.tolist()]
    records: list[Record] = []
    sizes = itertools.cycle((1, 2, 3, 16, 64, 256))
    while len(records) < len(applications):
        start = len(records)
        records += decided(shipped, applications[start : start + next(sizes)])
    texts = [pydantic_core.to_json((record.body, record.personal)) for record in records]
    parts = map(pydantic_core.from_json, texts)
    read = [
        replace(record, body=body, personal=personal)
        for record, (body, personal) in zip(records, parts, strict=True)
    ]

    replays = replay(read, lambda _portfolio, _version: shipped)

    assert {made.verdict for made in replays} == {"MATCH"}
    assert all(made.recorded == made.replayed for made in replays)
