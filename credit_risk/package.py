"""The model package: one folder with everything one version of a portfolio's decisions needs.

::

    manifest.json      format, portfolio, SHA-256 of every other file
    schema.yaml policy.yaml reasons.yaml        the portfolio's data, as they were
    model.json         estimator kind, encoder, calibration, linear coefficients
    trees.npz          the nodes of a tree ensemble          (kind trees)
    explanation.npz    the reference group counted through them (kind trees)
    network.onnx       a feed-forward network                 (kind network)
    pipeline.skops     a user's own scikit-learn pipeline     (kind pipeline)
    profile.json       reference profile: distributions for drift, correlations
    reference.npz      the drawn reference group that reasons are measured against
    golden.json        drawn applications with the answers this package must give
    metrics.json provenance.json card.md plots/*.png

The version is the first twelve hex digits of the SHA-256 of the manifest: same content, same
version. Nothing in a package runs code when it is loaded: JSON, YAML, plain arrays, ONNX read as
data, and skops' typed format.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import RootModel, model_validator

from credit_risk import documents, model, onnx_format
from credit_risk.documents import Document
from credit_risk.errors import PackageInvalid, PortfolioInvalid
from credit_risk.manifest import FORMAT, MANIFEST, Manifest, read_json, verify, versioned
from credit_risk.model import ModelSpec
from credit_risk.policy import BandName, DecisionName, Policy
from credit_risk.population import Population
from credit_risk.profile import Profile
from credit_risk.reasons import Grouping, ReasonDictionary
from credit_risk.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from credit_risk.model import Model

GOLDEN_TOLERANCE = 1e-6
"""Largest difference in PD between a golden record and what the package answers here."""


class Golden(Document):
    """One drawn application and the answer the package gave when it was made."""

    application: dict[str, float | int | str | None]
    probability_of_default: float
    band: BandName
    decision: DecisionName
    reasons: tuple[str, ...]


class GoldenRecords(Document):
    """The golden records of a package."""

    records: tuple[Golden, ...]


class ReferenceGroup(Document):
    """What the reference group stands for, and how it was made."""

    name: str
    description: str
    rows: int
    seed: int


class Provenance(Document):
    """Where a package came from.

    ``trained_on`` is the data that a model trained here was fitted to. A model that was fitted
    elsewhere has ``evaluated_on`` instead: the data that its figures, its profile and its
    reference group come from.
    """

    trained_on: dict[str, Any] | None = None
    evaluated_on: dict[str, Any] | None = None
    settings: dict[str, Any]
    libraries: dict[str, str]
    reference: ReferenceGroup

    @model_validator(mode="after")
    def _names_the_data(self) -> Provenance:
        if (self.trained_on is None) == (self.evaluated_on is None):
            msg = "give either trained_on or evaluated_on"
            raise ValueError(msg)
        return self


class Metrics(RootModel[dict[str, Any]]):
    """``metrics.json``: figures for people; nothing decides by them."""


@dataclass(frozen=True)
class Parts:
    """What a decision is made with: the parts of a package that scoring uses."""

    schema: Schema
    policy: Policy
    reasons: ReasonDictionary
    model: Model

    @cached_property
    def grouping(self) -> Grouping:
        """Sums contributions to reason groups."""
        return Grouping(self.schema, self.reasons)


@dataclass(frozen=True)
class ModelPackage(Parts):
    """A loaded, verified package. Immutable; safe to share between requests."""

    path: Path
    version: str
    digest: str
    spec: ModelSpec
    profile: Profile
    reference: npt.NDArray[np.float64]
    provenance: Provenance
    golden: tuple[Golden, ...]
    metrics: dict[str, Any]
    digests: dict[str, str]
    signed_by: tuple[str, ...] = ()
    """Ids of the keys of approvers whose signatures were checked, where that was asked for."""

    @property
    def portfolio(self) -> str:
        """The portfolio this package belongs to."""
        return self.schema.portfolio

    @property
    def words(self) -> Wordings:
        """What may be told of its decisions."""
        return Wordings(self.policy, self.reasons, self.digests["reasons.yaml"])

    @cached_property
    def population(self) -> Population:
        """The population that it knows, for who counts applicants."""
        return Population(self.profile, self.schema, self.policy)

    @cached_property
    def policy_version(self) -> str:
        """The policy's own version and the start of its file's digest: an edit cannot hide."""
        return versioned(self.policy.version, self.digests["policy.yaml"])

    def takes_what(self, other: ModelPackage) -> bool:
        """Whether it takes the same applications as another one: their schemas are the same."""
        return self.digests["schema.yaml"] == other.digests["schema.yaml"]

    @cached_property
    def parts_sha256(self) -> dict[str, str]:
        """The digests that the record of a decision names, made once for all of them."""
        return {
            "package_sha256": self.digest,
            "schema_sha256": self.digests["schema.yaml"],
            "policy_sha256": self.digests["policy.yaml"],
            "reasons_sha256": self.digests["reasons.yaml"],
            "reference_sha256": self.digests["reference.npz"],
        }


@dataclass(frozen=True, slots=True)
class Wordings:
    """The words of a package: what may be told to applicants and said by reviewers."""

    policy: Policy
    reasons: ReasonDictionary
    reasons_sha256: str

    def review_texts(self, decision: DecisionName) -> dict[str, str]:
        """The approved text of each reason for a person's decision, by code.

        A decline may give the portfolio's own reasons, and those of the policy's review section;
        an approval, which no applicant is told reasons of, the latter alone.
        """
        own = self.reasons.texts if decision == "DECLINE" else {}
        return own | {r.code: r.text for r in self.policy.review.reasons if r.decision == decision}


def write(root: Path, portfolio: str, files: Mapping[str, bytes]) -> Path:
    """Write a package under ``root/portfolio/version`` and return its folder.

    The folder appears at once or not at all. A package of the same content that is there already
    is left as it is.
    """
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    manifest = Manifest(format=FORMAT, portfolio=portfolio, files=sums)
    target = root / portfolio / manifest.version
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        text = json.dumps(manifest.model_dump(), indent=2, sort_keys=True) + "\n"
        (staging / MANIFEST).write_text(text, encoding="utf-8")
        staging.chmod(0o755)
        try:
            staging.replace(target)
        except OSError:
            # Another process wrote the same content first; any other trouble is told.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def load(path: Path, version: str | None = None) -> ModelPackage:
    """Verify and load a package.

    Args:
        path: the package's folder.
        version: the version the caller expects to find there; None takes what is there.

    Raises:
        PackageInvalid: sums do not match, a file cannot be read, parts do not fit each other, or
            it is not the version asked for.
    """
    manifest = verify(path)
    if version is not None and manifest.version != version:
        msg = f"package {version}: the folder holds {manifest.version}"
        raise PackageInvalid(msg)
    try:
        schema = documents.read(Schema, path / "schema.yaml")
        policy = documents.read(Policy, path / "policy.yaml")
        reasons = documents.read(ReasonDictionary, path / "reasons.yaml")
        policy.check(schema)
        reasons.check(schema, policy)
    except PortfolioInvalid as error:
        msg = f"package {manifest.version}: {error}"
        raise PackageInvalid(msg) from error
    for part in (schema, policy, reasons):
        if part.portfolio != manifest.portfolio:
            msg = f"package {manifest.version}: a file says it belongs to {part.portfolio!r}"
            raise PackageInvalid(msg)
    spec = read_json(ModelSpec, path / "model.json")
    reference = _arrays(path / "reference.npz").get("rows")
    if (
        reference is None
        or reference.dtype != np.float64
        or reference.shape[1:] != (len(schema.fields),)
        or len(reference) == 0
    ):
        msg = f"package {manifest.version}: reference.npz does not hold rows of the schema's fields"
        raise PackageInvalid(msg)
    if spec.kind == "pipeline":
        # Imported only here: scikit-learn and shap take a second and 150 MB to load, and a
        # package of ours needs neither.
        from credit_risk.pipeline_model import load_pipeline  # noqa: PLC0415

        built: Model = load_pipeline(path / "pipeline.skops", schema, reference)
    else:
        built = model.build(
            spec,
            schema,
            _model_arrays(path, spec),
            reference,
            _arrays(path / "explanation.npz") if spec.kind == "trees" else None,
        )
    profile = read_json(Profile, path / "profile.json")
    if tuple(marginal.field for marginal in profile.marginals) != schema.names:
        msg = f"package {manifest.version}: profile.json does not describe the schema's fields"
        raise PackageInvalid(msg)
    return ModelPackage(
        path=path,
        version=manifest.version,
        digest=manifest.digest,
        schema=schema,
        policy=policy,
        reasons=reasons,
        spec=spec,
        model=built,
        profile=profile,
        reference=reference,
        provenance=read_json(Provenance, path / "provenance.json"),
        golden=read_json(GoldenRecords, path / "golden.json").records,
        metrics=read_json(Metrics, path / "metrics.json").root,
        digests=dict(manifest.files),
    )


def wordings(path: Path, version: str) -> Wordings:
    """Verify a package, but load only its words: in a hundredth of the time.

    Raises:
        PackageInvalid: sums do not match, a file cannot be read, or it is another version.
    """
    manifest = verify(path)
    if manifest.version != version:
        msg = f"package {version}: the folder holds {manifest.version}"
        raise PackageInvalid(msg)
    try:
        policy = documents.read(Policy, path / "policy.yaml")
        reasons = documents.read(ReasonDictionary, path / "reasons.yaml")
    except PortfolioInvalid as error:
        msg = f"package {manifest.version}: {error}"
        raise PackageInvalid(msg) from error
    return Wordings(policy, reasons, manifest.files["reasons.yaml"])


def _model_arrays(path: Path, spec: ModelSpec) -> dict[str, npt.NDArray[Any]]:
    if spec.kind == "trees":
        return _arrays(path / "trees.npz")
    if spec.kind != "network":
        return {}
    try:
        content = (path / onnx_format.NAME).read_bytes()
    except OSError as error:
        msg = f"{onnx_format.NAME}: cannot be read: {error.strerror}"
        raise PackageInvalid(msg) from error
    return onnx_format.read(content).arrays()


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # allow_pickle is numpy's switch for running code on load; it stays off. Opened as a zip
        # archive first, because numpy reads a lone array as well.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: encrypted, or packed by a method that Python's zipfile does not know.
        msg = f"{path.name}: cannot be read: {error}"
        raise PackageInvalid(msg) from error


def npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as the bytes of a compressed ``.npz`` file that depend on nothing but the arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            # numpy's own savez stamps the time of day into the archive.
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)),
                content.getvalue(),
                zipfile.ZIP_DEFLATED,
            )
    return buffer.getvalue()
