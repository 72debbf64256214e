"""The one table from errors to problems."""

from __future__ import annotations

import re

import pytest

from credit_risk import errors
from credit_risk.errors import (
    ApplicationInvalid,
    CreditRiskError,
    ExplanationFailed,
    FieldError,
    RecordingFailed,
    RequestInvalid,
)
from credit_risk.serving import problems
from credit_risk.serving.problems import KINDS, PLACES_MAX


def invalid(*places: tuple[str, str]) -> ApplicationInvalid:
    """An application with these places at fault."""
    return ApplicationInvalid(tuple(FieldError(*place) for place in places))


def test_every_kind_says_what_to_do() -> None:
    """A problem's page has a title, a status that is an error, and advice."""
    for slug, kind in KINDS.items():
        assert kind.slug == slug
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", slug)
        assert kind.uri == f"/problems/{slug}"
        assert 400 <= kind.status < 600
        assert kind.title
        assert kind.advice.endswith(".")


def test_a_wrong_place_is_422_and_named() -> None:
    """Every place by its pointer, with what is wrong there."""
    problem = problems.of(invalid(("/age", "Field required"), ("/use", "Unknown field")))

    assert problem.to_json("0193") == {
        "type": "/problems/invalid-application",
        "title": "The application is not valid",
        "status": 422,
        "detail": "2 places are not as the schema says",
        "instance": "urn:uuid:0193",
        "errors": [
            {"pointer": "/age", "detail": "Field required"},
            {"pointer": "/use", "detail": "Unknown field"},
        ],
    }
    one = problems.of(invalid(("/age", "Field required")))
    assert one.detail == "1 place is not as the schema says"


def test_no_more_places_are_named_than_anybody_reads() -> None:
    """A body of a hundred thousand unknown fields does not get ten times its size back."""
    problem = problems.of(invalid(*((f"/{i}", "Unknown field") for i in range(5_000))))

    assert problem.detail == (
        f"5000 places are not as the schema says; the first {PLACES_MAX} are named"
    )
    assert [e.pointer for e in problem.errors] == [f"/{i}" for i in range(PLACES_MAX)]


def test_what_is_not_json_is_400() -> None:
    """There is no place to name, but where the parser stopped."""
    problem = problems.of(invalid(("", "Invalid JSON: EOF while parsing a value at line 1")))

    assert (problem.status, problem.type) == (400, "/problems/malformed-json")
    assert "line 1" in problem.detail
    assert problem.errors == ()


def test_a_body_of_another_shape_is_not_malformed() -> None:
    """An array is JSON; it is just no application."""
    assert problems.of(invalid(("", "Input should be an object"))).status == 422


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (ExplanationFailed("contributions miss the score by 12"), 500, "explanation-failed"),
        (RecordingFailed("disk full at /srv/secret"), 503, "not-recorded"),
        (ZeroDivisionError("division by 31337"), 500, "internal-error"),
        (CreditRiskError("anything else of ours"), 500, "internal-error"),
    ],
)
def test_a_fault_of_ours_tells_callers_nothing_of_its_inside(
    error: Exception, status: int, slug: str
) -> None:
    """The error's own text goes to the log, not to the caller."""
    problem = problems.of(error)

    assert (problem.status, problem.type) == (status, f"/problems/{slug}")
    assert str(error) not in str(problem.to_json("0193"))
    assert problem.errors == ()


def test_a_wrong_call_about_a_decision_is_422_and_each_place_is_named() -> None:
    """In the detail too, for people."""
    problem = problems.of(RequestInvalid((FieldError("/limit", "Not a number"),)))

    assert (problem.status, problem.type) == (422, "/problems/invalid-request")
    assert problem.detail == "/limit: Not a number"
    assert [e.pointer for e in problem.errors] == ["/limit"]


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.NotAdverse("It is APPROVE"), 409, "not-adverse"),
        (errors.NoticeImpossible("No wording"), 409, "notice-impossible"),
        (errors.ReviewRefused("It is closed"), 409, "review-refused"),
    ],
)
def test_what_the_state_of_a_decision_forbids_is_409_and_says_why(
    error: Exception, status: int, slug: str
) -> None:
    """In the words of the core, which hold nothing that was sent."""
    problem = problems.of(error)

    assert (problem.status, problem.type) == (status, f"/problems/{slug}")
    assert problem.detail == str(error)


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.RecordExpired("record 31337 was taken"), 410, "record-expired"),
        (errors.RecordNotFound("no record has the id 31337"), 404, "not-found"),
        (errors.PackageNotFound("no package 31337"), 409, "package-missing"),
        (errors.PackageInvalid("/srv/31337: altered"), 409, "package-missing"),
    ],
)
def test_what_is_not_there_is_told_without_ids_and_paths(
    error: Exception, status: int, slug: str
) -> None:
    """A caller knows what it asked for, and where things lie is ours."""
    problem = problems.of(error)

    assert (problem.status, problem.type) == (status, f"/problems/{slug}")
    assert "31337" not in str(problem.to_json(None))


def test_every_error_of_the_core_has_an_answer() -> None:
    """No error of the tree is without a status, those to come included."""
    kinds = [
        kind
        for name in vars(errors)
        if isinstance(kind := getattr(errors, name), type) and issubclass(kind, CreditRiskError)
    ]

    assert len(kinds) > 7
    for kind in kinds:
        if kind in {ApplicationInvalid, RequestInvalid}:
            error: Exception = kind((FieldError("/age", "x"),))
        else:
            error = kind("x")
        assert problems.of(error).type.removeprefix("/problems/") in KINDS


def test_without_a_record_there_is_no_instance() -> None:
    """A problem that nothing was recorded of names no occurrence."""
    assert "instance" not in KINDS["not-recorded"].problem("why").to_json(None)
