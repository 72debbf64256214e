"""Model packages in BentoML's model store, under the state directory.

A package is the model ``portfolio:version`` of the store, its files in the folder ``package`` of
that model. The shipped packages are put there when the server or the command line starts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml._internal.models import ModelStore
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError

from credit_risk import package
from credit_risk.errors import PackageInvalid, PackageNotFound
from credit_risk.model import ModelSpec

if TYPE_CHECKING:
    from credit_risk.settings import Settings

FOLDER = "package"
DEFAULT = "default"
"""File beside a portfolio's shipped packages: the version served before any activation."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A package of the store; ``estimator`` is None where its file cannot be read."""

    version: str
    path: Path
    created: str
    estimator: str | None


class Store:
    """The packages installed under one state directory."""

    def __init__(self, settings: Settings) -> None:
        # Usage tracking is BentoML's default; a lender's server calls nobody.
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
        self._home = settings.state_dir.absolute() / "bentoml"
        (self._home / "models").mkdir(parents=True, exist_ok=True)
        self._models = ModelStore(str(self._home / "models"))
        self._shipped = settings.packages_dir

    def add(self, path: Path) -> str:
        """Verify a package's sums and put it into the store; returns its version.

        Raises:
            PackageInvalid: its sums do not match.
        """
        manifest = package.verify(path)
        tag = f"{manifest.portfolio}:{manifest.version}"
        target = self._home / "models" / manifest.portfolio / manifest.version
        # Workers may start at the same time; only one of them copies.
        with (self._home / "adding.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():
                return manifest.version
            # BentoML copies file by file to where a model belongs: a process that is killed within
            # leaves half a model, and one that reads meanwhile finds it. A folder moved there is
            # whole. `latest`, which BentoML keeps beside it, is made again where it is asked for.
            with tempfile.TemporaryDirectory(prefix="adding-", dir=self._home) as staging:
                labels = {"portfolio": manifest.portfolio}
                staged = ModelStore(staging)
                with bentoml.models.create(tag, labels=labels, _model_store=staged) as model:
                    shutil.copytree(path, model.path_of(FOLDER))
                target.parent.mkdir(exist_ok=True)
                (Path(staging) / manifest.portfolio / manifest.version).replace(target)
        return manifest.version

    def add_shipped(self, portfolio: str) -> None:
        """Put the shipped packages of a portfolio into the store.

        Raises:
            PackageInvalid: the sums of one do not match.
        """
        present = {installed.version for installed in self.installed(portfolio)}
        for manifest in sorted(self._shipped.glob(f"{portfolio}/*/{package.MANIFEST}")):
            if manifest.parent.name not in present:
                self.add(manifest.parent)

    def shipped_default(self, portfolio: str) -> str:
        """The version to serve before any activation.

        Raises:
            PackageNotFound: the portfolio ships none.
        """
        file = self._shipped / portfolio / DEFAULT
        if not file.is_file():
            msg = f"portfolio {portfolio} ships no package: train one, then activate it"
            raise PackageNotFound(msg)
        return file.read_text(encoding="utf-8").strip()

    def installed(self, portfolio: str) -> list[Installed]:
        """A portfolio's packages, the newest last.

        Raises:
            PackageInvalid: BentoML cannot read its own files there.
        """
        found = []
        try:
            models = self._models.list()
        except BentoMLException as error:
            msg = f"{self._home / 'models'}: {error}"
            raise PackageInvalid(msg) from error
        for model in models:
            if model.tag.name != portfolio:
                continue
            path = _folder(model)
            found.append(
                Installed(
                    version=str(model.tag.version),
                    path=path,
                    created=model.info.creation_time.isoformat(timespec="seconds"),
                    estimator=_estimator(path),
                )
            )
        return sorted(found, key=lambda p: (p.created, p.version))

    def path(self, portfolio: str, version: str) -> Path:
        """The folder of an installed package.

        Raises:
            PackageNotFound: no such version is installed.
        """
        try:
            model = self._models.get(f"{portfolio}:{version}")
        except BentoMLException:
            model = None
        # BentoML also takes the start of a version, and "latest".
        if model is None or model.tag.version != version:
            msg = f"no package {version} of portfolio {portfolio} is installed"
            raise PackageNotFound(msg)
        return _folder(model)

    def load(self, portfolio: str, version: str) -> package.ModelPackage:
        """Load an installed package, its sums verified.

        Raises:
            PackageNotFound: no such version is installed.
            PackageInvalid: see `credit_risk.package.load`.
        """
        loaded = package.load(self.path(portfolio, version), version)
        if loaded.portfolio != portfolio:
            msg = f"package {version} belongs to portfolio {loaded.portfolio}"
            raise PackageInvalid(msg)
        return loaded


def _folder(model: Any) -> Path:  # noqa: ANN401 - BentoML's model type is internal
    return Path(model.path_of(FOLDER))


def _estimator(path: Path) -> str | None:
    try:
        return ModelSpec.model_validate_json((path / "model.json").read_bytes()).estimator
    except (OSError, ValidationError):
        return None  # a damaged package is listed like any other; loading it names the file
