"""Settings: environment variables in, checked values out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from credit_risk.settings import PREFIX, Settings

PLAIN = ("PORTFOLIO", "PORT", "WORKERS", "STATE_DIR", "MODEL_VERSION")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper() in PLAIN or name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def test_with_nothing_set_the_defaults_hold() -> None:
    """A fresh machine serves personal loans on this host only."""
    settings = Settings()

    assert settings.portfolio == "personal-loans"
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert settings.workers == os.cpu_count()
    assert settings.state_dir == Path("var")
    assert settings.model_version is None
    assert settings.batch_rows_max == 500
    assert (settings.portfolios_dir / "personal-loans" / "schema.yaml").is_file()
    assert settings.packages_dir == settings.portfolios_dir.parent / "packages"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORTFOLIO", "credit-cards", "credit-cards"),
        ("PORT", "8080", 8080),
        ("WORKERS", "3", 3),
        ("STATE_DIR", "/srv/state", Path("/srv/state")),
        ("MODEL_VERSION", "0123456789ab", "0123456789ab"),
    ],
)
def test_what_make_serve_takes_works_with_and_without_the_prefix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    """``PORT=8080`` and ``CREDIT_RISK_PORT=8080`` say the same."""
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), name.lower()) == expected

    monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}{name}", value)
    assert getattr(Settings(), name.lower()) == expected


def test_the_prefixed_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``PORT`` that a platform sets for all does not overrule the one meant for us."""
    monkeypatch.setenv("PORT", "1111")
    monkeypatch.setenv("CREDIT_RISK_PORT", "2222")

    assert Settings().port == 2222


def test_the_other_settings_need_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``HOST`` in the environment, which many shells have, is not ours."""
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104 - nothing listens
    monkeypatch.setenv("CREDIT_RISK_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("CREDIT_RISK_BATCH_ROWS_MAX", "10000")

    settings = Settings()

    assert settings.host == "127.0.0.1"
    assert settings.log_level == "DEBUG"
    assert settings.batch_rows_max == 10_000


def test_a_program_may_give_settings_by_name() -> None:
    """Tests and the command line pass values without touching the environment."""
    settings = Settings(portfolio="credit-cards", workers=2, state_dir=Path("/srv"))

    assert (settings.portfolio, settings.workers) == ("credit-cards", 2)


def test_settings_do_not_change_while_a_process_runs() -> None:
    """One process, one set of settings."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORTFOLIO", "../etc"),
        ("PORTFOLIO", "Personal"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("WORKERS", "0"),
        ("CREDIT_RISK_BATCH_ROWS_MAX", "0"),
        ("CREDIT_RISK_BATCH_ROWS_MAX", "10001"),
        ("CREDIT_RISK_BODY_BYTES_MAX", "1023"),
        ("CREDIT_RISK_ACTIVATION_POLL_SECONDS", "0"),
        ("CREDIT_RISK_DEADLINE_SECONDS", "0.001"),
        ("CREDIT_RISK_BATCH_DEADLINE_SECONDS", "0.001"),
        ("CREDIT_RISK_LOG_LEVEL", "LOUD"),
        ("CREDIT_RISK_REGISTRY_URI", "mlflow.example"),
        ("CREDIT_RISK_REGISTRY_URI", "sqlite:///mlflow.db"),
        ("CREDIT_RISK_REGISTRY_URI", "https://ada:secret@mlflow.example"),
        ("CREDIT_RISK_DATABASE_URL", "records.db"),
        ("CREDIT_RISK_DATABASE_URL", "postgresql://host:port/records"),
    ],
)
def test_a_wrong_value_stops_the_process(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A value out of range is refused at the start, not met later."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("value", ["inf", "nan", "1e9"])
def test_no_limit_of_time_is_without_end(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Infinity is no number of seconds that anybody waits, and nor are thirty years."""
    timed = [name for name in Settings.model_fields if name.endswith(("_seconds", "_hours"))]
    assert len(timed) > 6
    for name in timed:
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        with pytest.raises(ValidationError):
            Settings()
        monkeypatch.delenv(f"{PREFIX}{name.upper()}")


def test_records_go_under_the_state_directory_unless_told_otherwise(tmp_path: Path) -> None:
    """Two servers with two state directories never meet."""
    assert Settings(state_dir=tmp_path).audit_url.database == f"{tmp_path}/records.db"
    elsewhere = Settings(database_url="postgresql://db/records")
    assert str(elsewhere.audit_url) == "postgresql://db/records"


@pytest.mark.parametrize(
    "name", ["a?b=c", "a#b", "100%25", "a b", "Büro-ü", "[a-z]*", "it's", "$HOME", "~"]
)
def test_a_state_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Also when the URL of its database was printed and read again."""
    url = Settings(state_dir=tmp_path / name).audit_url

    assert url.database == str(tmp_path / name / "records.db")
    assert make_url(str(url)) == url
    assert url.query == {}


def test_relative_paths_are_those_of_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The database's is absolute, for the server's processes work in another folder."""
    monkeypatch.chdir(tmp_path)

    assert Settings().audit_url.database == f"{tmp_path}/var/records.db"
    given = Settings(database_url="sqlite:///here/my.db").audit_url
    assert given.database == f"{tmp_path}/here/my.db"


def test_a_databases_password_is_in_no_error_and_no_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out of the URL printed, and of what is said about a wrong one."""
    url = Settings(database_url="postgresql://clerk:hunter2@db/records").audit_url
    assert str(url) == "postgresql://clerk:***@db/records"
    assert url.password == "hunter2"  # noqa: S105 - made up

    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", "postgresql://clerk:hunter2@db:port/records")
    with pytest.raises(ValidationError, match="not a SQLAlchemy URL") as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


def test_a_databases_url_may_be_a_secret_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that is given directly wins; the server passes that on to its workers."""
    file = tmp_path / "url"
    file.write_text("postgresql://clerk:hunter2@db/records\n", encoding="utf-8")
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL_FILE", str(file))

    assert Settings().audit_url.password == "hunter2"  # noqa: S105 - made up
    assert Settings(database_url="sqlite:////srv/my.db").audit_url.database == "/srv/my.db"


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "url cannot be read"), ("clerk:hunter2@db", "not a SQLAlchemy URL")],
)
def test_a_file_without_a_databases_url_stops_the_process(
    tmp_path: Path, text: str | None, told: str
) -> None:
    """Nothing is recorded elsewhere because a secret is missing, and none is printed."""
    file = tmp_path / "url"
    if text is not None:
        file.write_text(text, encoding="utf-8")

    with pytest.raises(ValidationError, match=told) as caught:
        Settings(database_url_file=file)
    assert "hunter2" not in str(caught.value)


def test_signatures_are_not_asked_for_without_those_who_may_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing could ever decide."""
    monkeypatch.setenv("CREDIT_RISK_REQUIRED_SIGNATURES", "2")
    with pytest.raises(ValidationError, match=r"REQUIRED_SIGNATURES needs .*APPROVERS_FILE"):
        Settings()

    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", "approvers.yaml")
    assert Settings().required_signatures == 2


def test_the_largest_body_follows_the_largest_batch() -> None:
    """4 KiB for each row, unless a limit is set."""
    assert Settings(batch_rows_max=10).body_limit == 40_960
    assert Settings(body_bytes_max=5_000).body_limit == 5_000


def test_every_setting_says_what_it_is_for() -> None:
    """The command line and the README are made from these descriptions."""
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]

    assert undescribed == []


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files write a setting that somebody may fill in."""
    monkeypatch.setenv("MODEL_VERSION", "")
    monkeypatch.setenv("CREDIT_RISK_PORT", "")

    assert Settings().model_version is None
    assert Settings().port == 3000


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "CREDIT_RISK_BATCH_ROW_MAX",
            "is no setting: did you mean CREDIT_RISK_BATCH_ROWS_MAX",
        ),
        ("credit_risk_qqqqqqq", "credit_risk_qqqqqqq is no setting"),
    ],
)
def test_a_misspelt_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    """Somebody meant something by it."""
    monkeypatch.setenv(name, "3")
    with pytest.raises(ValidationError, match=told):
        Settings()
