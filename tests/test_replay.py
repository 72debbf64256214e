"""Recorded decisions made again: every verdict, and what a candidate would change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from credit_risk import documents, environment, model, package, scoring
from credit_risk.audit.records import Record, Withheld
from credit_risk.decisions import start_record
from credit_risk.errors import ExplanationFailed, PackageInvalid, PackageNotFound
from credit_risk.policy import BAND_ORDER, DECISIONS, Policy
from credit_risk.replay import (
    CONTRIBUTION_TOLERANCE,
    SCORE_TOLERANCE,
    VERDICTS,
    Answers,
    Candidate,
    Comparison,
    Replay,
    listings_of,
    replay,
)
from tests import strategies, toys
from tests.recorded import NOON, Kept, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

MILDER = toys.POLICY.replace("lower: 0.1, upper: 0.2", "lower: 0.1, upper: 0.3").replace(
    "lower: 0.2, upper: 0.4", "lower: 0.3, upper: 0.4"
)


def candidate_policy(text: str) -> Candidate:
    """A policy as a candidate."""
    policy = documents.parse(Policy, text, "candidate.yaml")
    return Candidate(policy=policy, policy_sha256=hashlib.sha256(text.encode()).hexdigest())


def shelf(*packages: ModelPackage) -> Callable[[str, str], ModelPackage]:
    """Loads these packages."""
    known = {(p.portfolio, p.version): p for p in packages}

    def load(portfolio: str, version: str) -> ModelPackage:
        if (portfolio, version) not in known:
            raise PackageNotFound(f"no package {version} is installed")
        return known[portfolio, version]

    return load


def with_body(record: Record, **changed: object) -> Record:
    """The record with something in its body replaced."""
    return dataclasses.replace(record, body=record.body | changed)


def read_again(records: Sequence[Record]) -> list[Record]:
    """Records as a database gives them back: what they hold through JSON."""
    return [
        dataclasses.replace(
            record,
            body=json.loads(json.dumps(record.body)),
            personal=json.loads(json.dumps(record.personal)),
        )
        for record in records
    ]


def without_input(record: Record, withheld: Withheld = "erased") -> Record:
    """The record with its application withheld."""
    return dataclasses.replace(record, personal=None, withheld=withheld)


def one(record: Record, load: Callable[[str, str], ModelPackage], **more: Any) -> Replay:  # noqa: ANN401 - as `replay` takes them
    """The replay of one record."""
    (made,) = replay([record], load, **more)
    return made


@pytest.fixture
def risky(trees_package: ModelPackage) -> Record:
    """A decline on record."""
    (record,) = decided(trees_package, [toys.RISKY])
    return record


# Verdicts


def test_what_was_decided_comes_out_again(any_package: ModelPackage) -> None:
    """Alone or among many, from what a database gives back, to the last bit."""
    records = read_again(decided(any_package, [toys.SAFE, toys.RISKY, *toys.applications(40)]))

    together = replay(records, shelf(any_package))
    alone = [one(record, shelf(any_package)) for record in records]

    assert together == alone
    assert [made.record for made in together] == records
    for made in together:
        assert (made.verdict, made.differences, made.cause) == ("MATCH", (), None)
        assert made.recorded == made.replayed


@given(applications=st.lists(strategies.applications(toys.schema()), max_size=8))
@examples(max_examples=50)
def test_whatever_was_decided_comes_out_again(applications: list[Application]) -> None:
    """Fields given, null or left out, whoever was scored together with whom."""
    for loaded in both():
        records = read_again(decided(loaded, applications))

        assert [made.verdict for made in replay(records, shelf(loaded))] == ["MATCH"] * len(records)


@cache
def both() -> tuple[ModelPackage, ...]:
    """Both toy packages."""
    return tuple(toys.load_package(kind) for kind in toys.KINDS)


def test_records_of_several_packages_are_each_made_by_their_own(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """Packages are asked for once each, and replays come in the order of the records."""
    asked: list[str] = []
    load = shelf(trees_package, linear_package)

    def counting(portfolio: str, version: str) -> ModelPackage:
        asked.append(version)
        return load(portfolio, version)

    some = toys.applications(6)
    by_trees, by_linear = decided(trees_package, some), decided(linear_package, some)
    mixed = [record for pair in zip(by_trees, by_linear, strict=True) for record in pair]

    made = replay(mixed, counting)

    assert [m.record.id for m in made] == [r.id for r in mixed]
    assert {m.verdict for m in made} == {"MATCH"}
    assert sorted(asked) == sorted([trees_package.version, linear_package.version])


def test_nothing_to_replay_is_nothing() -> None:
    """And no package is looked for."""
    assert replay([], shelf()) == []


def test_a_package_that_is_not_there_cannot_answer(
    risky: Record, linear_package: ModelPackage
) -> None:
    """It is said which."""
    made = one(risky, shelf(linear_package))

    assert (made.verdict, made.cause, made.replayed) == (
        "NOT_REPRODUCIBLE",
        "package-missing",
        None,
    )
    assert str(risky.model_version) in made.detail


@pytest.mark.parametrize(
    "error",
    [
        PackageInvalid("model.json was altered"),
        PackageInvalid("golden record 3 is answered differently here"),
        ExplanationFailed("contributions miss the score by 2 log-odds"),
    ],
)
def test_a_package_that_fails_its_checks_does_not_answer(risky: Record, error: Exception) -> None:
    """Its sums, its golden records, its explanations: whatever fails is told."""

    def load(_portfolio: str, _version: str) -> ModelPackage:
        raise error

    made = one(risky, load)

    assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", "package-invalid")
    assert made.detail == str(error)


@pytest.mark.parametrize("withheld", get_args(Withheld))
def test_an_application_that_is_withheld_cannot_be_decided_about(
    risky: Record, trees_package: ModelPackage, withheld: Withheld
) -> None:
    """Erased, or sealed with another key; that counts before a package that is missing."""
    closed = without_input(risky, withheld)

    for load in (shelf(trees_package), shelf()):
        made = one(closed, load)
        assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", f"input-{withheld}")
        assert withheld in made.detail
    candidate = Candidate(package=trees_package)
    assert one(closed, shelf(), candidate=candidate).cause == f"input-{withheld}"


def test_an_application_that_the_schema_does_not_allow_is_told_by_its_places(
    risky: Record, trees_package: ModelPackage
) -> None:
    """By pointer, and never by what stands there."""
    odd = dataclasses.replace(risky, personal={"input": toys.RISKY | {"age": 4711}})

    made = one(odd, shelf(trees_package))

    assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", "input-invalid")
    assert "/age" in made.detail
    assert "4711" not in made.detail


@pytest.mark.parametrize(
    "damage",
    [
        {"probability_of_default": None},
        {"probability_of_default": "NaN"},
        {"risk_band": "NONE"},
        {"risk_band": ["LOW"]},
    ],
)
def test_a_record_without_an_answer_cannot_be_compared(
    risky: Record, trees_package: ModelPackage, damage: dict[str, Any]
) -> None:
    """Whoever altered it so, one record does not stop the replay of a million."""
    made = one(with_body(risky, **damage), shelf(trees_package))

    assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", "record-invalid")


def test_what_cannot_be_explained_spoils_no_other_record(trees_package: ModelPackage) -> None:
    """A policy that declines whom nothing speaks against: their decline has no reason."""
    harsh = toys.POLICY
    for edge, lower in ((" 0.1,", " 0.0001,"), (" 0.2,", " 0.0002,"), (" 0.4,", " 0.0003,")):
        harsh = harsh.replace(edge, lower)
    applications = [toys.SAFE, *toys.applications(30)]
    records = decided(trees_package, applications)
    candidate = candidate_policy(harsh)

    made = replay(records, shelf(trees_package), candidate=candidate)

    policy = candidate.policy
    assert policy is not None
    parts = dataclasses.replace(trees_package, policy=policy)
    for application, replayed in zip(applications, made, strict=True):
        outcome = policy.decide(replayed.recorded["probability_of_default"], application)
        if replayed.cause == "unexplained":
            with pytest.raises(ExplanationFailed, match=replayed.detail):
                scoring.decide(parts, [application])
        else:
            assert replayed.replayed is not None
            assert replayed.replayed["decision"] == outcome.decision
    assert {"unexplained", None} == {m.cause for m in made}


def test_another_package_under_the_recorded_version_is_found_out(
    risky: Record, trees_package: ModelPackage
) -> None:
    """By its digest: with the same answer it is still not what decided."""
    made = one(with_body(risky, package_sha256="0" * 64), shelf(trees_package))

    assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", "package-differs")
    assert "package_sha256" in made.detail
    assert made.replayed is not None


def test_another_package_under_the_recorded_version_with_another_answer_is_another_model(
    risky: Record, trees_package: ModelPackage
) -> None:
    """As it says."""
    made = one(
        with_body(risky, package_sha256="0" * 64, probability_of_default=0.5), shelf(trees_package)
    )

    assert (made.verdict, made.cause) == ("MODEL_CHANGED", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probability_of_default", 0.75),
        ("log_odds", 1.0),
        ("risk_band", "LOW"),
        ("prediction", 0),
        ("scored_decision", "REVIEW"),
        ("rules", ["price-above-limit"]),
        ("reasons", []),
        ("reasons", "none"),
        ("reasons", ["AMOUNT_REQUESTED"]),
    ],
)
def test_another_answer_of_the_same_package_is_the_environments(
    risky: Record, trees_package: ModelPackage, name: str, value: object
) -> None:
    """Where package, policy and reference group are the same bytes; what differs is named."""
    made = one(with_body(risky, **{name: value}), shelf(trees_package))

    assert made.verdict == "ENVIRONMENT_CHANGED"
    (difference,) = made.differences
    assert (difference.field, difference.recorded) == (name, value)
    assert difference.replayed == risky.body[name]


def test_a_decision_that_was_altered_on_record_is_not_matched(
    risky: Record, trees_package: ModelPackage
) -> None:
    """The environment is the same, so it is said that the record may be altered."""
    made = one(dataclasses.replace(risky, decision="APPROVE"), shelf(trees_package))

    assert made.verdict == "ENVIRONMENT_CHANGED"
    assert made.differences[0].field == "decision"
    assert made.changed == ("APPROVE", "DECLINE")
    assert "altered" in made.detail


@given(place=st.integers(0, 3), kind=st.sampled_from(["code", "fields", "contribution", "order"]))
def test_every_part_of_every_reason_is_compared(place: int, kind: str) -> None:
    """Codes, fields, contributions and order."""
    trees, _ = both()
    (record,) = read_again(decided(trees, [toys.RISKY]))
    reasons = record.body["reasons"]
    place %= len(reasons)
    if kind == "order":
        reasons.append(reasons.pop(0))
    else:
        change = {"code": "X", "fields": [], "contribution": 0.0}
        reasons[place] = reasons[place] | {kind: change[kind]}

    made = one(record, shelf(trees))

    assert [d.field for d in made.differences] == ["reasons"]


def test_a_rules_reason_that_gained_a_contribution_is_another(trees_package: ModelPackage) -> None:
    """It has none, so that any number is a difference."""
    (record,) = decided(trees_package, [toys.SAFE | {"price": 15_001.0, "income": 90_000.0}])
    (reason,) = record.body["reasons"]
    assert reason["contribution"] is None
    altered = with_body(record, reasons=[reason | {"contribution": 0.0}])

    assert one(record, shelf(trees_package)).verdict == "MATCH"
    assert one(altered, shelf(trees_package)).verdict == "ENVIRONMENT_CHANGED"


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("probability_of_default", SCORE_TOLERANCE), ("log_odds", SCORE_TOLERANCE)],
)
def test_the_last_bits_of_a_score_may_differ(
    risky: Record, trees_package: ModelPackage, name: str, tolerance: float
) -> None:
    """By what another processor rounds, and by no more."""
    value = risky.body[name]
    near = with_body(risky, **{name: value * (1 + 0.9 * tolerance)})
    far = with_body(risky, **{name: value * (1 + 3 * tolerance)})

    assert one(near, shelf(trees_package)).verdict == "MATCH"
    assert one(far, shelf(trees_package)).verdict == "ENVIRONMENT_CHANGED"


def test_the_last_bits_of_a_contribution_may_differ(
    risky: Record, trees_package: ModelPackage
) -> None:
    """Likewise, in log-odds."""

    def moved(by: float) -> Record:
        first, *rest = risky.body["reasons"]
        first = first | {"contribution": first["contribution"] + by}
        return with_body(risky, reasons=[first, *rest])

    assert one(moved(0.9 * CONTRIBUTION_TOLERANCE), shelf(trees_package)).verdict == "MATCH"
    made = one(moved(1.1 * CONTRIBUTION_TOLERANCE), shelf(trees_package))
    assert made.verdict == "ENVIRONMENT_CHANGED"


# Environments


def test_the_libraries_that_differ_are_named_where_the_start_is_on_record(
    risky: Record, trees_package: ModelPackage
) -> None:
    """From the listing that a worker left, found by its digest, however many starts there were."""
    then = environment.here().listing | {"numpy": "1.0", "gone-since": "2"}
    sha256 = documents.digest_json(then)
    start = start_record(trees_package)
    starts = [dataclasses.replace(start, id=f"start-{i}", time=NOON - i) for i in range(1_500)]
    starts[-1] = with_body(starts[-1], environment=then, environment_sha256=sha256)
    kept = Kept([risky, *starts])
    record = with_body(risky, environment_sha256=sha256, log_odds=0.0)

    made = one(record, shelf(trees_package), listings=listings_of(kept))

    assert made.verdict == "ENVIRONMENT_CHANGED"
    assert made.libraries == {
        "numpy": ("1.0", environment.here().listing["numpy"]),
        "gone-since": ("2", None),
    }
    assert "numpy, gone-since differ" in made.detail
    assert made.to_json()["libraries"]["gone-since"] == {"recorded": "2", "here": None}


def test_each_environment_is_looked_for_once(risky: Record, trees_package: ModelPackage) -> None:
    """A million decisions of an old environment are not a million searches."""
    kept = Kept([start_record(trees_package)])
    other = [with_body(risky, environment_sha256="0" * 64, log_odds=0.0)] * 3

    made = replay(other, shelf(trees_package), listings=listings_of(kept))

    assert [m.verdict for m in made] == ["ENVIRONMENT_CHANGED"] * 3
    assert all("not on record" in m.detail for m in made)
    assert len(kept.limits) == 1


def test_an_older_record_that_names_no_environment_is_compared_all_the_same(
    risky: Record, trees_package: ModelPackage
) -> None:
    """There were such records before environments were on record."""
    older = dataclasses.replace(
        risky, body={k: v for k, v in risky.body.items() if k != "environment_sha256"}
    )

    assert one(older, shelf(trees_package)).verdict == "MATCH"
    made = one(with_body(older, log_odds=0.0), shelf(trees_package))
    assert (made.verdict, made.libraries) == ("ENVIRONMENT_CHANGED", {})
    assert "not on record" in made.detail


def test_another_environment_with_the_same_answer_is_a_match(
    risky: Record, trees_package: ModelPackage
) -> None:
    """What was to be shown is the answer."""
    made = one(with_body(risky, environment_sha256="0" * 64), shelf(trees_package))

    assert made.verdict == "MATCH"


# Candidates


def test_exactly_the_decisions_that_a_policy_changes_are_reported(
    any_package: ModelPackage,
) -> None:
    """By comparison with what the policy itself says of each PD and application, one by one."""
    applications = toys.applications(400)
    records = read_again(decided(any_package, applications))
    candidate = candidate_policy(MILDER)
    policy = candidate.policy
    assert policy is not None

    made = replay(records, shelf(any_package), candidate=candidate)

    changed = 0
    for application, record, replayed in zip(applications, records, made, strict=True):
        pd = record.body["probability_of_default"]
        before, after = any_package.policy.decide(pd, application), policy.decide(pd, application)
        same = before == after
        assert replayed.verdict == ("MATCH" if same else "POLICY_CHANGED")
        assert (replayed.changed is None) is (before.decision == after.decision)
        assert replayed.replayed is not None
        assert replayed.replayed["policy_version"].startswith("2.1.0+")
        assert replayed.replayed["package_sha256"] == any_package.digest
        changed += not same
    assert 0 < changed < len(records)


def test_a_policy_that_gives_another_reason_is_another_policy(trees_package: ModelPackage) -> None:
    """The decision, its band and its rules are the same; what the applicant is told is not."""
    text = toys.POLICY.replace("reason: PRICE_ABOVE_LIMIT", "reason: AMOUNT_REQUESTED")
    records = decided(trees_package, [toys.SAFE | {"price": 15_001.0, "income": 90_000.0}])

    (made,) = replay(records, shelf(trees_package), candidate=candidate_policy(text))

    assert made.verdict == "POLICY_CHANGED"
    assert [d.field for d in made.differences] == ["reasons"]


def test_a_policy_may_leave_a_reason_without_use(trees_package: ModelPackage) -> None:
    """A candidate that drops a rule need not wait for the dictionary to drop its text."""
    text = toys.POLICY[: toys.POLICY.index("  - name: no-employment-stated")]
    records = decided(trees_package, [toys.SAFE | {"years_employed": None}])

    (made,) = replay(records, shelf(trees_package), candidate=candidate_policy(text))

    assert (made.verdict, made.changed) == ("POLICY_CHANGED", ("REVIEW", "APPROVE"))


def test_a_policys_file_that_only_looks_different_changes_nothing(
    trees_package: ModelPackage,
) -> None:
    """Its digest differs, its decisions do not."""
    records = decided(trees_package, toys.applications(50))

    made = replay(records, shelf(trees_package), candidate=candidate_policy(toys.POLICY + "# x\n"))

    assert {m.verdict for m in made} == {"MATCH"}


def test_no_policy_is_blamed_for_another_score(risky: Record, trees_package: ModelPackage) -> None:
    """The model is the recorded one, so it is the environment."""
    record = with_body(risky, log_odds=0.0)

    made = one(record, shelf(trees_package), candidate=candidate_policy(MILDER))

    assert made.verdict == "ENVIRONMENT_CHANGED"


def test_a_policy_that_does_not_fit_a_package_decides_nothing_of_it(
    risky: Record, trees_package: ModelPackage
) -> None:
    """It names a field that the schema of that time has not, or a reason without a text."""
    for old, new in (("field: price", "field: prize"), ("PRICE_ABOVE_LIMIT", "UNHEARD_OF")):
        candidate = candidate_policy(toys.POLICY.replace(old, new))
        made = one(risky, shelf(trees_package), candidate=candidate)

        assert (made.verdict, made.cause) == ("NOT_REPRODUCIBLE", "policy-unfit")
        assert trees_package.version in made.detail


def test_another_model_is_told_by_its_scores(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """The recorded package is not needed, nor asked for."""
    applications = [toys.SAFE, toys.RISKY, *toys.applications(40)]
    records = decided(trees_package, applications)

    made = replay(records, shelf(), candidate=Candidate(package=linear_package))

    expected = scoring.decide(linear_package, applications)
    for replayed, decision in zip(made, expected, strict=True):
        assert replayed.verdict == "MODEL_CHANGED"
        assert replayed.replayed is not None
        assert replayed.replayed["model_version"] == linear_package.version
        assert replayed.replayed["probability_of_default"] == decision.probability_of_default
        assert replayed.replayed["decision"] == decision.outcome.decision


def test_the_recorded_model_as_its_own_candidate_matches(trees_package: ModelPackage) -> None:
    """Nothing differs."""
    records = decided(trees_package, toys.applications(20))

    made = replay(records, shelf(), candidate=Candidate(package=trees_package))

    assert {m.verdict for m in made} == {"MATCH"}


def test_a_package_that_differs_by_its_policy_alone_is_another_policy(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """The model's scores are the same, and so it is not the model."""
    files = {"policy_yaml": MILDER.encode(), "golden_json": b'{"records": []}'}
    other = package.load(toys.write_package(tmp_path, "trees", **files))
    records = decided(trees_package, toys.applications(200))

    made = replay(records, shelf(), candidate=Candidate(package=other))

    assert {m.verdict for m in made} == {"MATCH", "POLICY_CHANGED"}


def test_a_package_with_other_reasons_is_another_model(
    risky: Record, trees_package: ModelPackage, tmp_path: Path
) -> None:
    """Another reference group gives other contributions, whatever policy comes along."""
    group = package.npz({"rows": toys.reference(20)})
    counted = model.count_reference(
        toys.spec("trees"), toys.schema(), toys.forest().arrays(), toys.reference(20)
    )
    files = {"reference_npz": group, "explanation_npz": package.npz(counted)}
    for more in ({}, {"policy_yaml": toys.POLICY.encode() + b"# x\n"}):
        other = package.load(toys.write_package(tmp_path, "trees", **files, **more))

        made = one(risky, shelf(trees_package), candidate=Candidate(package=other))

        assert [d.field for d in made.differences] == ["reasons"]
        assert made.verdict == "MODEL_CHANGED"


def test_model_and_policy_may_both_be_candidates(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """The package's own policy does not count then."""
    policy = candidate_policy(MILDER)
    candidate = dataclasses.replace(policy, package=linear_package)
    records = decided(trees_package, toys.applications(20))

    for made in replay(records, shelf(), candidate=candidate):
        assert made.replayed is not None
        assert made.replayed["policy_sha256"] == policy.policy_sha256
        assert made.replayed["package_sha256"] == linear_package.digest


def test_a_replay_tells_nothing_of_the_applicant(
    trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """It may be shown to whoever may see decisions."""
    applicant = toys.RISKY | {"income": 432.1987}
    records = decided(trees_package, [applicant])

    for candidate in (Candidate(), Candidate(package=linear_package)):
        told = json.dumps(one(records[0], shelf(trees_package), candidate=candidate).to_json())
        assert "432.1987" not in told
        assert json.loads(told)["decision_id"] == records[0].id


@pytest.fixture
def swapped(trees_package: ModelPackage) -> list[Replay]:
    """300 decisions against the milder policy, and one whose application is gone."""
    records = decided(trees_package, toys.applications(300))
    records.append(without_input(records[0]))
    return replay(records, shelf(trees_package), candidate=candidate_policy(MILDER))


def test_a_comparison_adds_up(swapped: list[Replay]) -> None:
    """Verdicts, causes, decisions from and to, rates and means, counted here another way."""
    comparison = Comparison(listed_most=5)
    for made in swapped:
        comparison.add(made)

    told = comparison.to_json()

    made_again = [made for made in swapped if made.replayed is not None]
    assert told["records"] == len(swapped) == len(made_again) + 1
    assert sum(told["verdicts"].values()) == len(swapped)
    assert list(told["verdicts"]) == list(VERDICTS)
    assert told["verdicts"]["POLICY_CHANGED"] == sum(bool(m.differences) for m in swapped)
    bands = [m.replayed["risk_band"] != m.recorded["risk_band"] for m in made_again if m.replayed]
    decisions = [m.changed is not None for m in made_again]
    assert told["otherwise"]["decision"] == sum(decisions)
    assert told["otherwise"]["band"] == sum(
        band and not decision for band, decision in zip(bands, decisions, strict=True)
    )
    assert sum(told["otherwise"].values()) == told["verdicts"]["POLICY_CHANGED"]
    assert told["not_reproducible"] == {
        "input-erased": {"records": 1, "example": swapped[-1].detail}
    }
    for side, answers in (
        ("before", [m.recorded for m in made_again]),
        ("after", [m.replayed or {} for m in made_again]),
    ):
        approved = [a for a in answers if a["decision"] == "APPROVE"]
        assert told[side]["decisions"] == len(answers)
        assert told[side]["approval_rate"] == len(approved) / len(answers)
        pds = [a["probability_of_default"] for a in answers]
        assert told[side]["mean_probability_of_default"] == pytest.approx(sum(pds) / len(pds))
        for band in BAND_ORDER:
            within = [a for a in answers if a["risk_band"] == band]
            of_band = told[side]["bands"][band]
            assert of_band["decisions"] == len(within)
            assert of_band["by_decision"] == {
                d: sum(a["decision"] == d for a in within) for d in DECISIONS
            }
    for before in DECISIONS:
        for now in DECISIONS:
            pairs = [(m.recorded["decision"], (m.replayed or {})["decision"]) for m in made_again]
            assert told["from_to"][before][now] == pairs.count((before, now))
    assert told["newly"]["APPROVE"] == told["from_to"]["REVIEW"]["APPROVE"] > 5
    assert told["newly"]["DECLINE"] == 0
    assert told["before"]["mean_probability_of_default"] == pytest.approx(
        told["after"]["mean_probability_of_default"]
    )


@pytest.mark.parametrize(
    ("altered", "otherwise"),
    [
        ({"risk_band": "LOW", "rules": ["x"]}, "band"),
        ({"reasons": [], "log_odds": 0.0}, "reasons"),
        ({"rules": ["x"]}, "rest"),
        ({}, None),
    ],
)
def test_what_came_out_otherwise_is_named_by_what_weighs_most(
    risky: Record, trees_package: ModelPackage, altered: dict[str, Any], otherwise: str | None
) -> None:
    """Once, whatever else differs; another decision above all."""
    made = one(with_body(risky, **altered), shelf(trees_package))
    swapped = one(
        dataclasses.replace(with_body(risky, **altered), decision="APPROVE"), shelf(trees_package)
    )

    assert (made.otherwise, swapped.otherwise) == (otherwise, "decision")
    assert one(without_input(risky), shelf(trees_package)).otherwise is None


def test_a_comparison_names_some_of_the_swap_set_and_no_more(swapped: list[Replay]) -> None:
    """Each with both answers; what it keeps does not grow with history."""
    comparison = Comparison(listed_most=5)
    for made in swapped:
        comparison.add(made)

    listed = comparison.to_json()["changed"]

    assert [entry["decision_id"] for entry in listed] == [
        made.record.id for made in swapped if made.changed
    ][:5]
    for entry in listed:
        assert entry["recorded"]["decision"] != entry["replayed"]["decision"]
        assert entry["verdict"] == "POLICY_CHANGED"


def test_of_nothing_there_is_no_rate() -> None:
    """And no division by zero."""
    told = Answers().to_json()

    assert told["decisions"] == 0
    assert told["approval_rate"] is told["mean_probability_of_default"] is None
    assert told["bands"]["LOW"]["approval_rate"] is None
    assert Comparison().to_json()["records"] == 0
