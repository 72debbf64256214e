"""The schema: what it accepts, what it refuses and how, and its numbers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import bodies, documents
from credit_risk.errors import ApplicationInvalid, PortfolioInvalid
from credit_risk.schema import UNSEEN, Schema, pointer
from tests import strategies, toys

if TYPE_CHECKING:
    from collections.abc import Callable

TOY = toys.schema()
DESCRIBED = jsonschema_rs.validator_for(TOY.json_schema())


def body(**changed: object) -> bytes:
    """The toy example as JSON, with fields replaced."""
    return json.dumps(TOY.example | changed).encode()


def body_with(field: str, token: str) -> bytes:
    """The toy example as JSON, with one field given as this very text."""
    return body(**{field: "@"}).replace(b'"@"', token.encode())


def refusal(given_body: bytes) -> ApplicationInvalid:
    """The error that the body is refused with."""
    with pytest.raises(ApplicationInvalid) as caught:
        TOY.validate_json(given_body)
    return caught.value


def pointers(error: ApplicationInvalid) -> list[str]:
    """The places that the error names."""
    return [e.pointer for e in error.errors]


def test_the_example_is_accepted_as_it_is() -> None:
    """The pages' example works as pasted."""
    assert TOY.validate_json(body()) == TOY.example
    assert TOY.example == {
        "age": 34,
        "income": 2500.0,
        "price": 1200.0,
        "years_employed": 4.5,
        "history": "mixed",
        "use": "commuting",
    }
    assert isinstance(TOY.example["age"], int)


def test_the_ends_of_a_range_belong_to_it() -> None:
    """Minimum and maximum are allowed values."""
    assert TOY.validate_json(body(age=18, income=100000))["age"] == 18
    assert TOY.validate_json(body(age=100, income=100))["income"] == 100.0


def test_a_whole_number_is_a_number() -> None:
    """Nobody has to write 2500.0."""
    income = TOY.validate_json(body(income=2500))["income"]

    assert income == 2500.0
    assert isinstance(income, float)


def test_a_nullable_field_may_be_null_or_left_out() -> None:
    """Both mean missing."""
    null = TOY.validate_json(body(years_employed=None))
    absent = dict(TOY.example)
    del absent["years_employed"]

    assert null["years_employed"] is None
    assert TOY.validate_application(absent) == absent
    assert math.isnan(TOY.vector(null)[3])
    assert math.isnan(TOY.vector(TOY.validate_application(absent))[3])


@pytest.mark.parametrize(
    ("field", "token", "detail"),
    [
        ("age", "true", "valid integer"),
        ("age", "57.5", "valid integer"),
        ("age", '"57"', "valid integer"),
        ("age", "[57]", "valid integer"),
        ("age", '{"years": 57}', "valid integer"),
        ("age", "null", "valid integer"),
        ("age", "17", "greater than or equal to 18"),
        ("age", "101", "less than or equal to 100"),
        ("age", "9" * 400, "less than or equal to 100"),
        ("age", "1e999", "valid integer"),
        ("income", "false", "valid number"),
        ("income", '"2501"', "valid number"),
        ("income", "null", "valid number"),
        ("income", "[]", "valid number"),
        ("income", "99.99", "greater than or equal to 100"),
        ("income", "100000.01", "less than or equal to 100000"),
        ("income", "-7000", "greater than or equal to 100"),
        ("income", "NaN", "finite number"),
        ("income", "Infinity", "finite number"),
        ("income", "-Infinity", "finite number"),
        ("income", "1e999", "finite number"),
        ("income", "-1e999", "finite number"),
        ("income", "7" * 400, "finite number"),
        ("years_employed", "-0.25", "greater than or equal to 0"),
        ("years_employed", "50.25", "less than or equal to 50"),
        ("years_employed", "true", "valid number"),
        ("years_employed", "NaN", "finite number"),
        ("history", '"Poor"', "'good', 'mixed' or 'poor'"),
        ("history", '"N/A"', "'good', 'mixed' or 'poor'"),
        ("history", "2", "'good', 'mixed' or 'poor'"),
        ("history", "true", "'good', 'mixed' or 'poor'"),
        ("history", "null", "'good', 'mixed' or 'poor'"),
        ("history", '["poor", "poor"]', "'good', 'mixed' or 'poor'"),
    ],
)
def test_a_wrong_value_is_refused_by_place_and_never_repeated(
    field: str, token: str, detail: str
) -> None:
    """One error at the field's pointer that says what is wanted and not what was given."""
    error = refusal(body_with(field, token))

    assert pointers(error) == [f"/{field}"]
    assert detail in error.errors[0].detail
    assert token.strip('"') not in str(error)


@pytest.mark.parametrize("token", ["true", "57.5", '"57"', "null", "17", "101", "[57]"])
def test_a_parsed_application_is_held_to_the_same(token: str) -> None:
    """A row of a batch is refused like a body of its own."""
    with pytest.raises(ApplicationInvalid) as caught:
        TOY.validate_application(json.loads(body_with("age", token)))

    assert caught.value.errors == refusal(body_with("age", token)).errors


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_parsed_number_must_be_finite(value: float) -> None:
    """Whatever parsed the row, no NaN gets in."""
    with pytest.raises(ApplicationInvalid) as caught:
        TOY.validate_application(TOY.example | {"income": value})

    assert pointers(caught.value) == ["/income"]


def test_every_wrong_place_is_named_at_once() -> None:
    """Unknown, missing and wrong fields are all in one answer, in a fixed order."""
    wrong = TOY.example | {"age": 3, "use": "delivery", "shoe_size": 44}
    del wrong["price"]

    error = refusal(json.dumps(wrong).encode())

    assert {(e.pointer, e.detail) for e in error.errors} == {
        ("/age", "Input should be greater than or equal to 18"),
        ("/use", "Input should be 'cargo', 'commuting' or 'racing'"),
        ("/price", "Field required"),
        ("/shoe_size", "Unknown field"),
    }
    assert "44" not in str(error)
    assert "delivery" not in str(error)


def test_an_empty_object_lacks_every_required_field() -> None:
    """All but the nullable field are named."""
    error = refusal(b"{}")

    assert pointers(error) == ["/age", "/income", "/price", "/history", "/use"]
    assert {e.detail for e in error.errors} == {"Field required"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shoe_size", "/shoe_size"),
        ("AGE", "/AGE"),
        ("a/b~c", "/a~1b~0c"),
        ("~1", "/~01"),
        ("", "/"),
        ("größe", "/größe"),
        ("n" * 100_000, "/" + "n" * 64),
        ("/" * 100, "/" + "~1" * 64),
    ],
)
def test_an_unknown_field_is_named_by_an_escaped_pointer(name: str, expected: str) -> None:
    """RFC 6901 escapes, and no answer as long as the question."""
    error = refusal(body(**{name: "a secret"}))

    assert [(e.pointer, e.detail) for e in error.errors] == [(expected, "Unknown field")]
    assert "a secret" not in str(error)


def test_a_field_given_again_is_refused_whichever_value_is_right() -> None:
    """Two readers of the body could take either; a value in an unknown field is no better."""
    again = body()[:-1] + b', "age": 35, "shoe_size": 1, "shoe_size": 2}'

    error = refusal(again)

    assert [(e.pointer, e.detail) for e in error.errors] == [
        ("/shoe_size", "Unknown field"),
        ("/age", "Given more than once"),
        ("/shoe_size", "Given more than once"),
    ]
    assert pointers(refusal(body()[:-1] + rb', "\u0061ge": 34}')) == ["/age"]


def test_a_row_that_gives_a_field_again_is_held_to_the_same() -> None:
    """A row of a batch is refused like a body of its own."""
    row = bodies.parse(body()[:-1] + b', "age": 35}')

    with pytest.raises(ApplicationInvalid) as caught:
        TOY.validate_application(row)

    assert [(e.pointer, e.detail) for e in caught.value.errors] == [
        ("/age", "Given more than once")
    ]


def test_quotation_marks_in_a_category_repeat_nothing() -> None:
    """They are what a quick count takes for a name given again."""
    document = toys.schema().model_dump(mode="json")
    use = next(f for f in document["fields"] if f["name"] == "use")
    use["categories"] = [*use["categories"], 'so-called "racing"']
    schema = Schema.model_validate(document)
    application = schema.example | {"use": 'so-called "racing"'}

    assert schema.validate_json(json.dumps(application).encode()) == application


@pytest.mark.parametrize(
    "given_body",
    [
        b"",
        b"   ",
        b"hello",
        b"{'age': 34}",
        b'{"age": 34,}',
        b'{"age": }',
        b'{"age": 034}',
        body()[:-1],
        body()[: len(body()) // 2],
        body() + b"}",
        b'{"age": \xff}',
        b"\xff\xfe" + "{}".encode("utf-16-le"),
        b'{"\xed\xa0\x80": 1}',
        b'{"\\ud800": 1}',
        b"[" * 100_000,
        b'{"age":' * 100_000,
    ],
    ids=lambda b: repr(b[:20]),
)
def test_what_is_not_json_is_refused_as_a_whole(given_body: bytes) -> None:
    """Malformed, truncated, not UTF-8, far too deep: one error about the body itself."""
    error = refusal(given_body)

    assert pointers(error) == [""]
    assert error.errors[0].detail.startswith("Invalid JSON: ")
    assert str(error).startswith("/: Invalid JSON: ")


def test_a_number_of_more_digits_than_can_be_read_is_not_called_invalid_json() -> None:
    """JSON limits none."""
    error = refusal(b'{"age": ' + b"9" * 5_000 + b"}")

    assert str(error) == "/: Number out of range at line 1 column 4310"


@pytest.mark.parametrize("given_body", [b"[]", b"[{}]", b"null", b"3.5", b'"secret"', b"true"])
def test_json_that_is_no_object_is_refused_as_a_whole(given_body: bytes) -> None:
    """An application is an object."""
    error = refusal(given_body)

    assert [(e.pointer, e.detail) for e in error.errors] == [("", "Input should be an object")]
    assert "secret" not in str(error)


def test_nesting_within_a_field_is_a_wrong_type() -> None:
    """What JSON allows, the field does not."""
    error = refusal(body_with("income", "[" * 90 + "]" * 90))

    assert pointers(error) == ["/income"]


@pytest.mark.parametrize("row", [[], None, "x", 3, {1: 2}, {"\ud800": 1}])
def test_anything_else_than_an_application_is_refused(row: object) -> None:
    """A row of a batch may be anything, its refusal can always be sent."""
    with pytest.raises(ApplicationInvalid) as caught:
        TOY.validate_application(row)

    assert str(caught.value).encode()


ODD_ROWS: st.SearchStrategy[object] = st.sampled_from(
    [None, [], {}, TOY.example | {"age": 34.0}, TOY.example | {"age": 17, "shoe_size": 1}]
) | st.just(bodies.parse(body()[:-1] + b', "age": 35}'))


@given(st.lists(strategies.applications(TOY) | ODD_ROWS, max_size=5))
def test_many_applications_are_checked_as_each_alone(rows: list[object]) -> None:
    """Values, their types and every fault, in order, whatever is beside them."""

    def alone(row: object) -> object:
        try:
            return TOY.validate_application(row)
        except ApplicationInvalid as error:
            return error.errors

    checked = TOY.validate_applications(rows)

    told = [row.errors if isinstance(row, ApplicationInvalid) else row for row in checked]
    assert list(map(repr, told)) == [repr(alone(row)) for row in rows]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(given_body: bytes) -> None:
    """Whatever comes, the answer is an application or `ApplicationInvalid`."""
    with pytest.raises(ApplicationInvalid):
        TOY.validate_json(given_body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.sampled_from([*TOY.names, "other", "a/b"]),
)
def test_any_value_in_any_place_is_accepted_or_refused_at_that_place(
    value: object, name: str
) -> None:
    """One wrong field never shows as another's error."""
    try:
        accepted = TOY.validate_application(TOY.example | {name: value})
    except ApplicationInvalid as error:
        assert pointers(error) == [pointer((name,))]  # noqa: PT017 - either outcome is right
    else:
        assert accepted[name] == value


@given(strategies.applications(TOY))
def test_vector_and_application_are_each_others_inverse(application: dict[str, Any]) -> None:
    """Nothing is lost on the way to numbers and back; left out comes back as null."""
    vector = TOY.vector(TOY.validate_json(json.dumps(application).encode()))

    assert all(isinstance(number, float | int) for number in vector)
    assert TOY.application(vector) == {"years_employed": None} | application
    np.testing.assert_array_equal(TOY.vector(TOY.application(vector)), vector)


def test_a_vector_holds_places_of_categories_and_nan_for_missing() -> None:
    """Numbers in the schema's order."""
    vector = TOY.vector(TOY.example | {"years_employed": None, "history": "poor", "use": "cargo"})

    np.testing.assert_array_equal(vector, [34, 2500, 1200, math.nan, 2, 0])


def test_a_category_that_is_not_listed_has_a_code_of_its_own() -> None:
    """Raw training data may hold one."""
    assert TOY.vector(TOY.example | {"use": "delivery"})[5] == UNSEEN


def test_a_matrix_has_one_row_for_each_application() -> None:
    """Also for none."""
    both = TOY.matrix([toys.SAFE, toys.RISKY])

    assert both.dtype == np.float64
    np.testing.assert_array_equal(both, [TOY.vector(toys.SAFE), TOY.vector(toys.RISKY)])
    assert TOY.matrix([]).shape == (0, 6)


@pytest.mark.parametrize(
    ("location", "expected"),
    [((), ""), (("age",), "/age"), (("applications", 3, "age"), "/applications/3/age")],
)
def test_a_pointer_joins_names_and_places(location: tuple[str | int, ...], expected: str) -> None:
    """RFC 6901."""
    assert pointer(location) == expected


# The JSON Schema.


def test_the_json_schema_describes_every_field() -> None:
    """Types, ranges, units and allowed values are those of the schema file."""
    described = TOY.json_schema()

    assert described["title"] == "Application for the lease of a bicycle"
    assert described["examples"] == [TOY.example]
    assert described["additionalProperties"] is False
    assert described["required"] == ["age", "income", "price", "history", "use"]
    properties = described["properties"]
    assert list(properties) == list(TOY.names)
    assert properties["age"] == {
        "type": "integer",
        "minimum": 18,
        "maximum": 100,
        "title": "Age of the applicant",
        "examples": [34],
        "x-unit": "years",
    }
    assert properties["years_employed"]["anyOf"] == [
        {"type": "number", "minimum": 0, "maximum": 50},
        {"type": "null"},
    ]
    assert properties["history"]["enum"] == ["good", "mixed", "poor"]
    assert "x-unit" not in properties["history"]


def test_pages_show_whole_numbers_for_integer_fields() -> None:
    """18.0 years in an example would be refused by the very field it documents."""
    text = json.dumps(TOY.json_schema()["properties"]["age"])

    assert "." not in text.replace("Age of the applicant", "")


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers(-10, 200)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["good", "Poor", "racing", "34", ""])
    | st.lists(st.integers(), max_size=1)
)


@st.composite
def nearly_applications(draw: Callable[..., Any]) -> dict[str, Any]:
    """Applications with a few fields replaced by anything, left out, or added."""
    application: dict[str, Any] = draw(strategies.applications(TOY))
    for name in draw(st.lists(st.sampled_from([*TOY.names, "shoe_size"]), max_size=2)):
        application[name] = draw(ANYTHING)
    for name in draw(st.lists(st.sampled_from(TOY.names), max_size=1)):
        application.pop(name, None)
    return application


@given(nearly_applications())
def test_the_json_schema_accepts_exactly_what_validation_accepts(
    application: dict[str, Any],
) -> None:
    """A client that checks against the page is never surprised, either way."""
    try:
        TOY.validate_json(json.dumps(application).encode())
    except ApplicationInvalid:
        accepted = False
    else:
        accepted = True

    assert DESCRIBED.is_valid(application) is accepted


def test_a_whole_number_with_a_decimal_point_is_an_integer() -> None:
    """JSON Schema cannot tell 57.0 from 57, and many a library writes the one for the other."""
    assert DESCRIBED.is_valid(TOY.example | {"age": 57.0})
    accepted = TOY.validate_json(body_with("age", "57.0"))["age"]
    assert (accepted, type(accepted)) == (57, int)


# The schema file itself.


def altered(change: Callable[[dict[str, Any], dict[str, dict[str, Any]]], None]) -> str:
    """The toy schema file, changed; ``change`` gets the document and its fields by name."""
    document: dict[str, Any] = yaml.safe_load(toys.SCHEMA)
    change(document, {f["name"]: f for f in document["fields"]})
    return str(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("use", {"categories": []}, "use: a category field needs a list of distinct"),
        ("use", {"categories": ["a", "a"]}, "use: a category field needs a list of distinct"),
        ("use", {"example": "delivery"}, "use: the example is not one of the categories"),
        ("use", {"direction": "increasing"}, "use: only ordered categories have a direction"),
        ("history", {"direction": "decreasing"}, "history: only ordered categories"),
        ("age", {"minimum": None}, "age: a numeric field needs minimum < maximum"),
        ("age", {"maximum": None}, "age: a numeric field needs minimum < maximum"),
        ("age", {"maximum": 18}, "age: a numeric field needs minimum < maximum"),
        ("age", {"example": 17}, "age: the example is not within the range"),
        ("age", {"example": "old"}, "age: the example is not within the range"),
        ("income", {"example": math.nan}, "income: the example is not within the range"),
        ("age", {"minimum": 17.5}, "age: an integer field has a whole minimum"),
        ("age", {"example": 33.3}, "age: an integer field has a whole minimum"),
        ("income", {"maximum": math.inf}, r"fields\.1\.maximum: .*finite"),
        ("income", {"minimum": math.nan}, r"fields\.1\.minimum: .*finite"),
        ("income", {"minimum": -1}, r"income: log\(1 \+ x\) needs a minimum of 0 or more"),
        ("price", {"missing_indicator": True}, "price: a missing indicator needs a field"),
        ("price", {"outside": "missing"}, "price: a value can only be set to missing"),
        ("price", {"type": "money"}, r"fields\.2\.type"),
        ("price", {"colour": "red"}, r"fields\.2\.colour"),
        ("age", {"name": "the age"}, r"fields\.0\.name"),
        ("age", {"name": "price"}, "field names are not unique"),
        (
            "years_employed",
            {"follows": {"numerator": "price", "denominator": "fees", "decimals": 2}},
            "years_employed: fees is not a numeric field",
        ),
    ],
)
def test_a_field_that_contradicts_itself_is_refused(
    field: str, change: dict[str, Any], message: str
) -> None:
    """The server does not start on it, and says where it is wrong."""
    text = altered(lambda _, fields: fields[field].update(change))

    with pytest.raises(PortfolioInvalid, match=f"^schema.yaml: .*{message}"):
        documents.parse(Schema, text, "schema.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "age"}, "field names are not unique"),
        ({"factor": "fees"}, "price_to_income: factor fees is not a field"),
        (
            {"ratio": {"numerator": "fees", "denominator": "income"}},
            "price_to_income: fees is not a numeric field",
        ),
        (
            {"ratio": {"numerator": "price", "denominator": "use"}},
            "price_to_income: use is not a numeric field",
        ),
        (
            {"ratio": {"numerator": "price", "denominator": "years_employed"}},
            "the denominator years_employed needs a minimum above 0",
        ),
    ],
)
def test_a_derived_number_that_cannot_be_computed_is_refused(
    change: dict[str, Any], message: str
) -> None:
    """Unknown parts, categories and denominators that may be 0."""
    text = altered(lambda document, _: document["derived"][0].update(change))

    with pytest.raises(PortfolioInvalid, match=message):
        documents.parse(Schema, text, "schema.yaml")


@pytest.mark.parametrize(
    ("change", "place"),
    [({"fields": []}, "fields"), ({"portfolio": "Bicycle Leases"}, "portfolio")],
)
def test_a_schema_needs_fields_and_a_plain_name(change: dict[str, Any], place: str) -> None:
    """The portfolio's name is also a folder's."""
    text = altered(lambda document, _: document.update(change))

    with pytest.raises(PortfolioInvalid, match=f"schema.yaml: {place}: "):
        documents.parse(Schema, text, "schema.yaml")
