"""Model packages in BentoML's model store, under the state directory.

A package is the model ``portfolio:version`` of the store, its files in the folder ``package`` of
that model. The shipped packages are put there when a server starts or a version is activated; until
then they are read where they are.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ValidationError

from credit_risk import approvals, documents
from credit_risk.approvals import Signatures
from credit_risk.errors import PackageInvalid, PackageNotFound, PortfolioInvalid
from credit_risk.manifest import VERSION_DIGITS, Manifest, policy_version, verify

if TYPE_CHECKING:
    from credit_risk.approvals import Signature
    from credit_risk.package import ModelPackage, Wordings
    from credit_risk.settings import Settings

logger = logging.getLogger("credit_risk.store")

FOLDER = "package"
DEFAULT = "default"
"""File beside a portfolio's shipped packages: the version served before any activation."""
_VERSION = re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Installed:
    """A package that can be activated, or one that is ``broken``: then that says how.

    ``created`` is when it was put into the store; None for a shipped one that was not yet.
    ``sha256`` is its digest, None where that cannot be told.
    """

    version: str
    sha256: str | None
    path: Path
    created: str | None
    estimator: str | None
    broken: str | None


class Verified(NamedTuple):
    """A package that is whole: how it and its policy are called."""

    version: str
    digest: str
    policy_version: str


class _Description(BaseModel):
    """What we read of ``model.yaml``, BentoML's own description of a model."""

    creation_time: datetime


class Store:
    """The packages installed under one state directory, and behind them the shipped ones.

    Nothing is made before a package is put in. Reading never stops at a package that is broken,
    but at the one that is asked for.
    """

    def __init__(self, settings: Settings) -> None:
        # Usage tracking is BentoML's default; a lender's server calls nobody.
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
        self._home = settings.state_dir.absolute() / "bentoml"
        self._shipped = settings.packages_dir.absolute()
        self._approvers_file = settings.approvers_file

    def add(self, path: Path) -> str:
        """Verify a package's sums and put it into the store; returns its version.

        Signatures beside it come along, also to a package that is in the store already.

        Raises:
            PackageInvalid: its sums do not match, or what is beside it are no signatures.
        """
        manifest = _verified(path)
        tag = f"{manifest.portfolio}:{manifest.version}"
        target = self._model(manifest.portfolio, manifest.version)
        target.parent.mkdir(parents=True, exist_ok=True)
        signatures = approvals.read(path).found
        # Workers may start at the same time; only one of them copies.
        with self._adding():
            if target.exists():
                approvals.add(target / FOLDER, signatures, self._approvers_file)
                return manifest.version
            # Here and not above: it takes long, and who only reads packages needs none of it.
            import bentoml  # noqa: PLC0415
            from bentoml._internal.models import ModelStore  # noqa: PLC0415

            # BentoML copies file by file to where a model belongs: a process that is killed within
            # leaves half a model, and one that reads meanwhile finds it. A folder moved there is
            # whole. `latest`, which BentoML keeps beside it, is made again where it is asked for.
            with tempfile.TemporaryDirectory(prefix="adding-", dir=self._home) as staging:
                labels = {"portfolio": manifest.portfolio}
                staged = ModelStore(staging)
                with bentoml.models.create(tag, labels=labels, _model_store=staged) as model:
                    shutil.copytree(path, model.path_of(FOLDER))
                    folder = Path(model.path_of(FOLDER))
                    approvals.add(folder, signatures, self._approvers_file)
                (Path(staging) / manifest.portfolio / manifest.version).replace(target)
        return manifest.version

    def add_shipped(self, portfolio: str) -> None:
        """Put the shipped packages of a portfolio into the store.

        One that is broken stays out, and the log says why: another may be the one to serve.
        """
        for path in _folders(self._shipped / portfolio):
            if not self._model(portfolio, path.name).exists():
                try:
                    self.add(path)
                except PackageInvalid as error:
                    logger.warning("a shipped package is left out: %s", error)

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
        """A portfolio's packages, the newest last; those in the store, then those only shipped."""
        models = _folders(self._home / "models" / portfolio)
        found = [_look(model.name, model / FOLDER, model) for model in models]
        found.sort(key=lambda package: (package.created or "", package.version))
        present = {model.name for model in models}
        shipped = _folders(self._shipped / portfolio)
        return found + [_look(path.name, path) for path in shipped if path.name not in present]

    def path(self, portfolio: str, version: str) -> Path:
        """The folder of a package, in the store or, not put there yet, among the shipped ones.

        Raises:
            PackageNotFound: there is no such version.
            PackageInvalid: BentoML's description of it cannot be read.
        """
        model = self._model(portfolio, version)
        shipped = self._shipped / portfolio / version
        if _VERSION.fullmatch(version):
            if model.is_dir():
                _description(model)
                return model / FOLDER
            if shipped.is_dir():
                return shipped
        msg = f"no package {version} of portfolio {portfolio} is installed"
        raise PackageNotFound(msg)

    def folders(self, portfolio: str) -> dict[str, str]:
        """The folders of a portfolio's packages by version; none is looked into."""
        shipped = {path.name: path for path in _folders(self._shipped / portfolio)}
        models = _folders(self._home / "models" / portfolio)
        found = shipped | {model.name: model / FOLDER for model in models}
        return {name: str(path) for name, path in found.items() if _VERSION.fullmatch(name)}

    def load(self, portfolio: str, version: str) -> ModelPackage:
        """Load a package, its sums verified.

        Raises:
            PackageNotFound: see `path`.
            PackageInvalid: see `path` and `credit_risk.package.load`; names the folder.
        """
        # Here and not above: what is never loaded needs none of the libraries that score.
        from credit_risk import package  # noqa: PLC0415

        path = self.path(portfolio, version)
        try:
            loaded = package.load(path, version)
        except PackageInvalid as error:
            raise _at(path, error) from error
        if loaded.portfolio != portfolio:
            msg = f"{path}: package {version} belongs to portfolio {loaded.portfolio}"
            raise PackageInvalid(msg)
        return loaded

    def verified(self, portfolio: str, version: str) -> Verified:
        """A package whose sums match, of which nothing is loaded.

        Raises:
            PackageNotFound: see `path`.
            PackageInvalid: see `path`; a sum does not match, or it is not what it is called.
        """
        path = self.path(portfolio, version)
        manifest = _verified(path)
        if (manifest.version, manifest.portfolio) != (version, portfolio):
            msg = f"{path}: it is package {manifest.version} of portfolio {manifest.portfolio}"
            raise PackageInvalid(msg)
        return Verified(version, manifest.digest, policy_version(path, manifest))

    def signatures(self, portfolio: str, version: str) -> Signatures:
        """The signatures beside a package, in the store and among the shipped ones.

        Nobody has looked whether they hold, see `credit_risk.approvals.Approvers.valid`.

        Raises:
            PackageInvalid: a file of them cannot be read.
        """
        folders = (self._model(portfolio, version) / FOLDER, self._shipped / portfolio / version)
        here, shipped = (approvals.read(folder) for folder in folders)
        both = dict.fromkeys((*here.found, *shipped.found))
        return Signatures(tuple(both), here.junk + shipped.junk)

    def sign(self, portfolio: str, version: str, signature: Signature) -> None:
        """Put a signature beside a package in the store.

        Raises:
            PackageNotFound: it is not in the store; a shipped one has to be put there first.
            PackageInvalid: see `credit_risk.approvals.add`.
        """
        model = self._model(portfolio, version)
        if not model.is_dir():
            raise PackageNotFound(f"no package {version} of portfolio {portfolio} is in the store")
        with self._adding():
            approvals.add(model / FOLDER, [signature], self._approvers_file)

    def wordings(self, portfolio: str, version: str) -> Wordings:
        """The words of a package, its sums verified.

        Raises:
            PackageNotFound: see `path`.
            PackageInvalid: see `path` and `credit_risk.package.wordings`; names the folder.
        """
        from credit_risk import package  # noqa: PLC0415 - see `load`

        path = self.path(portfolio, version)
        try:
            return package.wordings(path, version)
        except PackageInvalid as error:
            raise _at(path, error) from error

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """One process at a time puts something into the store."""
        with (self._home / "adding.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _model(self, portfolio: str, version: str) -> Path:
        """The folder of a model in BentoML's store."""
        return self._home / "models" / portfolio / version


def _folders(path: Path) -> list[Path]:
    """The folders in one; none where it is not there. Hidden ones are still being written."""
    found = path.iterdir() if path.is_dir() else ()
    return sorted(p for p in found if p.is_dir() and not p.name.startswith("."))


def _look(version: str, path: Path, model: Path | None = None) -> Installed:
    """What a package's folder holds; ``model`` is BentoML's around it, if it is in the store."""
    from credit_risk.model import ModelSpec  # noqa: PLC0415 - see `Store.load`

    created = estimator = broken = sha256 = None
    try:
        if model is not None:
            created = _description(model).creation_time.isoformat(timespec="seconds")
        manifest = _verified(path)
        sha256 = manifest.digest
        approvals.read(path)
        estimator = ModelSpec.model_validate_json((path / "model.json").read_bytes()).estimator
        if manifest.version != version:
            broken = f"{path}: the folder holds {manifest.version}"
    except PackageInvalid as error:
        broken = str(error)
    except (OSError, ValidationError):
        broken = f"{path}: model.json cannot be read"
    return Installed(version, sha256, path, created, estimator, broken)


def _verified(path: Path) -> Manifest:
    try:
        return verify(path)
    except PackageInvalid as error:
        raise _at(path, error) from error


def _at(path: Path, error: PackageInvalid) -> PackageInvalid:
    """The error with the folder it is about: a package is known by its version, found by this."""
    return PackageInvalid(f"{path}: {error}")


def _description(model: Path) -> _Description:
    try:
        return documents.read(_Description, model / "model.yaml")
    except PortfolioInvalid as error:
        msg = f"{error}; once {model} is deleted, the package can be put in again"
        raise PackageInvalid(msg) from error
