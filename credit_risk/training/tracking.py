"""Tracking: what training did, as a run of MLflow, and what it made, in MLflow's registry.

Only where ``MLFLOW_TRACKING_URI`` is set; otherwise nothing of MLflow is imported. A run holds the
settings that a package was made with as parameters, its figures as metrics, the digest of its data
as an input, and the package itself, plots and card included, as files below ``package``. Rows are
in none of it.

The package is registered as a version of the model that is called as the portfolio is, with tags by
which servers find and verify it. The same package is registered once, whoever makes it again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from credit_risk.errors import RegistryUnavailable
from credit_risk.manifest import STATUS_TAG, VERSION_TAG, Manifest, read_manifest
from credit_risk.package import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlflow import MlflowClient

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
PENDING = "pending"
"""The validation status of what nobody has looked at."""
_DEFAULTS = {
    # As many tries as MLflow makes by itself take minutes where nobody listens.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A lender's machine calls nobody that it was not told to.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_DIGEST_MOST = 36
"""Characters that MLflow keeps of a data set's digest; the whole of it is a parameter."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Where a package is registered: the model's name, the registry's number, and its run."""

    name: str
    number: str
    run_id: str


class Run:
    """A run of MLflow that has begun, and says what becomes of it."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.id = run_id

    def register(
        self, folder: Path, *, figures: Mapping[str, Any] | None = None, alias: str | None = None
    ) -> Registered:
        """Log a package and register it.

        Args:
            folder: the package's.
            figures: more of them than are in the package, nested as they may be.
            alias: what the version is to be called from now on.

        Raises:
            RegistryUnavailable: MLflow does not take it.
        """
        manifest = read_manifest(folder)
        with _told(f"package {manifest.version} was made, and MLflow does not take it"):
            self._log(folder, manifest, figures or {})
            number, run_id = self._registered(manifest) or self._create(manifest)
            if alias is not None:
                self._client.set_registered_model_alias(manifest.portfolio, alias, number)
        return Registered(manifest.portfolio, number, run_id)

    def report(self, folder: Path) -> None:
        """Log the files of a report.

        Raises:
            RegistryUnavailable: MLflow does not take them.
        """
        with _told("MLflow does not take the report"):
            self._client.log_artifacts(self.id, str(folder), "report")

    def _log(self, folder: Path, manifest: Manifest, figures: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - see `begun`

        content = (folder / "provenance.json").read_bytes()
        provenance = Provenance.model_validate_json(content)
        data = provenance.trained_on or provenance.evaluated_on or {}
        metrics = json.loads((folder / "metrics.json").read_bytes())
        parameters = flat({**provenance.settings, "data": data, "libraries": provenance.libraries})
        numbers = {
            name: float(value)
            for name, value in flat({**metrics, **figures})
            if isinstance(value, int | float) and math.isfinite(value)
        }
        self._client.log_batch(
            self.id,
            metrics=[Metric(name, value, 0, 0) for name, value in numbers.items()],
            params=[Param(name, str(value)) for name, value in parameters],
            tags=[RunTag(name, value) for name, value in manifest.tags.items()],
        )
        self._log_data(data)
        self._client.log_artifacts(self.id, str(folder), "package")

    def _log_data(self, data: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        known = Dataset(
            name=data["name"],
            digest=data["sha256"][:_DIGEST_MOST],
            source_type="file",
            source=data["source"],
            profile=json.dumps({"num_rows": data["rows_used"], "sha256": data["sha256"]}),
        )
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(self.id, datasets=[DatasetInput(known, tags=context)])

    def _registered(self, manifest: Manifest) -> tuple[str, str] | None:
        """Number and run of the package's version, if there is one."""
        wanted = f"name = '{manifest.portfolio}' AND tags.`{VERSION_TAG}` = '{manifest.version}'"
        for found in self._client.search_model_versions(wanted, max_results=1):
            return str(found.version), found.run_id
        return None

    def _create(self, manifest: Manifest) -> tuple[str, str]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self._client.create_registered_model(manifest.portfolio)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(self.id).info.artifact_uri}/package"
        version = self._client.create_model_version(
            manifest.portfolio,
            source,
            run_id=self.id,
            tags={**manifest.tags, STATUS_TAG: PENDING},
        )
        return str(version.version), self.id


@contextlib.contextmanager
def begun(portfolio: str, command: str) -> Iterator[Run | None]:
    """A run of a command about a portfolio, until the block ends; None where none is wanted.

    Before anything is trained, so that what is wrong is said at once. A block that raises is a run
    that failed.

    Raises:
        RegistryUnavailable: MLflow is not installed, or its server does not answer.
    """
    if not os.environ.get(URI):
        yield None
        return
    if find_spec("mlflow") is None:
        msg = f"{URI} is set, and MLflow's client is not here: make install-tracking, or unset it"
        raise RegistryUnavailable(msg)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Not above: it takes seconds to import, and is in no environment that everybody installs.
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient()
    with _told("MLflow does not answer, and nothing was begun"):
        name = os.environ.get(EXPERIMENT) or portfolio
        experiment = client.get_experiment_by_name(name)
        place = client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"portfolio": portfolio, "command": command}
        run = Run(client, client.create_run(place, tags=tags, run_name=command).info.run_id)
    try:
        yield run
    except BaseException:
        # What the block raised matters, and not that MLflow was not told of it.
        with contextlib.suppress(RegistryUnavailable), _told("unfinished"):
            client.set_terminated(run.id, "FAILED")
        raise
    with _told(f"the run {run.id} of MLflow is unfinished"):
        client.set_terminated(run.id)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Have MLflow's errors be one of ours that says what came of them."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    try:
        yield
    except (MlflowException, RequestException) as error:
        # Not its text, which may have the URL in it, and so a password.
        code = getattr(error, "error_code", type(error).__name__)
        raise RegistryUnavailable(f"{what} ({URI}: {code})") from error


def flat(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested document by dotted names; lists are left out."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{_plain(name)}.")
        elif value is not None and not isinstance(value, list):
            yield f"{before}{_plain(name)}", value


def _plain(name: str) -> str:
    """A name as MLflow takes it."""
    return "".join(c if c.isalnum() or c in "_- " else "_" for c in name)
