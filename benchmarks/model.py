"""The one model and the rows that every server is measured with.

Not the shipped model, whose pipeline has a step for each field, but what most people write: two
branches of a ``ColumnTransformer``, numbers and categories, before a plain ``XGBClassifier`` of
the portfolio's own size. The other servers load it from a joblib file; this one serves what its own
``credit-risk package`` makes of that file. Applicants are drawn from the shipped package's
profile, outcomes from its PDs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

from credit_risk import package, portfolio, profile
from credit_risk.errors import CreditRiskError
from credit_risk.model import probability
from credit_risk.package import Golden, GoldenRecords, Parts
from credit_risk.scoring import decide
from credit_risk.training import settings as training_settings
from credit_risk.training import wrapping
from loadtests import applications

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from credit_risk.package import ModelPackage
    from credit_risk.policy import Policy
    from credit_risk.schema import Application, Schema

PORTFOLIO = "personal-loans"
SEED = 20_260_202
TRAINING_ROWS = 20_000
ROWS = 500
BATCHES = 8
BATCH_ROWS = 500


class NotCompiled(CreditRiskError):
    """This server would serve the pipeline through scikit-learn, as all others do."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a run is made with: files for the servers, rows and the PDs they must answer.

    ``rows`` are drawn applicants, ``declined`` those among further ones whom the score declines,
    ``batches`` `BATCHES` lists of `BATCH_ROWS`. ``pds`` holds the pipeline's own answers, for
    each of the three.
    """

    schema: Schema
    pipeline: Path
    packages: Path
    packages_approving: Path
    package: Path
    rows: list[Application]
    declined: list[Application]
    batches: list[list[Application]]
    pds: dict[str, list[list[float]]]


def make(folder: Path) -> Material:
    """Fit the model and write everything under ``folder``.

    Raises:
        CreditRiskError: nothing is shipped to draw from, or the pipeline cannot be packaged.
        NotCompiled: see there.
    """
    root = Path(__file__).parents[1]
    shipped = package.load(applications.folder(root / "packages", PORTFOLIO, "default"))
    chosen = portfolio.load(root / "portfolios", PORTFOLIO)
    training = training_settings.load(chosen)
    drawn = profile.draw(shipped.profile, shipped.schema, TRAINING_ROWS, SEED)
    frame = _frame([shipped.schema.application(row) for row in drawn.tolist()])
    chances = probability(shipped.model.log_odds(drawn))
    outcomes = (np.random.default_rng(SEED).random(len(chances)) < chances).astype(int)
    fitted = pipeline(shipped.schema, training.estimators["xgboost"]).fit(frame, outcomes)

    file, data = folder / "pipeline.joblib", folder / "applicants.csv"
    joblib.dump(fitted, file)
    frame.assign(**{training.target: outcomes}).to_csv(data, index=False)
    packages = folder / "packages"
    made = wrapping.wrap(chosen, training, file, data, packages, run_pickle_code=True).path
    loaded = package.load(made)
    if loaded.spec.kind != "trees":
        msg = "the pipeline was not compiled"
        raise NotCompiled(msg)
    packages_approving = folder / "packages-approving"
    for path in (made, approving(loaded, packages_approving)):
        (path.parent / "default").write_text(path.name, encoding="utf-8")

    many = applications.drawn(made, ROWS * (BATCHES + 20), SEED + 1)
    rows, rest = many[:ROWS], many[ROWS:]
    decisions = decide(loaded, rest)
    declined = [
        application
        for application, decision in zip(rest, decisions, strict=True)
        if decision.outcome.scored == "DECLINE"
    ]
    batches = [rest[i * BATCH_ROWS : (i + 1) * BATCH_ROWS] for i in range(BATCHES)]
    return Material(
        schema=loaded.schema,
        pipeline=file,
        packages=packages,
        packages_approving=packages_approving,
        package=made,
        rows=rows,
        declined=declined[:ROWS],
        batches=batches,
        pds={
            "predict": [[pd] for pd in _pds(fitted, rows)],
            "declined": [[pd] for pd in _pds(fitted, declined[:ROWS])],
            "batch": [_pds(fitted, batch) for batch in batches],
        },
    )


def pipeline(schema: Schema, parameters: dict[str, float]) -> Pipeline:
    """The unfitted pipeline, as most people write it."""
    numbers = [spec.name for spec in schema.fields if not spec.is_category]
    categories = [spec.name for spec in schema.fields if spec.is_category]
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), numbers),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                categories,
            ),
        ]
    )
    return make_pipeline(columns, XGBClassifier(**parameters, random_state=SEED))


def approving(loaded: ModelPackage, out: Path) -> Path:
    """The same package under a policy that approves whatever the score; returns its folder.

    No decision then needs a reason from the score, so none is computed. Rules are as they were.
    """
    bands = tuple(b.model_copy(update={"decision": "APPROVE"}) for b in loaded.policy.bands)
    policy: Policy = loaded.policy.model_copy(update={"bands": bands})
    parts = Parts(loaded.schema, policy, loaded.reasons, loaded.model)
    golden = GoldenRecords(
        records=tuple(_answered(parts, record) for record in loaded.golden),
    )
    files = {name: (loaded.path / name).read_bytes() for name in loaded.digests}
    files["policy.yaml"] = yaml.safe_dump(policy.model_dump(mode="json")).encode()
    files["golden.json"] = golden.model_dump_json().encode()
    return package.write(out, loaded.portfolio, files)


def _answered(parts: Parts, record: Golden) -> Golden:
    (decision,) = decide(parts, [dict(record.application)])
    return record.model_copy(
        update={
            "decision": decision.outcome.decision,
            "reasons": tuple(reason.code for reason in decision.reasons),
        }
    )


def _frame(rows: list[Application]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def _pds(fitted: Pipeline, rows: list[Application]) -> list[float]:
    answers: list[float] = fitted.predict_proba(_frame(rows))[:, 1].tolist()
    return answers
