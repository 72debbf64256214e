"""An MLflow server in this process: as much of its REST API as is asked for, answering as it does.

What it answers is held against the real one by the tests of `credit_risk.serving.registry`, which
run on both where the real one is installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx

from credit_risk.manifest import VERSION_TAG, read_manifest
from credit_risk.serving.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

URL = "http://mlflow.test/prefix"
API = "/prefix/api/2.0/mlflow/"
ARTIFACTS = "/prefix/api/2.0/mlflow-artifacts/artifacts/"


@dataclass
class Version:
    """A version of a model, as the server keeps it."""

    name: str
    number: str
    source: str
    tags: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As MLflow answers it: tags that there are none of are left out."""
        tags = [{"key": key, "value": value} for key, value in self.tags.items()]
        told = {"name": self.name, "version": self.number, "source": self.source}
        return {**told, "tags": tags} if tags else told


@dataclass
class Mlflow:
    """The server. ``fault`` is what answers instead, where it is set."""

    models: dict[str, list[Version]] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[httpx.Request] = field(default_factory=list)
    fault: Callable[[httpx.Request], httpx.Response] | None = None

    def client(self, **who: Any) -> Registry:  # noqa: ANN401 - as the registry has them
        """A client of it."""
        return Registry(URL, transport=httpx.MockTransport(self), **who)

    def add(self, folder: Path, **tags: str) -> str:
        """Register the package in a folder; returns its number."""
        manifest = read_manifest(folder)
        versions = self.models.setdefault(manifest.portfolio, [])
        number = str(len(versions) + 1)
        root = f"0/run-{manifest.portfolio}-{number}/artifacts/package"
        self.files |= {
            f"{root}/{file.relative_to(folder).as_posix()}": file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        known = {**manifest.tags, **tags}
        version = Version(manifest.portfolio, number, f"mlflow-artifacts:/{root}", known)
        versions.append(version)
        return number

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.asked.append(request)
        if self.fault is not None:
            return self.fault(request)
        path = unquote(request.url.raw_path.decode("ascii").partition("?")[0])
        if path.startswith(ARTIFACTS):
            content = self.files.get(path.removeprefix(ARTIFACTS))
            if content is None:
                return _error(500, "INTERNAL_ERROR")
            return httpx.Response(200, content=content)
        given = dict(request.url.params) if request.method == "GET" else json.loads(request.content)
        answers = {
            ("GET", "registered-models/alias"): self._aliased,
            ("POST", "registered-models/alias"): self._move,
            ("GET", "model-versions/search"): self._search,
            ("GET", "model-versions/get-download-uri"): self._uri,
            ("POST", "model-versions/set-tag"): self._tag,
        }
        return answers[request.method, path.removeprefix(API)](given)

    def _version(self, given: dict[str, str]) -> Version | None:
        found = [v for v in self.models.get(given["name"], []) if v.number == given["version"]]
        return found[0] if found else None

    def _aliased(self, given: dict[str, str]) -> httpx.Response:
        if given["name"] not in self.models:
            return _error(404, "RESOURCE_DOES_NOT_EXIST")
        number = self.aliases.get((given["name"], given["alias"]))
        found = self._version({"name": given["name"], "version": number or ""})
        if found is None:
            return _error(400, "INVALID_PARAMETER_VALUE")
        return httpx.Response(200, json={"model_version": found.to_json()})

    def _move(self, given: dict[str, str]) -> httpx.Response:
        if self._version(given) is None:
            return _error(404, "RESOURCE_DOES_NOT_EXIST")
        self.aliases[given["name"], given["alias"]] = given["version"]
        return httpx.Response(200, json={})

    def _search(self, given: dict[str, str]) -> httpx.Response:
        name, _, tag = given["filter"].removeprefix("name = '").partition("'")
        wanted = tag.rpartition(" = ")[2].strip("'")
        found = [
            version.to_json()
            for version in reversed(self.models.get(name, []))
            if not wanted or version.tags.get(VERSION_TAG) == wanted
        ]
        begin = int(given["page_token"] or 0)
        page: dict[str, Any] = {"model_versions": found[begin : begin + 1]} if found else {}
        if begin + 1 < len(found):
            page["next_page_token"] = str(begin + 1)
        return httpx.Response(200, json=page)

    def _uri(self, given: dict[str, str]) -> httpx.Response:
        found = self._version(given)
        if found is None:
            return _error(404, "RESOURCE_DOES_NOT_EXIST")
        return httpx.Response(200, json={"artifact_uri": found.source})

    def _tag(self, given: dict[str, str]) -> httpx.Response:
        found = self._version(given)
        if found is None:
            return _error(404, "RESOURCE_DOES_NOT_EXIST")
        found.tags[given["key"]] = given["value"]
        return httpx.Response(200, json={})


def _error(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error_code": code, "message": "as MLflow words it"})


def away(_: httpx.Request) -> httpx.Response:
    """Nobody listens."""
    raise httpx.ConnectError("connection refused, asked for https://ada:secret@mlflow.test")


def failing(_: httpx.Request) -> httpx.Response:
    """The server's database does not answer, or its S3."""
    return _error(500, "INTERNAL_ERROR")
