"""`credit-risk settings`, and settings that are wrong."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from credit_risk.settings import PREFIX, Settings
from tests.commands import (
    Outcome,
    Place,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def is_number(value: object) -> bool:
    """Whether JSON calls it a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_setting_is_shown_with_a_variable_that_sets_it(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable shown is one that works, and it wins over the short name."""
    url_file = place.folder / "database-url"
    url_file.write_text("sqlite:////srv/records.db", encoding="utf-8")
    lines = run("settings").out.splitlines()
    before = run("settings", "--json").json()
    other: dict[str, object] = {
        # Any other number is as good; of words and paths there are rules.
        **{n: v / 2 if isinstance(v, float) else v + 1 for n, v in before.items() if is_number(v)},
        "portfolio": "credit-cards",
        "host": "0.0.0.0",  # noqa: S104 - nothing listens
        "state_dir": "/srv/state",
        "model_version": "0123456789ab",
        "portfolios_dir": "/srv/portfolios",
        "packages_dir": "/srv/packages",
        "regimes_dir": "/srv/regimes",
        "regime": "eu-consumer-credit",
        "retention_months": 72,
        "database_url": "sqlite:////srv/records.db",
        "database_url_file": str(url_file),
        "body_bytes_max": 2_048,
        "drain_seconds": 15.0,
        "log_level": "DEBUG",
        "encryption_keys": "made-up",
        "encryption_keys_file": "/srv/encryption-keys",
        "groups_keys": "made-up",
        "groups_keys_file": "/srv/groups-keys",
        "signing_key": "made-up",
        "signing_key_file": "/srv/signing-key",
        "approvers_file": "/srv/approvers.yaml",
        "registry_uri": "http://registry.example:5000",
    }
    assert set(before) == set(other) == set(Settings.model_fields)
    for name, value in other.items():
        variable = f"{PREFIX}{name.upper()}"
        (line,) = [line for line in lines if f"{variable}=" in line]
        unset = before[name] is None or name == "encryption_keys"  # set, and told to nobody
        assert line == (f"# {variable}=" if unset else f"{variable}={before[name]}")
        assert before[name] != value
        monkeypatch.setenv(variable, str(value))

    secrets = dict.fromkeys(("encryption_keys", "groups_keys", "signing_key"), "**********")
    assert run("settings", "--json").json() == other | secrets


def test_the_settings_shown_are_a_file_that_a_shell_can_read(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved, it gives the same settings again, whatever is in them."""
    monkeypatch.setenv("STATE_DIR", "some $(where) else's # 100%")
    shown = run("settings")
    file = place.folder / "settings.env"
    file.write_text(shown.out, encoding="utf-8")

    script = '. "$1"; printf %s "$CREDIT_RISK_STATE_DIR"'
    again = subprocess.run(  # noqa: S603 - a script written here
        ["/bin/sh", "-c", script, "sh", str(file)], capture_output=True, text=True, check=True
    ).stdout

    assert again == "some $(where) else's # 100%"
    for field in Settings.model_fields.values():
        assert f"# {field.description}\n" in shown.out


def test_the_short_name_of_the_port_works_and_the_long_one_wins(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform's PORT does not overrule the one meant for us."""
    monkeypatch.setenv("PORT", "1111")
    assert run("settings", "--json").json()["port"] == 1111

    monkeypatch.setenv("CREDIT_RISK_PORT", "2222")
    assert run("settings", "--json").json()["port"] == 2222
    monkeypatch.setenv("PORT", "not even a number")
    assert run("settings", "--json").json()["port"] == 2222


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("CREDIT_RISK_PORT", "65536"),
        ("WORKERS", "0"),
        ("CREDIT_RISK_WORKERS", "all"),
        ("PORTFOLIO", "../etc"),
        ("CREDIT_RISK_PORTFOLIO", "Personal Loans"),
        ("CREDIT_RISK_LOG_LEVEL", "LOUD"),
        ("CREDIT_RISK_BATCH_ROWS_MAX", "10001"),
        ("CREDIT_RISK_BODY_BYTES_MAX", "1"),
        ("CREDIT_RISK_ACTIVATION_POLL_SECONDS", "0"),
        ("credit_risk_activation_poll_seconds", "never"),
        ("CREDIT_RISK_DATABASE_URL", "nonsense"),
    ],
)
@pytest.mark.parametrize(
    "command", [("settings",), ("serve",), ("models", "list"), ("decisions", "list")]
)
def test_a_wrong_setting_ends_with_2_and_the_name_of_its_variable(
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    command: tuple[str, ...],
) -> None:
    """The one that was set, so that it can be found and mended."""
    monkeypatch.setenv(variable, value)

    refused(run(*command), 2, f"error: setting {variable.upper()}: ")


def test_of_two_names_the_one_that_counts_is_told(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both set, the long one is in force, so it is the wrong one."""
    monkeypatch.setenv("PORT", "3000")
    monkeypatch.setenv("CREDIT_RISK_PORT", "0")

    refused(run("settings"), 2, "error: setting CREDIT_RISK_PORT: ")


def test_every_wrong_setting_is_told_in_a_line_of_its_own(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody mends one only to be told of the next."""
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("CREDIT_RISK_LOG_LEVEL", "x")

    outcome = run("settings")

    assert outcome.code == 2
    first, second = outcome.err.splitlines()
    assert first.startswith("error: setting PORT: ")
    assert second.startswith("error: setting CREDIT_RISK_LOG_LEVEL: ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://clerk:hunter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://clerk:hun:ter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://clerk:hun@ter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://db/records?password=hunter2", "postgresql://db/records?password=***"),
        ("sqlite:////srv/a@b/records.db", "sqlite:////srv/a@b/records.db"),
    ],
)
def test_a_databases_password_is_never_shown(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    """Settings are pasted into tickets."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", url)

    assert run("settings", "--json").json()["database_url"] == shown
    assert shown in run("settings").out
    told = run("decisions", "list").err
    assert "ter2" not in told


def test_a_misspelt_setting_is_one_line(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage, and what was probably meant."""
    monkeypatch.setenv("CREDIT_RISK_WORKER", "3")

    refused = run("settings")

    assert refused.code == 2
    assert refused.err == (
        "error: CREDIT_RISK_WORKER is no setting: did you mean CREDIT_RISK_WORKERS?\n"
    )
