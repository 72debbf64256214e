"""The portfolio's schema: the one list of application fields that everything derives from.

From it come the validation of requests, the JSON Schema and OpenAPI pages, the training
pipeline, the encoder, the drift profile and the reason groups. Inside the server an application
is a row of numbers in the schema's order (`Schema.vector`): a category is its index in the list
of categories, `UNSEEN` a category that is not in it, NaN a missing value.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Required

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic import Field as Constraint
from typing_extensions import TypedDict

from credit_risk import bodies
from credit_risk.documents import Document
from credit_risk.errors import ApplicationInvalid, FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

Direction = Literal["increasing", "decreasing", "none"]
Application = dict[str, Any]

UNSEEN = -1.0
"""Code of a category that the schema does not list (raw training data only)."""

_POINTER_PART_MAX = 64
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Ratio(Document):
    """A number that is one field divided by another."""

    numerator: str
    denominator: str


class RoundedRatio(Ratio):
    """A field that an applicant states but that follows from two others, rounded."""

    decimals: Annotated[int, Field(ge=0, le=10)]


class FieldSpec(Document):
    """One application field.

    ``direction`` is what credit sense demands of the model: with ``increasing`` the probability
    of default never falls as the field rises. ``ordered`` categories are listed from safest to
    riskiest and become one column, their place in the list; others become one column each.
    With ``missing_indicator`` the model also sees whether the field was missing.
    ``outside`` says what preparation does with a raw training value outside the range: drop the
    row, or set the value to missing. A request with such a value is always refused.
    """

    name: Annotated[str, Field(pattern=_IDENTIFIER)]
    title: str
    type: Literal["integer", "number", "category"]
    unit: str | None = None
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    categories: tuple[str, ...] = ()
    ordered: bool = False
    missing_indicator: bool = False
    nullable: bool = False
    direction: Direction = "none"
    reason: str
    transform: Literal["none", "log"] = "none"
    outside: Literal["drop", "missing"] = "drop"
    follows: RoundedRatio | None = None
    example: float | str

    @model_validator(mode="after")
    def _is_consistent(self) -> FieldSpec:  # noqa: C901 - one check after another
        if self.missing_indicator and not self.nullable:
            msg = f"{self.name}: a missing indicator needs a field that may be missing"
            raise ValueError(msg)
        if self.type == "category":
            if not self.categories or len(set(self.categories)) != len(self.categories):
                msg = f"{self.name}: a category field needs a list of distinct categories"
                raise ValueError(msg)
            if self.example not in self.categories:
                msg = f"{self.name}: the example is not one of the categories"
                raise ValueError(msg)
            if self.direction != "none" and not (self.ordered and self.direction == "increasing"):
                msg = f"{self.name}: only ordered categories have a direction, and it is increasing"
                raise ValueError(msg)
            return self
        if self.minimum is None or self.maximum is None or self.minimum >= self.maximum:
            msg = f"{self.name}: a numeric field needs minimum < maximum"
            raise ValueError(msg)
        if isinstance(self.example, str) or not self.minimum <= self.example <= self.maximum:
            msg = f"{self.name}: the example is not within the range"
            raise ValueError(msg)
        numbers = (self.minimum, self.maximum, self.example)
        if self.type == "integer" and not all(number.is_integer() for number in numbers):
            msg = f"{self.name}: an integer field has a whole minimum, maximum and example"
            raise ValueError(msg)
        if self.transform == "log" and self.minimum < 0:
            msg = f"{self.name}: log(1 + x) needs a minimum of 0 or more"
            raise ValueError(msg)
        if self.outside == "missing" and not self.nullable:
            msg = f"{self.name}: a value can only be set to missing where the field is nullable"
            raise ValueError(msg)
        return self

    @property
    def is_category(self) -> bool:
        """Whether the field holds one of a list of names rather than a number."""
        return self.type == "category"


class DerivedSpec(Document):
    """A ratio of two fields that the model also sees; its effect is reported under ``factor``."""

    name: Annotated[str, Field(pattern=_IDENTIFIER)]
    ratio: Ratio
    factor: str
    direction: Direction = "none"


class Schema(Document):
    """A portfolio's fields, and the numbers derived from them."""

    portfolio: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    version: str
    title: str
    fields: Annotated[tuple[FieldSpec, ...], Field(min_length=1, max_length=200)]
    derived: tuple[DerivedSpec, ...] = ()

    @model_validator(mode="after")
    def _names_resolve(self) -> Schema:
        names = [f.name for f in self.fields] + [d.name for d in self.derived]
        if len(set(names)) != len(names):
            msg = "field names are not unique"
            raise ValueError(msg)
        by_name = {f.name: f for f in self.fields}
        ratios: list[tuple[str, Ratio]] = [(d.name, d.ratio) for d in self.derived]
        ratios += [(f.name, f.follows) for f in self.fields if f.follows is not None]
        for name, ratio in ratios:
            for part in (ratio.numerator, ratio.denominator):
                if part not in by_name or by_name[part].is_category:
                    msg = f"{name}: {part} is not a numeric field"
                    raise ValueError(msg)
            if (by_name[ratio.denominator].minimum or 0.0) <= 0.0:
                msg = f"{name}: the denominator {ratio.denominator} needs a minimum above 0"
                raise ValueError(msg)
        for derived in self.derived:
            if derived.factor not in by_name:
                msg = f"{derived.name}: factor {derived.factor} is not a field"
                raise ValueError(msg)
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Field names in the order of `vector`."""
        return tuple(f.name for f in self.fields)

    @cached_property
    def index(self) -> dict[str, int]:
        """Place of each field in `vector`."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def example(self) -> Application:
        """A working application, made of the fields' examples."""
        return {f.name: _exact(f, f.example) for f in self.fields}

    def validate_json(self, body: bytes) -> Application:
        """Parse and check one application.

        Raises:
            ApplicationInvalid: with one error for each place that is wrong. A body that is not
                JSON at all has the single pointer ``""`` and a detail beginning "Invalid JSON".
        """
        try:
            application = self._adapter.validate_json(body)
        except ValidationError as error:
            again = () if _is_malformed(error) else given_again(bodies.repeated(body))
            raise ApplicationInvalid(_faults(error) + again) from None
        if not bodies.is_plain(body, bodies.strings(application)):
            again = given_again(bodies.repeated(body))
            if again:
                raise ApplicationInvalid(again)
        return application

    def validate_application(self, application: object) -> Application:
        """Check one application as `bodies.parse` has it; raises as `validate_json` does."""
        again: tuple[FieldError, ...] = ()
        if isinstance(application, bodies.Repeating):
            again, application = given_again(application.repeated), dict(application)
        try:
            valid = self._adapter.validate_python(application)
        except ValidationError as error:
            raise ApplicationInvalid(_faults(error) + again) from None
        if again:
            raise ApplicationInvalid(again)
        return valid

    def validate_applications(
        self, applications: Sequence[object]
    ) -> list[Application | ApplicationInvalid]:
        """`validate_application` of each, in order: what it returns, or else raises."""
        try:
            return list(self._adapter_of_many.validate_python(applications))
        except ValidationError:
            return [self._tried(application) for application in applications]

    def json_schema(self) -> dict[str, Any]:
        """The application as JSON Schema (draft 2020-12), with units, titles and examples."""
        schema = self._adapter.json_schema()
        schema["title"] = self.title
        schema["examples"] = [self.example]
        return schema

    def vector(self, application: Mapping[str, Any]) -> list[float]:
        """The application as numbers in field order, each a float, NaN where missing."""
        get = application.get
        return [
            math.nan
            if (value := get(name)) is None
            else (value if codes is None else codes.get(value, UNSEEN))
            for name, codes in self._coding
        ]

    def matrix(self, applications: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Applications as an array of shape (rows, fields), float64."""
        return np.array([self.vector(a) for a in applications], dtype=np.float64).reshape(
            len(applications), len(self.fields)
        )

    def application(self, vector: Sequence[float]) -> Application:
        """The inverse of `vector`, for values that the schema allows."""
        result: Application = {}
        for spec, value in zip(self.fields, vector, strict=True):
            if math.isnan(value):
                result[spec.name] = None
            elif spec.is_category:
                result[spec.name] = spec.categories[int(value)]
            else:
                result[spec.name] = int(value) if spec.type == "integer" else float(value)
        return result

    def _tried(self, application: object) -> Application | ApplicationInvalid:
        try:
            return self.validate_application(application)
        except ApplicationInvalid as error:
            return error

    @cached_property
    def _coding(self) -> tuple[tuple[str, dict[str, float] | None], ...]:
        return tuple(
            (f.name, {c: float(i) for i, c in enumerate(f.categories)} if f.is_category else None)
            for f in self.fields
        )

    @cached_property
    def _adapter(self) -> TypeAdapter[Application]:
        return TypeAdapter(self._application)

    @cached_property
    def _adapter_of_many(self) -> TypeAdapter[list[Application]]:
        kind: Any = self._application
        return TypeAdapter(Annotated[list[kind], FailFast()])

    @cached_property
    def _application(self) -> Any:  # noqa: ANN401 - a type made here
        annotations = {f.name: _annotation(f) for f in self.fields}
        # A TypedDict gives plain dicts: half the time of a model's instance for each request.
        make: Any = TypedDict  # a type checker expects the fields to be known here
        typed_dict = make("Application", annotations)
        typed_dict.__pydantic_config__ = ConfigDict(
            strict=True, extra="forbid", allow_inf_nan=False
        )
        return typed_dict


def _exact(spec: FieldSpec, value: float | str | None) -> float | str | None:
    """A number of an integer field as an integer, so that pages do not show 18.0 years."""
    return int(value) if spec.type == "integer" and isinstance(value, float) else value


def _whole(value: object) -> object:
    """22.0 as 22: both are the same integer in JSON Schema, and to many a sender's library."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _annotation(spec: FieldSpec) -> Any:  # noqa: ANN401 - annotations have no common type
    extra: dict[str, Any] = {"x-unit": spec.unit} if spec.unit else {}
    kind: Any
    if spec.is_category:
        kind = Annotated[Literal[spec.categories], Constraint()]
    else:
        limits = Constraint(ge=_exact(spec, spec.minimum), le=_exact(spec, spec.maximum))
        kind = Annotated[float, limits]
        if spec.type == "integer":
            kind = Annotated[int, limits, BeforeValidator(_whole)]
    if spec.nullable:
        kind = kind | None
    described = Annotated[
        kind,
        Constraint(
            title=spec.title, examples=[_exact(spec, spec.example)], json_schema_extra=extra
        ),
    ]
    return NotRequired[described] if spec.nullable else Required[described]


def given_again(names: Iterable[str]) -> tuple[FieldError, ...]:
    """What is wrong with an object that gives these names more than once."""
    return tuple(FieldError(pointer((name,)), "Given more than once") for name in names)


def _faults(error: ValidationError) -> tuple[FieldError, ...]:
    faults = error.errors(include_url=False, include_input=False)
    # Once each: an unknown field given twice is two errors to pydantic.
    return tuple(dict.fromkeys(FieldError(pointer(e["loc"]), _detail(e)) for e in faults))


def _is_malformed(error: ValidationError) -> bool:
    return any(e["type"] == "json_invalid" for e in error.errors(include_url=False))


def _detail(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "Unknown field"
    if error["type"] == "missing":
        return "Field required"
    if error["type"] == "dict_type":
        return "Input should be an object"
    if error["type"] == "json_invalid":
        return bodies.fault(error["ctx"]["error"])
    return error["msg"]


def pointer(location: Sequence[str | int]) -> str:
    """JSON pointer (RFC 6901) of a place; over-long names from a caller are cut."""
    return "".join(
        "/" + str(part)[:_POINTER_PART_MAX].replace("~", "~0").replace("/", "~1")
        for part in location
    )
