"""Putting a package together: from a model and the data it was judged on to a folder on disk.

The same for a model trained here and for a user's own pipeline: describe the population, draw the
reference group and the golden records, measure how well reasons against drawn applicants agree
with reasons against real ones and whether promised directions are kept, write the card, write the
package. Same input, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from credit_risk import documents, model, network, onnx_format, package, profile
from credit_risk.errors import CreditRiskError, DataInvalid, PortfolioInvalid
from credit_risk.manifest import versioned
from credit_risk.model import probability
from credit_risk.package import Parts, Provenance, ReferenceGroup
from credit_risk.pipeline_model import PipelineModel
from credit_risk.policy import BAND_ORDER
from credit_risk.scoring import golden_records
from credit_risk.training import card, directions, profiling
from credit_risk.training.rounding import rounded
from credit_risk.training.settings import PORTFOLIO_NOTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

    from credit_risk.model import Model, ModelSpec
    from credit_risk.package import GoldenRecords
    from credit_risk.portfolio import Portfolio
    from credit_risk.profile import Profile
    from credit_risk.schema import Schema
    from credit_risk.training.directions import Kept
    from credit_risk.training.evaluation import Evaluation
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import Training

    Floats = npt.NDArray[np.float64]

LARGEST_DIFFERENCE = 1e-6
"""Largest difference in PD allowed between a fitted pipeline and what is packaged of it."""

FIDELITY_ROWS = 2_000
FIDELITY_ROWS_SLOW = 50
"""Fewer where each explanation takes a fraction of a second."""

DIRECTION_ROWS = 300
"""Drawn applicants whose fields are moved to see whether promised directions are kept."""

UNKNOWN = "unknown: not stated"
"""Name, licence and source of a file that the portfolio does not speak of."""

_DRAWS_PER_GOLDEN_RECORD = 100
_LIBRARIES = (
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "xgboost-cpu",
    "numba",
    "matplotlib",
    "pillow",
)


class CompilationDiffers(CreditRiskError):
    """What was compiled does not give the pipeline's numbers."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model, in the package's terms, with the figures it earned.

    ``arrays`` are the trees' or the network's, ``pipeline`` and ``skops`` a user's own pipeline and
    its bytes.
    ``fitted_here`` says that it was fitted to the prepared rows; of a model from elsewhere nobody
    here knows what it was fitted to.
    ``held_out_labels`` and ``held_out_pds`` are of rows the model was not fitted on; ``pds`` are
    the pipeline's own for every prepared row.
    """

    spec: ModelSpec
    arrays: dict[str, npt.NDArray[np.generic]]
    pipeline: Pipeline | None
    skops: bytes
    pds: Floats
    held_out_labels: npt.NDArray[np.int64]
    held_out_pds: Floats
    evaluation: Evaluation
    settings: dict[str, Any]
    fitted_here: bool


@dataclass(frozen=True, slots=True)
class Packaged:
    """A package on disk and what was measured on the way.

    ``held_out_pds`` are of the rows that ``evaluation`` is of, by a model not fitted on them.
    """

    path: Path
    evaluation: Evaluation
    held_out_pds: Floats
    fidelity: dict[str, float]
    kept: dict[str, Kept]
    largest_difference: float

    @property
    def warnings(self) -> list[str]:
        """What to be told besides the figures."""
        both = (self.evaluation.warning, directions.warning(self.kept))
        return [warning for warning in both if warning is not None]

    @property
    def version(self) -> str:
        """The package version."""
        return self.path.name


def assemble(
    portfolio: Portfolio,
    training: Training,
    prepared: Prepared,
    candidate: Candidate,
    out: Path,
    *,
    step: Callable[[str], None],
) -> Packaged:
    """Write the package of a candidate under ``out``.

    Raises:
        CompilationDiffers: the packaged model's PD differs from the pipeline's by more than
            `LARGEST_DIFFERENCE` on some row.
        DataInvalid: too few rows to describe the reference group.
        PortfolioInvalid: the reference group is riskier than applicants who are declined.
    """
    schema = portfolio.schema
    step("Describing the population and drawing the reference group")
    population = profiling.describe(
        prepared.rows, schema, "all applications of the data", candidate.held_out_pds
    )
    real_group = prepared.rows[_in_group(candidate.pds, training, portfolio)]
    drawn, reference = _draw_reference(real_group, prepared.rows, portfolio, training)
    built = _build(candidate, portfolio, drawn)
    _check_declines_have_reasons(built, portfolio)

    step("Comparing the packaged model with the pipeline, row by row")
    packaged_pds = probability(built.log_odds(prepared.rows))
    largest = float(np.abs(packaged_pds - candidate.pds).max())
    if not largest <= LARGEST_DIFFERENCE:
        msg = f"the packaged model differs from the pipeline by {largest:.2g} in PD"
        raise CompilationDiffers(msg)

    step("Comparing reasons against drawn and against real applicants")
    against_real = _build(candidate, portfolio, _sample(real_group, len(drawn), training.seed))
    most = FIDELITY_ROWS if candidate.spec.kind in {"trees", "linear"} else FIDELITY_ROWS_SLOW
    declined = prepared.rows[candidate.pds >= _decline_from(portfolio)]
    fidelity = _agreement(built, against_real, _sample(declined, most, training.seed), portfolio)
    if built.reference_rows != len(drawn):
        fidelity["rows_of_the_group_that_take_part"] = built.reference_rows

    step("Moving fields to see whether promised directions are kept")
    pool = _DRAWS_PER_GOLDEN_RECORD * training.golden_records
    made_up = _made_up(population, schema, pool, training.seed + 1, prepared.rows)
    kept = directions.measure(
        lambda rows: probability(built.log_odds(rows)), schema, population, made_up[:DIRECTION_ROWS]
    )

    step("Writing the model card and the package")
    known = _is_known(prepared.sha256, training, candidate)
    data = card.DataUsed(
        name=training.data.name if known else UNKNOWN,
        licence=training.data.licence if known else UNKNOWN,
        source=training.data.source if known else UNKNOWN,
        sha256=prepared.sha256,
        rows_read=prepared.rows_read,
        rows_used=len(prepared.labels),
        dropped=prepared.dropped,
        mended=prepared.mended,
    )
    libraries = (*_LIBRARIES, *(["torch"] if candidate.spec.kind == "network" else []))
    provenance = Provenance(
        trained_on=dict(data) if candidate.fitted_here else None,
        evaluated_on=None if candidate.fitted_here else dict(data),
        settings=candidate.settings,
        libraries={library: version(library) for library in libraries},
        reference=reference,
    )
    own_files = _portfolio_files(portfolio)
    policy_sha256 = hashlib.sha256(own_files["policy.yaml"]).hexdigest()
    contents = {
        **own_files,
        "model.json": json_bytes(candidate.spec),
        "profile.json": json_bytes(population),
        "reference.npz": package.npz({"rows": drawn}),
        "provenance.json": json_bytes(provenance),
        "metrics.json": json_bytes(
            {
                "hold_out": candidate.evaluation.model_dump(mode="json"),
                "fidelity": fidelity,
                "directions": {name: k.model_dump() for name, k in kept.items()},
                # Of two nearly equal numbers: most of its digits are noise.
                "largest_difference_from_pipeline": rounded(largest, 3),
            }
        ),
        **card.render(
            card.CardFacts(
                schema=schema,
                policy=portfolio.policy,
                policy_version=versioned(portfolio.policy.version, policy_sha256),
                reasons=portfolio.reasons,
                evaluation=candidate.evaluation,
                labels=candidate.held_out_labels,
                pds=candidate.held_out_pds,
                data=data,
                settings=provenance.settings,
                libraries=provenance.libraries,
                estimator=candidate.spec.estimator,
                reference=reference,
                fidelity=fidelity,
                kept=kept,
                notes=_notes(training, candidate, known=known),
            )
        ),
    }
    if candidate.spec.kind == "network":
        contents[onnx_format.NAME] = onnx_format.write(network.from_arrays(candidate.arrays))
    if candidate.spec.kind == "trees":
        counted = model.count_reference(candidate.spec, schema, candidate.arrays, drawn)
        contents["trees.npz"] = package.npz(candidate.arrays)
        contents["explanation.npz"] = package.npz(counted)
    if candidate.pipeline is not None:
        contents["pipeline.skops"] = candidate.skops
    contents["golden.json"] = json_bytes(
        _golden(
            Parts(schema, portfolio.policy, portfolio.reasons, built),
            made_up,
            training.golden_records,
        )
    )
    path = package.write(out, schema.portfolio, contents)
    return Packaged(path, candidate.evaluation, candidate.held_out_pds, fidelity, kept, largest)


def _is_known(sha256: str, training: Training, candidate: Candidate) -> bool:
    """Whether a file is the one that ``training.yaml`` speaks of."""
    if training.data.sha256 is None:
        return candidate.fitted_here
    return training.data.sha256 == sha256


def _notes(training: Training, candidate: Candidate, *, known: bool) -> dict[str, str]:
    """The portfolio's notes that are about this model, and word of any that are not."""
    shipped = candidate.fitted_here and candidate.spec.estimator == training.default_estimator
    if known and shipped:
        return training.notes
    notes = {t: text for t, text in training.notes.items() if t in PORTFOLIO_NOTES}
    left_out = [title for title in training.notes if title not in PORTFOLIO_NOTES]
    if left_out:
        notes["Limits"] = (
            f"The portfolio's notes ({', '.join(left_out)}) are about another data file or another "
            "model and are left out. Nobody has described the limits of this one."
        )
    return notes


def _build(candidate: Candidate, portfolio: Portfolio, reference: Floats) -> Model:
    if candidate.pipeline is not None:
        return PipelineModel(candidate.pipeline, portfolio.schema, reference)
    return model.build(candidate.spec, portfolio.schema, candidate.arrays, reference)


def _check_declines_have_reasons(built: Model, portfolio: Portfolio) -> None:
    """Contributions of a PD above the group's sum to more than 0, so one at least is adverse."""
    average = float(probability(np.array([built.base_value]))[0])
    decline_from = _decline_from(portfolio)
    if average >= decline_from:
        msg = (
            f"the reference group's average log-odds are those of a PD of {average:.3f}, but the "
            f"policy declines from {decline_from} on: an applicant in between may have no adverse "
            "reason. Choose another reference group or other bands"
        )
        raise PortfolioInvalid(msg)


def _decline_from(portfolio: Portfolio) -> float:
    """The lowest PD that is declined for itself; infinite where none is."""
    bands = portfolio.policy.bands
    return min((b.lower for b in bands if b.decision == "DECLINE"), default=math.inf)


def _golden(parts: Parts, drawn: Floats, number: int) -> GoldenRecords:
    """Choose golden records among drawn applicants, and answer them.

    Records are taken from the bands in turn, so that each band that occurs among the drawn
    applicants is represented.
    """
    by_band: dict[str, list[int]] = {name: [] for name in BAND_ORDER}
    for i, pd in enumerate(probability(parts.model.log_odds(drawn)).tolist()):
        by_band[parts.policy.band_of(pd).name].append(i)
    chosen: list[int] = []
    while len(chosen) < min(number, len(drawn)):
        chosen += [places.pop(0) for places in by_band.values() if places]
    applications = [parts.schema.application(drawn[i].tolist()) for i in chosen[:number]]
    return golden_records(parts, applications)


def _in_group(pds: Floats, training: Training, portfolio: Portfolio) -> npt.NDArray[np.bool_]:
    if training.reference.group == "all":
        return np.ones(len(pds), dtype=bool)
    approved_to = max(
        (b.upper for b in portfolio.policy.bands if b.decision == "APPROVE"), default=0.0
    )
    group: npt.NDArray[np.bool_] = (pds >= training.reference.approved_from) & (pds < approved_to)
    return group


def _draw_reference(
    real_group: Floats, real: Floats, portfolio: Portfolio, training: Training
) -> tuple[Floats, ReferenceGroup]:
    settings = training.reference
    if settings.group == "all":
        name, words = "all-applicants", "all applicants"
    else:
        name = "applicants-at-or-slightly-above-the-passing-score"
        words = f"approved applicants with a PD of {settings.approved_from} or more"
    if len(real_group) < settings.rows // 10:
        msg = f"only {len(real_group)} rows are {words}: too few to describe the reference group"
        raise DataInvalid(msg)
    seed = training.seed
    described = profiling.describe(real_group, portfolio.schema, words)
    drawn = _made_up(described, portfolio.schema, settings.rows, seed, real)
    description = (
        f"{settings.rows} made-up applicants, drawn from the distributions and rank correlations "
        f"of {words} in the data ({len(real_group)} rows)"
    )
    return drawn, ReferenceGroup(name=name, description=description, rows=settings.rows, seed=seed)


def _made_up(described: Profile, schema: Schema, rows: int, seed: int, real: Floats) -> Floats:
    """Draw applicants, none of them a real one by chance.

    Twice as many as needed are drawn, and those that agree with a real applicant in every field
    are taken last: where fields are so coarse that hardly any draw is not somebody, they tell
    nobody from others.
    """

    def keys(table: Floats) -> list[bytes]:
        # One bit pattern for a missing value, and one for zero.
        return [row.tobytes() for row in np.nan_to_num(table, nan=-np.inf) + 0.0]

    drawn = profile.draw(described, schema, 2 * rows, seed)
    somebody = set(keys(real))
    coincides = [key in somebody for key in keys(drawn)]
    return drawn[np.argsort(coincides, kind="stable")][:rows]


def _sample(rows: Floats, number: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    return rows[generator.choice(len(rows), size=min(number, len(rows)), replace=False)]


def _agreement(drawn: Model, real: Model, rows: Floats, portfolio: Portfolio) -> dict[str, float]:
    """How often reasons agree between two reference groups, over declined applicants."""
    n = len(rows)
    if n == 0:
        return {"declines_compared": 0}
    grouping = Parts(portfolio.schema, portfolio.policy, portfolio.reasons, drawn).grouping
    pairs = [
        ([r.code for r in grouping.scored(a)], [r.code for r in grouping.scored(b)])
        for a, b in zip(drawn.contributions(rows), real.contributions(rows), strict=True)
    ]
    return {
        "declines_compared": n,
        "same_first_reason": sum(a[:1] == b[:1] for a, b in pairs) / n,
        "same_set_of_reasons": sum(set(a) == set(b) for a, b in pairs) / n,
        "mean_log_odds_of_the_drawn_group": drawn.base_value,
        "mean_log_odds_of_the_real_group": real.base_value,
    }


def _portfolio_files(portfolio: Portfolio) -> dict[str, bytes]:
    names = ("schema.yaml", "policy.yaml", "reasons.yaml")
    return {name: (portfolio.path / name).read_bytes() for name in names}


def json_bytes(value: object) -> bytes:
    """Indented JSON with sorted keys and rounded numbers, as it is stored in packages."""
    plain = value.model_dump(mode="json") if isinstance(value, documents.Document) else value
    return (
        json.dumps(rounded(plain), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    ).encode()
