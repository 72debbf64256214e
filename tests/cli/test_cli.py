"""The command line: what its commands have in common, and how each kind of error ends one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ValidationError

from credit_risk import __version__, cli, errors
from credit_risk.audit.keys import new_encryption_key
from credit_risk.audit.log import open_log
from credit_risk.audit.records import Record
from credit_risk.cli.exits import EXIT_CODES
from credit_risk.decisions import new_id
from credit_risk.errors import CreditRiskError
from credit_risk.settings import Settings
from tests import toys
from tests.commands import (
    ROOT,
    Outcome,
    Place,
    leases_file,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_prints_its_version(run: Callable[..., Outcome]) -> None:
    """That of the installed program."""
    assert run("version").out == f"{__version__}\n"


def test_it_runs_as_a_program_of_its_own(place: Place) -> None:
    """Not only as the function that the other tests call; errors leave no traceback."""
    command = [sys.executable, "-m", "credit_risk.cli", "decisions", "show", "0193"]
    done = subprocess.run(  # noqa: S603 - our own program
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: no records yet: {place.state}/records.db does not exist\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Usage"),
        (("models",), "Usage"),
        (("decisions",), "Usage"),
        (("nope",), "nope"),
        (("serve", "--nope"), "--nope"),
        (("models", "activate"), "version"),
        (("decisions", "show"), "ID"),
        (("decisions", "list", "--decision", "MAYBE"), "MAYBE"),
        (("decisions", "list", "--kind", "rumour"), "rumour"),
        (("decisions", "list", "--limit", "0"), "--limit"),
        (("decisions", "list", "--limit", "many"), "--limit"),
        (("decisions", "list", "--since", "yesterday"), "--since"),
        (("train",), "--data"),
        (("train", "--data", "x.csv", "--estimator", "oracle"), "oracle"),
        (("evaluate",), "--data"),
        (("package",), "file"),
        (("package", "pipeline.joblib"), "--data"),
        (("replay",), "--all"),
        (("replay", "0193", "--all"), "--all"),
        (("replay", "0193", "--since", "2026-11-01"), "--all"),
        (("replay", "0193", "--changes", "changes.jsonl"), "--all"),
        (("replay", "--all", "--since", "yesterday"), "--since"),
        (("replay", "--all", "--limit", "-1"), "--limit"),
        *(
            ((*command, "--since", "2026-11-02", "--until", "2026-11-01"), "--until")
            for command in (
                ("replay", "--all"),
                ("reviews", "summary"),
                ("decisions", "list"),
                ("outcomes", "list"),
                ("retrain", "--from-records"),
            )
        ),
    ],
)
def test_wrong_usage_ends_with_2(
    run: Callable[..., Outcome], arguments: tuple[str, ...], told: str
) -> None:
    """And shows the right one."""
    outcome = run(*arguments)

    assert outcome.code == 2
    assert told in outcome.out + outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_portfolio_is_told_with_those_that_there_are(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as an option or as a setting; nothing is made for it."""
    told = ("no portfolio 'submarine-leases'", f"(there are: {toys.NAME})")
    file = str(leases_file(place))
    for command in (
        ("models", "list"),
        ("models", "activate", "0123456789ab"),
        ("models", "rollback"),
        ("decisions", "list"),
        ("evaluate", "--data", file),
        ("train", "--data", file),
        ("package", file, "--data", file),
        ("score", file, f"{file}.out.csv"),
        ("replay", "--all"),
    ):
        refused(run(*command, "--portfolio", "submarine-leases"), 3, *told)
    monkeypatch.setenv("PORTFOLIO", "submarine-leases")
    refused(run("serve"), 3, *told)
    assert not place.state.exists()


def test_a_portfolio_outside_the_folder_is_refused(
    run: Callable[..., Outcome], place: Place
) -> None:
    """A name is a name and no path."""
    toys.write_portfolio(place.folder / "elsewhere")

    refused(run("models", "list", "--portfolio", f"../elsewhere/{toys.NAME}"), 3)


def test_a_missing_file_is_told_at_once(run: Callable[..., Outcome], place: Place) -> None:
    """Whichever of a command's files it is, and before it is called a pickle."""
    here, gone, folder = str(leases_file(place)), "nowhere.csv", str(place.folder)
    for command in (
        ("evaluate", "--data", "{}"),
        ("train", "--data", "{}"),
        ("package", here, "--data", "{}"),
        ("package", "{}", "--data", here),
        ("score", "{}", f"{here}.out.csv"),
        ("replay", "--all", "--policy", "{}"),
    ):
        refused(run(*(word.format(gone) for word in command)), 3, "nowhere.csv does not exist")
        refused(run(*(word.format(folder) for word in command)), 1, f"{folder} is a folder")
    assert not place.state.exists()


def kinds(error: type[Exception]) -> list[type[Exception]]:
    """The error and everything under it."""
    return [error, *(below for kind in error.__subclasses__() for below in kinds(kind))]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CreditRiskError, 1),
        (errors.PortfolioInvalid, 1),
        (errors.PackageInvalid, 1),
        (errors.DataInvalid, 1),
        (errors.OutputRefused, 1),
        (errors.ExplanationFailed, 1),
        (errors.CannotServe, 1),
        (errors.NotADecision, 1),
        (errors.PortfolioNotFound, 3),
        (errors.PackageNotFound, 3),
        (errors.FileNotFound, 3),
        (errors.RecordNotFound, 3),
        (errors.RecordingFailed, 4),
        (OSError, 1),
    ],
)
def test_each_kind_of_error_ends_with_its_code(
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    code: int,
) -> None:
    """And with one line, however many the error has."""

    def fail() -> None:
        raise error("this is\nwhy")

    monkeypatch.setattr(cli, "app", fail)

    outcome = run()

    assert (outcome.code, outcome.out, outcome.err) == (code, "", "error: this is why\n")


def test_every_error_of_ours_has_a_code() -> None:
    """Those to come included; what is not there has the same one, whatever it is."""
    for error in kinds(CreditRiskError):
        code = next(code for kind, code in EXIT_CODES if issubclass(error, kind))
        assert (code == 3) == issubclass(error, errors.NotFound)


def test_reading_makes_nothing(run: Callable[..., Outcome], place: Place) -> None:
    """Somebody who looks, or looks in the wrong place, leaves no database and no folder there."""
    source = str(leases_file(place))
    none = f"no records yet: {place.state}/records.db does not exist"

    assert run("models", "list").code == 0
    assert run("settings").code == 0
    assert run("score", source, str(place.folder / "out.csv")).code == 0
    refused(run("decisions", "list"), 3, none)
    refused(run("decisions", "list", "--json"), 3, none)
    refused(run("decisions", "show", "0193"), 3, none)
    refused(run("replay", "0193"), 3, none)
    refused(run("replay", "--all"), 3, none)
    refused(run("keys", "rewrap"), 3, none)
    refused(run("decisions", "erase", "0193", "--reason", "asked for", "--yes"), 3, none)
    refused(run("retention", "--delete", "--yes"), 3, none)
    refused(run("database", "status"), 3, none)
    refused(run("database", "upgrade"), 3, none)

    assert not place.state.exists()


def test_results_go_to_standard_output_and_the_rest_does_not(
    run: Callable[..., Outcome], place: Place
) -> None:
    """With --json there is JSON and nothing else, whatever is told meanwhile."""
    for command in (("version",), ("settings",), ("models", "list")):
        assert run(*command, "--json").json()
    done = run("score", str(leases_file(place)), str(place.folder / "out.csv"), "--json")
    assert done.json()["rows"] == 3
    assert "scoring" in done.err


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "train", "package", "evaluate", "score", "settings", "version"),
        *("models list", "models activate", "models rollback", "decisions list", "decisions show"),
        *("decisions erase", "retention"),
        *("keys encryption", "keys signing", "keys rewrap", "database status", "database upgrade"),
        *("reviews list", "reviews summary"),
        *("audit verify", "audit checkpoint", "audit checkpoints", "audit public-key"),
        *("audit proof", "audit queue", "audit acknowledge"),
    ],
)
def test_every_command_explains_itself(run: Callable[..., Outcome], command: str) -> None:
    """What it does, in whole sentences, and each of its parameters."""
    outcome = run(*command.split(), "--help")

    assert outcome.code == 0
    assert f"credit-risk {command}" in outcome.out
    assert ("--json" in outcome.out) == (command != "serve")
    assert "``" not in outcome.out


def test_a_reader_who_goes_away_is_no_error_to_tell(place: Place) -> None:
    """As ``| head`` does, while much is still to be written and when all of it fits the pipe."""
    with closing(open_log(Settings(state_dir=place.state))) as log:
        log.append([activated(place) for _ in range(400)]).result()
    for limit in ("1", "400"):
        with subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "credit_risk.cli", "decisions", "list", "--all", "--json"),
                *("--limit", limit),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1


def activated(place: Place) -> Record:
    """A record of somebody's switch."""
    return Record(
        id=new_id(),
        kind="activation",
        time=0,
        portfolio=toys.NAME,
        request_id=new_id(),
        model_version=place.trees,
        policy_version=None,
        decision=None,
        status=None,
        body={"action": "activate", "from": place.linear, "to": place.trees},
    )


def test_what_is_not_there_ends_with_3(run: Callable[..., Outcome]) -> None:
    """A version, something to go back to, a record, a page."""
    refused(run("models", "activate", "0123456789ab"), 3, "no package 0123456789ab")
    refused(run("models", "rollback"), 3, "there is no version to go back to")
    assert run("decisions", "list", "--json").json() == []
    refused(run("decisions", "show", "0193"), 3, "no record has the id 0193")
    refused(run("replay", "0193"), 3, "no record has the id 0193")
    refused(run("replay", "--all", "--model", "0123456789ab"), 3, "no package 0123456789ab")
    refused(run("decisions", "list", "--before", "0193"), 3, "no record has the id 0193")


def test_a_mistake_of_ours_is_not_blamed_on_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another document that is not valid is another error."""

    class Document(BaseModel):
        port: int

    monkeypatch.setattr(cli, "app", lambda: Document.model_validate({"port": "x"}))

    with pytest.raises(ValidationError, match="Document"):
        cli.main()


@pytest.mark.parametrize("url", ["unknown://db/records", "sqlite://"])
def test_a_database_that_cannot_be_opened_ends_with_4(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """For everything that reads or writes records."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", url)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", new_encryption_key())

    for command in (
        ("decisions", "list"),
        ("decisions", "show", "0193"),
        ("models", "list"),
        ("models", "rollback"),
        ("serve",),
    ):
        refused(run(*command), 4)


def test_a_database_that_cannot_be_made_ends_with_4(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what would make it; who only reads finds no records there."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", "sqlite:////dev/null/records.db")

    refused(run("models", "rollback"), 4)
    refused(run("serve"), 4)
    refused(run("decisions", "list"), 3, "no records yet: /dev/null/records.db does not exist")
    assert run("models", "list").code == 0


def test_a_file_that_is_no_database_ends_with_4(run: Callable[..., Outcome], place: Place) -> None:
    """And is left as it is."""
    place.state.mkdir()
    file = place.state / "records.db"
    file.write_bytes(b"These are notes of mine, and no records at all.\n" * 100)

    refused(run("decisions", "list"), 4, "not a database")
    assert file.read_bytes().startswith(b"These are notes")


def test_a_database_of_somebody_elses_ends_with_4(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Its table of the same name has other columns."""
    place.state.mkdir()
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("CREATE TABLE records (title TEXT, artist TEXT)")

    assert run("decisions", "list").code == 4


def test_a_state_directory_that_cannot_be_made_ends_with_1(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line that names the place."""
    (place.folder / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("STATE_DIR", str(place.folder / "file" / "state"))

    refused(run("models", "activate", place.trees), 1, "Not a directory", str(place.folder))
    refused(run("serve"), 1, "Not a directory", str(place.folder))
