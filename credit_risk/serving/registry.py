"""The model registry: MLflow's, by its REST API and nothing else of it.

A registered model is a portfolio, a version of it a package, which lies as files among the
artefacts of the run that made it. Versions have numbers of the registry's own; what ours are, their
tags say. Artefacts come through the registry's server, so that nobody here has credentials for
where it keeps them.

Nothing that decides waits for any of this: threads and commands ask, for a bounded time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from credit_risk.approvals import Signature
from credit_risk.errors import PackageInvalid, PackageNotFound, RegistryUnavailable
from credit_risk.manifest import (
    DIGEST_TAG,
    MANIFEST,
    STATUS_TAG,
    VERSION_DIGITS,
    VERSION_TAG,
    Manifest,
    read_manifest,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from credit_risk.serving.store import Store
    from credit_risk.settings import Settings

logger = logging.getLogger("credit_risk.registry")

CHAMPION = "champion"
"""The alias of the version that decides."""
CHALLENGER = "challenger"
"""The alias of the one that is tried beside it."""
SIGNATURE_TAG = "signature."
"""What the tags begin with that hold a package's signatures; the key's id is the rest."""

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
ANSWER_SECONDS = 20.0
"""How long any answer but a file may take, however it trickles in."""
PAGES_MAX = 1_000
"""Of a hundred versions each: no model has more, and an answer that has no end is none."""
PACKAGE_SECONDS = 120.0
ANSWER_BYTES_MAX = 4 << 20
PACKAGE_BYTES_MAX = 1 << 30
"""No package that a worker could hold in memory is larger."""

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
_PROXIED = "mlflow-artifacts"
_CONNECTED = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})
_TAGS = {
    VERSION_TAG: re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}"),
    DIGEST_TAG: re.compile(r"[0-9a-f]{64}"),
}


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model; ``number`` is the registry's."""

    name: str
    number: str
    tags: dict[str, str]

    @property
    def package_version(self) -> str:
        """Our version of the package.

        Raises:
            PackageInvalid: no tag says it, or not as ours do: this program did not register it.
        """
        return self._tag(VERSION_TAG)

    @property
    def package_sha256(self) -> str:
        """The package's digest as it was registered.

        Raises:
            PackageInvalid: as `package_version`.
        """
        return self._tag(DIGEST_TAG)

    def __str__(self) -> str:
        return f"version {self.number} of {self.name} in the registry"

    def _tag(self, key: str) -> str:
        value = self.tags.get(key)
        if value is None:
            raise PackageInvalid(f"{self}: it has no tag {key}")
        if not _TAGS[key].fullmatch(value):
            raise PackageInvalid(f"{self}: its tag {key} is none of ours")
        return value


class _Tag(BaseModel):
    key: str
    value: str = ""


class _Version(BaseModel):
    """What we read of MLflow's ``ModelVersion``."""

    name: str
    version: str
    tags: tuple[_Tag, ...] = ()

    def of(self, name: str) -> Registered:
        """The same, if it is of the model that was asked about."""
        if self.name != name:
            raise RegistryUnavailable("the registry answers about another model")
        return Registered(name, self.version, {tag.key: tag.value for tag in self.tags})


class _OneVersion(BaseModel):
    model_version: _Version


class _Versions(BaseModel):
    model_versions: tuple[_Version, ...] = ()
    next_page_token: str = ""


class _Artifacts(BaseModel):
    artifact_uri: str


class Registry:
    """An MLflow server.

    Args:
        url: where it listens, with the prefix it is behind, if any.
        auth: user name and password, or None.
        token: sent as a bearer's, where there is no user name.
        transport: what carries requests; the network unless a test has something else.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: tuple[str, str] | None = None,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            auth=auth,
            headers={} if auth or not token else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            # MLflow, or a proxy before it, may have closed one that is half a minute old.
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
        )

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def aliased(self, name: str, alias: str) -> Registered | None:
        """The version that an alias stands for; None where nothing of that name has it.

        Raises:
            RegistryUnavailable: the registry does not answer, or not as one.
        """
        # MLflow calls a model that is not there missing, and an alias a wrong parameter.
        nothing = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
        found = self._get("registered-models/alias", nothing, name=name, alias=alias)
        return None if found is None else _as(_OneVersion, found).model_version.of(name)

    def find(self, name: str, package_version: str) -> Registered:
        """The newest version that is that package.

        Raises:
            PackageNotFound: none is.
            RegistryUnavailable: see `aliased`.
        """
        for registered in self.versions(name, package_version):
            return registered
        raise PackageNotFound(f"no package {package_version} of portfolio {name} is in {self}")

    def versions(self, name: str, package_version: str | None = None) -> Iterator[Registered]:
        """The versions of a model, the newest first; of one package, if it is given.

        Raises:
            RegistryUnavailable: see `aliased`.
        """
        wanted = f"name = '{name}'"
        if package_version is not None:
            wanted += f" AND tags.`{VERSION_TAG}` = '{package_version}'"
        token = ""
        for _ in range(PAGES_MAX):
            found = self._get(
                "model-versions/search",
                filter=wanted,
                order_by="version_number DESC",
                max_results="100",
                page_token=token,
            )
            page = _as(_Versions, found)
            yield from (version.of(name) for version in page.model_versions)
            token = page.next_page_token
            if not token:
                return
        raise RegistryUnavailable(f"{self} answers without end")

    def move(self, name: str, alias: str, number: str) -> None:
        """Have an alias stand for a version.

        Raises:
            RegistryUnavailable: see `aliased`.
        """
        self._post("registered-models/alias", name=name, alias=alias, version=number)

    def tag(self, registered: Registered, key: str, value: str) -> None:
        """Set a tag of a version.

        Raises:
            RegistryUnavailable: see `aliased`.
        """
        version = {"name": registered.name, "version": registered.number}
        self._post("model-versions/set-tag", **version, key=key, value=value)

    def download(self, registered: Registered, folder: Path) -> Path:
        """Fetch a version's package into a folder of its own under ``folder``, and verify it.

        Raises:
            PackageInvalid: it is not the package that was registered, or cannot be fetched from
                here at all.
            RegistryUnavailable: see `aliased`.
        """
        until = time.monotonic() + PACKAGE_SECONDS
        found = self._get(
            "model-versions/get-download-uri", name=registered.name, version=registered.number
        )
        root = _path(_as(_Artifacts, found).artifact_uri, registered)
        target = folder / registered.package_version
        target.mkdir()
        content = self._file(f"{root}/{MANIFEST}", ANSWER_BYTES_MAX, until)
        (target / MANIFEST).write_bytes(content)
        manifest = read_manifest(target)
        _check(manifest, registered)
        left = PACKAGE_BYTES_MAX
        for name in manifest.files:
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts or not name.isprintable():
                raise PackageInvalid(f"{registered}: a file of it would lie outside its folder")
            content = self._file(f"{root}/{name}", left, until)
            left -= len(content)
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(content)
        verify(target)
        return target

    def _get(self, path: str, nothing: frozenset[str] = frozenset(), **query: str) -> Any:  # noqa: ANN401 - any JSON
        return self._answer("GET", path, nothing, params=query)

    def _post(self, path: str, **document: str) -> None:
        self._answer("POST", path, frozenset(), json=document)

    def _answer(
        self,
        method: str,
        path: str,
        nothing: frozenset[str],
        **given: dict[str, str],
    ) -> Any:  # noqa: ANN401 - any JSON
        """What the registry answers; None for an error whose code means that there is nothing."""
        until = time.monotonic() + ANSWER_SECONDS
        status, content = self._read(method, f"{_API}/{path}", ANSWER_BYTES_MAX, until, **given)
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            if status == HTTPStatus.OK:
                return document
            if str(document.get("error_code")) in nothing:
                return None
        raise RegistryUnavailable(f"{self} answers {status}, and nothing that is of use")

    def _file(self, path: str, limit: int, until: float) -> bytes:
        status, content = self._read("GET", _ARTIFACTS + quote(path), limit, until)
        if status != HTTPStatus.OK:
            raise RegistryUnavailable(f"{self} answers {status}, asked for a file")
        return content

    def _read(
        self, method: str, path: str, limit: int, until: float, **given: dict[str, str]
    ) -> tuple[int, bytes]:
        """Status and body of a response, which may neither be larger nor take longer."""
        content = bytearray()
        try:
            with (
                _cut_off(until) as trace,
                # The limits of `given` are mypy's: httpx has a type for each of its parameters.
                self._client.stream(method, path, extensions={"trace": trace}, **given) as response,  # type: ignore[arg-type]
            ):
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > limit:
                        raise RegistryUnavailable(f"{self} answers more than can be right")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if time.monotonic() > until:
                raise RegistryUnavailable(f"{self} takes too long to answer") from error
            # Not its text, which may have the whole URL in it.
            raise RegistryUnavailable(f"{self} does not answer: {type(error).__name__}") from error
        return response.status_code, bytes(content)

    def __str__(self) -> str:
        return f"the registry at {self._where}"


@contextlib.contextmanager
def _cut_off(until: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shut the connection of a request at that time, if it is not answered by then.

    httpx's time-outs are of single reads: a head that trickles in would take as long as it likes.
    Gives what httpx calls with each step of the request.
    """
    held: list[socket.socket] = []

    def note(step: str, told: dict[str, Any]) -> None:
        if step in _CONNECTED:
            held.append(told["return_value"].get_extra_info("socket"))

    def cut() -> None:
        for connection in held:
            with contextlib.suppress(OSError):  # closed already, or TLS's by now
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(until - time.monotonic(), 0.0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield note
    finally:
        timer.cancel()


def connect(settings: Settings) -> Registry | None:
    """The registry of the settings in force, asked nothing yet; None where they name none.

    Who asks is what MLflow's own variables say: MLFLOW_TRACKING_USERNAME with
    MLFLOW_TRACKING_PASSWORD, or else MLFLOW_TRACKING_TOKEN.
    """
    if settings.registry_uri is None:
        return None
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return Registry(
        settings.registry_uri,
        auth=(name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None,
        token=os.environ.get("MLFLOW_TRACKING_TOKEN"),
    )


def move_alias(
    settings: Settings,
    package_version: str,
    alias: str = CHAMPION,
    signatures: Iterable[Signature] = (),
    status: str | None = None,
) -> str | None:
    """Have an alias of the portfolio stand for a package; returns the registry's number of it.

    None where the settings name no registry. A server that finds the alias moved to the package
    that decides already changes nothing, so this comes after the activation. The package's
    ``signatures`` become tags of it first: a server that follows may ask for them; and so does its
    validation ``status``, if it is given.

    Raises:
        PackageNotFound: the package is not in the registry.
        RegistryUnavailable: the registry does not answer, or not as one.
    """
    registry = connect(settings)
    if registry is None:
        return None
    with contextlib.closing(registry):
        registered = registry.find(settings.portfolio, package_version)
        for signature in signatures:
            key = f"{SIGNATURE_TAG}{signature.key_id}"
            registry.tag(registered, key, signature.model_dump_json())
        if status is not None:
            registry.tag(registered, STATUS_TAG, status)
        registry.move(settings.portfolio, alias, registered.number)
    return registered.number


def signatures_of(registered: Registered) -> list[Signature]:
    """The signatures in a version's tags; nobody has looked whether they hold."""
    found = []
    for key, value in registered.tags.items():
        if key.startswith(SIGNATURE_TAG):
            with contextlib.suppress(ValidationError):  # somebody else's tag is no signature
                found.append(Signature.model_validate_json(value))
    return found


def fetch(registry: Registry, registered: Registered, store: Store, state_dir: Path) -> None:
    """Put a version's package into the store, unless it is there, and its signatures beside it.

    Raises:
        PackageInvalid: it is not the package that was registered.
        RegistryUnavailable: it cannot be fetched now, or not be kept here.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        # Workers start together on a new machine; one of them fetches, and the others find it here.
        with (state_dir / "fetching.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                store.path(registered.name, registered.package_version)
            except PackageNotFound:
                with tempfile.TemporaryDirectory(prefix="fetching-", dir=state_dir) as folder:
                    store.add(registry.download(registered, Path(folder)))
                logger.info("package %s was fetched: %s", registered.package_version, registered)
        for signature in signatures_of(registered):
            store.sign(registered.name, registered.package_version, signature)
    except OSError as error:
        # A full disk, or names that no disk takes.
        msg = f"{registered} cannot be kept here: {error.strerror}"
        raise RegistryUnavailable(msg) from error


def fetch_version(registry: Registry, store: Store, settings: Settings, version: str) -> None:
    """Put a package that is not in the store there: one that was activated on another server.

    Raises:
        PackageNotFound: it is not in the registry either.
        PackageInvalid: see `fetch`.
        RegistryUnavailable: see `fetch`.
    """
    try:
        found = registry.find(settings.portfolio, version)
        fetch(registry, found, store, settings.state_dir)
    except RegistryUnavailable as error:
        msg = f"package {version} is not installed here, and {error}"
        raise RegistryUnavailable(msg) from error


D = TypeVar("D", bound=BaseModel)


def _as(kind: type[D], document: object) -> D:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise RegistryUnavailable(f"the registry answers without a proper {place}") from None


def _path(uri: str, registered: Registered) -> str:
    """Where the registry's server serves the artefacts of a URI: the path below its root."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise PackageInvalid(f"{registered}: where its files lie is no URI") from None
    path = parts.path
    if parts.scheme in {"http", "https"} and _ARTIFACTS in path:
        path = path.partition(_ARTIFACTS)[2]
    elif parts.scheme != _PROXIED:
        raise PackageInvalid(
            f"{registered}: its files are not served by it ({parts.scheme}:): start "
            "MLflow with --artifacts-destination, and register the package again"
        )
    return path.strip("/")


def _check(manifest: Manifest, registered: Registered) -> None:
    """Hold a manifest against what was registered."""
    if manifest.digest != registered.package_sha256:
        raise PackageInvalid(f"{registered}: {MANIFEST} is not the one that was registered")
    if manifest.version != registered.package_version or manifest.portfolio != registered.name:
        raise PackageInvalid(f"{registered}: its tags are not those of its {MANIFEST}")
