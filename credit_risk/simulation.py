"""Made-up applicants: those that a package knows, or what a scenario makes of them.

Applicants are drawn from a package's reference profile, which holds nobody's data. A scenario is
data as well, in a portfolio's ``scenarios.yaml``: it takes a share of the applicants and changes
some of their fields, all others staying as they would have been, so that it is known what drift
measured afterwards has to show. With the scenario `STABLE` nothing changes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from credit_risk import documents, profile
from credit_risk.documents import Document
from credit_risk.errors import PackageInvalid, PortfolioInvalid, ScenarioNotFound
from credit_risk.profile import Marginal, Profile
from credit_risk.schema import Application, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from credit_risk.schema import FieldSpec

    Floats = npt.NDArray[np.float64]

FILE = "scenarios.yaml"
STABLE = "stable"
BLOCK_ROWS = 4_096
"""Applicants drawn at a time: as much memory as is needed for however many."""
_NORMAL = NormalDist()
_OPERATIONS = ("scale", "tilt", "value", "missing")


class Change(Document):
    """What becomes of one field of the applicants taken; one of the four.

    ``scale`` multiplies a number. ``tilt`` moves numbers or ordered categories within the
    reference's own distribution, by so many standard deviations of the normal variable behind it:
    with -1 the median applicant has what was the 16th percentile's. ``value`` is a number or a
    category that all of them have, and with ``missing`` they have none.
    """

    field: str
    scale: Annotated[FiniteFloat, Field(gt=0)] | None = None
    tilt: Annotated[float, Field(ge=-4, le=4)] | None = None
    value: FiniteFloat | str | None = None
    missing: Literal[True] | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Change:
        if sum(getattr(self, name) is not None for name in _OPERATIONS) != 1:
            msg = f"{self.field}: a change is one of {', '.join(_OPERATIONS)}"
            raise ValueError(msg)
        return self

    def fault(self, spec: FieldSpec) -> str | None:
        """Why the field cannot be changed so, or None."""
        if spec.follows is not None:
            return "follows from other fields: change those"
        if self.missing and not spec.nullable:
            return "may not be missing"
        if self.scale is not None and spec.is_category:
            return "has categories, which have no scale"
        if self.tilt is not None and spec.is_category and not spec.ordered:
            return "has categories without an order"
        if self.value is not None and not _may_be(spec, self.value):
            return "does not allow this value"
        return None


class Scenario(Document):
    """What happens to a ``share`` of the applicants."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    changes: tuple[Change, ...] = ()

    def moves(self, schema: Schema) -> tuple[str, ...]:
        """The fields that are distributed otherwise: those changed, and what follows from them."""
        changed = {change.field for change in self.changes}
        return tuple(
            spec.name
            for spec in schema.fields
            if spec.name in changed
            or (spec.follows and changed & {spec.follows.numerator, spec.follows.denominator})
        )


class Scenarios(Document):
    """The scenarios of a portfolio."""

    portfolio: str
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _have_names_of_their_own(self) -> Scenarios:
        twice = [
            n for n, k in Counter([STABLE, *(s.name for s in self.scenarios)]).items() if k > 1
        ]
        if twice:
            msg = f"there is more than one scenario {twice[0]}"
            raise ValueError(msg)
        return self

    def check(self, schema: Schema) -> None:
        """Check each change against the fields.

        Raises:
            PortfolioInvalid: a field is unknown, changed twice, or cannot be changed so.
        """
        specs = dict(zip(schema.names, schema.fields, strict=True))
        for scenario in self.scenarios:
            names = [change.field for change in scenario.changes]
            for change in scenario.changes:
                if change.field not in specs:
                    fault: str | None = "is not a field"
                elif names.count(change.field) > 1:
                    fault = "is changed twice"
                else:
                    fault = change.fault(specs[change.field])
                if fault is not None:
                    msg = f"{FILE}: scenario {scenario.name}: {change.field} {fault}"
                    raise PortfolioInvalid(msg)


@dataclass(frozen=True, slots=True)
class Population:
    """Those who apply: a package's schema and the group that it knows."""

    schema: Schema
    profile: Profile


class Applicant(NamedTuple):
    """A made-up application, and whether it is one that the schema allows."""

    application: Application
    valid: bool


def population(package: Path) -> Population:
    """Read the population of the package in a folder; the model is not needed.

    Raises:
        PackageInvalid: one of its two files cannot be read.
    """
    try:
        return Population(
            documents.read(Schema, package / "schema.yaml"),
            Profile.model_validate_json((package / "profile.json").read_bytes()),
        )
    except PortfolioInvalid as error:
        raise PackageInvalid(str(error)) from error
    except (OSError, ValidationError) as error:
        msg = f"{package / 'profile.json'} cannot be read"
        raise PackageInvalid(msg) from error


def scenarios(portfolio: Path, schema: Schema) -> dict[str, Scenario]:
    """The scenarios of a portfolio's folder by name; one without the file has `STABLE` only.

    Raises:
        PortfolioInvalid: the file is wrong, or does not fit the schema.
    """
    found = {STABLE: Scenario(name=STABLE, title="Applicants as the package knows them")}
    if (portfolio / FILE).exists():
        read = documents.read(Scenarios, portfolio / FILE)
        if read.portfolio != schema.portfolio:
            msg = f"{portfolio / FILE}: it says that it belongs to portfolio {read.portfolio!r}"
            raise PortfolioInvalid(msg)
        read.check(schema)
        found |= {scenario.name: scenario for scenario in read.scenarios}
    return found


def scenario(portfolio: Path, schema: Schema, name: str) -> Scenario:
    """One scenario of a portfolio's folder.

    Raises:
        ScenarioNotFound: there is none of that name; says which there are.
        PortfolioInvalid: see `scenarios`.
    """
    known = scenarios(portfolio, schema)
    if name not in known:
        msg = f"no scenario {name!r} in {portfolio} (there are: {', '.join(known)})"
        raise ScenarioNotFound(msg)
    return known[name]


def blocks(
    group: Population, what: Scenario, seed: int, rows: int | None = None
) -> Iterator[Floats]:
    """Draw applicants, in blocks.

    The same seed gives the same applicants, however many are asked for; and whom a scenario
    leaves alone, and each field that it does not move, are as they are with any other.

    Args:
        group: whom they resemble.
        what: what happens to them.
        seed: from which all of it follows.
        rows: how many; None for no end.

    Yields:
        Shape (at most `BLOCK_ROWS`, fields), see `Schema.vector`.
    """
    schema = group.schema
    after = changed(group, what)
    gone = [schema.index[change.field] for change in what.changes if change.missing]
    given = 0
    for number in itertools.count():
        if rows is not None and given >= rows:
            return
        uniform = profile.uniforms(group.profile, BLOCK_ROWS, (seed, number))
        drawn = profile.placed(group.profile, schema, uniform)
        if what.changes:
            taken = np.random.default_rng((seed, number, 1)).random(BLOCK_ROWS) < what.share
            moved = profile.placed(after, schema, uniform)
            moved[:, gone] = np.nan
            drawn[taken] = moved[taken]
        if rows is not None:
            drawn = drawn[: rows - given]
        given += len(drawn)
        yield drawn


def applicants(
    schema: Schema, drawn: Iterable[Floats], invalid: float, seed: int
) -> Iterator[Applicant]:
    """Applicants in blocks of rows as applications, a share of them `spoilt`.

    Args:
        schema: that of the rows.
        drawn: see `blocks`.
        invalid: share of those spoilt, each at random.
        seed: says who and how.
    """
    generator = np.random.default_rng((seed, 2))
    for block in drawn:
        wrong = generator.random(len(block)) < invalid
        for row, spoil in zip(block.tolist(), wrong.tolist(), strict=True):
            application = schema.application(row)
            if spoil:
                application = spoilt(schema, application, generator)
            yield Applicant(application, not spoil)


def changed(group: Population, what: Scenario) -> Profile:
    """The profile of those whom a scenario takes, but for what is missing by it.

    Edges and bins stay the reference's: they are what others are compared with.
    """
    changes = {change.field: change for change in what.changes}
    marginals = tuple(
        _changed(marginal, spec, changes[spec.name]) if spec.name in changes else marginal
        for spec, marginal in zip(group.schema.fields, group.profile.marginals, strict=True)
    )
    return group.profile.model_copy(update={"marginals": marginals})


def spoilt(schema: Schema, application: Application, generator: np.random.Generator) -> Application:
    """The application with one thing wrong that the schema refuses, whatever the rest is.

    A number beyond its range, a category that there is none of, or a required field left out:
    each of them can be written to a file of any format.
    """
    spec = schema.fields[generator.integers(len(schema.fields))]
    wrong = dict(application)
    if not spec.nullable and generator.random() < 1 / 3:
        del wrong[spec.name]
    elif spec.is_category:
        wrong[spec.name] = f"{max(spec.categories, key=len)}-unheard-of"
    else:
        beyond = (spec.maximum or 0.0) + 1.0
        wrong[spec.name] = int(beyond) if spec.type == "integer" else beyond
    return wrong


def _may_be(spec: FieldSpec, value: float | str) -> bool:
    if isinstance(value, str):
        return value in spec.categories
    if spec.is_category or not (spec.minimum or 0.0) <= value <= (spec.maximum or 0.0):
        return False
    return spec.type == "number" or value.is_integer()


def _changed(marginal: Marginal, spec: FieldSpec, change: Change) -> Marginal:
    if change.missing:
        return marginal
    update: dict[str, Any]
    if spec.is_category:
        if change.value is not None:
            shares = [float(name == change.value) for name in spec.categories]
        else:
            shares = _tilted_shares(marginal.shares, change.tilt or 0.0)
        update = {"shares": tuple(shares)}
    elif change.value is not None:
        update = {"quantiles": (change.value,)}
    else:
        update = {"quantiles": tuple(_numbers(marginal, spec, change).tolist())}
    if change.value is not None:
        update["missing"] = 0.0
    return marginal.model_copy(update=update)


def _numbers(marginal: Marginal, spec: FieldSpec, change: Change) -> Floats:
    """Quantiles of numbers scaled, within the schema's range, or moved along their own."""
    quantiles = np.array(marginal.quantiles)
    if change.scale is not None:
        scaled = quantiles * change.scale
        if spec.type == "integer":
            scaled = np.round(scaled)
        return np.clip(scaled, spec.minimum, spec.maximum)
    size = len(quantiles)
    tilt = change.tilt or 0.0
    at = [_NORMAL.cdf(_NORMAL.inv_cdf((i + 0.5) / size) + tilt) for i in range(size)]
    places = np.minimum((np.array(at) * size).astype(int), size - 1)
    moved: Floats = quantiles[places]
    return moved


def _tilted_shares(shares: tuple[float, ...], tilt: float) -> list[float]:
    """Shares of ordered categories once all applicants' normal variables are ``tilt`` higher."""
    upper = np.cumsum(shares) / sum(shares)
    moved = [_NORMAL.cdf(_NORMAL.inv_cdf(p) - tilt) if 0 < p < 1 else round(p) for p in upper]
    return [b - a for a, b in itertools.pairwise((0.0, *moved))]
