"""What can be set from outside, in one place (the twelve-factor way).

Every setting is an environment variable with the prefix ``CREDIT_RISK_``. The four that
``make serve`` takes (``PORT``, ``WORKERS``, ``STATE_DIR``, ``PORTFOLIO``) and ``MODEL_VERSION``
also work without the prefix; with both present the prefixed one wins.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy import URL

PREFIX = "CREDIT_RISK_"
HOUR = 3_600.0
"""Seconds: no limit on how long something takes is longer."""


def _plain(name: str) -> AliasChoices:
    return AliasChoices(f"{PREFIX}{name}", name)


def _is_url(text: str) -> str:
    from sqlalchemy import make_url  # noqa: PLC0415 - see `Settings.audit_url`
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        make_url(text)
    except (ArgumentError, ValueError):
        msg = "not a SQLAlchemy URL, such as postgresql+psycopg://user@host/records"
        raise ValueError(msg) from None
    return text


def _is_http(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        msg = (
            "not the URL of a server, such as https://mlflow.example; who asks is said by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
        raise ValueError(msg)
    return text


def _url_in(file: Path) -> str:
    try:
        return _is_url(file.read_text(encoding="utf-8").strip())
    except OSError:
        msg = f"{file} cannot be read"
        raise ValueError(msg) from None


def _holds_url(file: Path) -> Path:
    _url_in(file)
    return file


class Settings(BaseSettings):
    """The settings of one process; see ``credit-risk settings`` for the values in force."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        hide_input_in_errors=True,  # a database's URL may hold a password
    )

    portfolio: Annotated[
        str,
        Field(
            validation_alias=_plain("PORTFOLIO"),
            pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
            description="The portfolio this server serves.",
        ),
    ] = "personal-loans"
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int,
        Field(validation_alias=_plain("PORT"), ge=1, le=65535, description="Port to listen on."),
    ] = 3000
    workers: Annotated[
        int,
        Field(
            validation_alias=_plain("WORKERS"),
            ge=1,
            default_factory=lambda: os.cpu_count() or 1,
            description="Worker processes; the number of cores unless set.",
        ),
    ]
    state_dir: Annotated[
        Path,
        Field(
            validation_alias=_plain("STATE_DIR"),
            description="Everything the server writes: records, BentoML's store, metrics files.",
        ),
    ] = Path("var")
    model_version: Annotated[
        str | None,
        Field(
            validation_alias=_plain("MODEL_VERSION"),
            description=(
                "Pins the package version to serve. Unset: the version last activated, "
                "and before any activation the one the portfolio ships as its default."
            ),
        ),
    ] = None
    approvers_file: Annotated[
        Path | None,
        Field(
            description="File with the names and public keys of those who may approve packages. "
            "Unset: nobody may."
        ),
    ] = None
    required_signatures: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="So many approvers have to have signed a package, or it does not decide.",
        ),
    ] = 0
    portfolios_dir: Annotated[
        Path, Field(description="Folder with one folder of data files per portfolio.")
    ] = Path(__file__).parent.parent / "portfolios"
    packages_dir: Annotated[
        Path, Field(description="Folder with the model packages that are shipped.")
    ] = Path(__file__).parent.parent / "packages"
    regimes_dir: Annotated[
        Path, Field(description="Folder with one data file per legal regime.")
    ] = Path(__file__).parent.parent / "regimes"
    regime: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
            description="The regime that notices and evidence go by.",
        ),
    ] = "us-ecoa"
    database_url: Annotated[
        Annotated[str, AfterValidator(_is_url)] | None,
        Field(
            description="URL of the record database, postgresql+psycopg://USER:PASSWORD@HOST/NAME. "
            "Unset: see database_url_file."
        ),
    ] = None
    database_url_file: Annotated[
        Annotated[Path, AfterValidator(_holds_url)] | None,
        Field(
            description="File with that URL, as containers are given secrets. Neither set: SQLite "
            "under the state directory."
        ),
    ] = None
    encryption_keys: Annotated[
        SecretStr | None,
        Field(
            description="What seals applicants' data on record: keys of 32 bytes in base64, "
            "separated by spaces; the first seals, all open.",
        ),
    ] = None
    encryption_keys_file: Annotated[
        Path | None,
        Field(
            description="File with these keys, one on each line. Neither set: a key is made under "
            "the state directory, unless the servers of a shared database need the same."
        ),
    ] = None
    signing_key: Annotated[
        SecretStr | None,
        Field(
            description="What signs checkpoints of the chain of records: an Ed25519 private key "
            "in PEM. Unset: see signing_key_file."
        ),
    ] = None
    signing_key_file: Annotated[
        Path | None,
        Field(description="File with that key. Neither set: as with encryption keys."),
    ] = None
    groups_keys: Annotated[
        SecretStr | None,
        Field(
            description="What seals the groups that applicants belong to, and nothing else: as "
            "encryption keys."
        ),
    ] = None
    groups_keys_file: Annotated[
        Path | None,
        Field(description="File with these keys. Neither set: as with encryption keys."),
    ] = None
    checkpoint_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=24 * HOUR,
            description="How often the chain of records gets a signed checkpoint, as long as "
            "something is recorded.",
        ),
    ] = 60.0
    retention_months: Annotated[
        int | None,
        Field(
            ge=1,
            le=600,
            description="Months that records are kept before `credit-risk retention` takes them. "
            "Unset: as the regime says, or 25 where it sets no number.",
        ),
    ] = None
    batch_rows_max: Annotated[
        int, Field(ge=1, le=10_000, description="Most applications in one batch call.")
    ] = 500
    body_bytes_max: Annotated[
        int | None,
        Field(
            ge=1_024,
            description="Largest request body in bytes. Unset: 4 KiB for each of the rows a "
            "batch may hold.",
        ),
    ] = None
    deadline_seconds: Annotated[
        float,
        Field(
            ge=0.05,
            le=HOUR,
            description="A request about one application is answered after so long at the latest. "
            "Below 1.25, to put on record that it was not takes up to 0.25 longer.",
        ),
    ] = 5.0
    batch_deadline_seconds: Annotated[
        float, Field(ge=0.05, le=HOUR, description="The same for a request about many.")
    ] = 60.0
    waiting_rows_max: Annotated[
        int,
        Field(
            ge=1,
            description="Most applications a worker has in hand; a request beyond is turned away "
            "at once. Never less than the rows of two batch calls.",
        ),
    ] = 1_000
    request_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=HOUR,
            description="A request's head, and its body, each arrive within so long; otherwise "
            "the answer is 408.",
        ),
    ] = 10.0
    keep_alive_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=HOUR,
            description="An idle connection is closed after so long: later than a load balancer "
            "in front, whose limit is often 60, would.",
        ),
    ] = 75
    drain_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=HOUR,
            description="From SIGTERM on, so long, /readyz answers 503 and every other call as "
            "ever; then the server stops.",
        ),
    ] = 0.0
    shutdown_seconds: Annotated[
        int,
        Field(
            ge=1, le=HOUR, description="Requests in hand when the server stops have so long to end."
        ),
    ] = 30
    idempotency_hours: Annotated[
        float,
        Field(
            gt=0,
            le=24 * 366,
            description="A request that comes again under its Idempotency-Key gets the answer of "
            "the first for so long.",
        ),
    ] = 24.0
    activation_poll_seconds: Annotated[
        float,
        Field(gt=0, le=HOUR, description="How often a worker looks for a newly activated version."),
    ] = 0.5
    shadow_seconds: Annotated[
        float,
        Field(
            ge=1,
            le=HOUR,
            description="The process that asks a challenger is ended and started again when it "
            "does not go on for so long, time in which no core was free not counted.",
        ),
    ] = 60.0
    shadow_memory_mb: Annotated[
        int,
        Field(ge=256, le=65_536, description="Memory that this process may have of its own, MiB."),
    ] = 1_024
    shadow_behind_max: Annotated[
        int,
        Field(
            ge=1_000,
            description="A challenger that is more records behind skips to the newest, and says "
            "so.",
        ),
    ] = 1_000_000
    registry_uri: Annotated[
        Annotated[str, AfterValidator(_is_http)] | None,
        Field(
            description="URL of the MLflow server whose alias `champion` is followed, and whose "
            "packages are fetched. Unset: no registry. See docs/registry.md.",
        ),
    ] = None
    registry_poll_seconds: Annotated[
        float,
        Field(gt=0, le=HOUR, description="How often a server looks whether that alias moved."),
    ] = 30.0
    trace_ratio: Annotated[
        float,
        Field(
            ge=0.0,
            le=1.0,
            description="Share of requests that are traced, where OTEL_EXPORTER_OTLP_ENDPOINT says "
            "to what collector.",
        ),
    ] = 0.1
    log_level: Annotated[
        str,
        Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe line logged."),
    ] = "INFO"

    @model_validator(mode="before")
    @classmethod
    def _no_variable_is_misspelt(cls, given: Any) -> Any:  # noqa: ANN401 - as pydantic has it
        known = {f"{PREFIX}{name.upper()}" for name in cls.model_fields}
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                hint = f": did you mean {near[0]}?" if near else ""
                msg = f"{name} is no setting{hint}"
                raise ValueError(msg)
        return given

    @model_validator(mode="after")
    def _signatures_can_be_checked(self) -> Settings:
        if self.required_signatures and self.approvers_file is None:
            msg = f"{PREFIX}REQUIRED_SIGNATURES needs {PREFIX}APPROVERS_FILE"
            raise ValueError(msg)
        return self

    @property
    def audit_url(self) -> URL:
        """URL of the record database in force; printed, it hides its password.

        The path of a SQLite file is absolute: the server's processes work in another folder.
        """
        # Here and not above: what starts the workers needs settings, but no database.
        from sqlalchemy import URL, make_url  # noqa: PLC0415

        given = self.database_url
        if given is None and self.database_url_file is not None:
            given = _url_in(self.database_url_file)
        if given is None:
            # Put together by SQLAlchemy: in text, a folder's name would end at its first question
            # mark, and two such state directories would share one database.
            return URL.create("sqlite", database=str(self.state_dir.absolute() / "records.db"))
        url = make_url(given)
        if url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}:
            return url.set(database=str(Path(str(url.database)).absolute()))
        return url

    @property
    def keys_dir(self) -> Path:
        """Where keys are made and found that the settings do not give."""
        return self.state_dir.absolute() / "keys"

    @property
    def note(self) -> Path:
        """Where a server notes the newest checkpoint it has seen."""
        return self.state_dir.absolute() / "newest-checkpoint.json"

    @property
    def body_limit(self) -> int:
        """Largest request body in force, bytes."""
        if self.body_bytes_max is not None:
            return self.body_bytes_max
        return 4096 * self.batch_rows_max

    @property
    def waiting_limit(self) -> int:
        """Most applications in hand in force."""
        return max(self.waiting_rows_max, 2 * self.batch_rows_max)
