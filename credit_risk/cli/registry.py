"""`credit-risk registry`: what the model registry says, and moving its aliases."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.table import Table

from credit_risk.cli.opening import chosen_portfolio, wanted_version
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress, wide
from credit_risk.errors import PackageNotFound, RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.audit.records import Record
    from credit_risk.serving.registry import Registry
    from credit_risk.serving.store import Store
    from credit_risk.settings import Settings

T = TypeVar("T")

ALIAS_SECONDS = 20.0
"""The registry has so long to move an alias, where nobody is in a hurry."""
PASSED = "passed"
"""The validation status of what the gate let decide."""
NONE = "there is no registry: CREDIT_RISK_REGISTRY_URI is not set"

app = typer.Typer(no_args_is_help=True, help="The model registry, an MLflow server.")


@app.command()
def status(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """List the portfolio's versions in the registry, with their aliases, and which decides here."""
    settings, _ = chosen_portfolio(portfolio_name)
    from credit_risk.manifest import STATUS_TAG, VERSION_TAG
    from credit_risk.serving.following import ALIASES
    from credit_risk.serving.store import Store

    name = settings.portfolio
    with contextlib.closing(_registry(settings)) as registry:
        named = {alias: registry.aliased(name, alias) for alias in ALIASES}
        versions = list(registry.versions(name))
    store = Store(settings)
    try:
        decides = wanted_version(settings, store)
    except PackageNotFound:
        decides = None
    held = [[a for a, v in named.items() if v and v.number == one.number] for one in versions]
    if as_json:
        rows = [
            {
                "number": one.number,
                "package": one.tags.get(VERSION_TAG),
                "aliases": aliases,
                "status": one.tags.get(STATUS_TAG),
                "decides": one.tags.get(VERSION_TAG) == decides,
            }
            for one, aliases in zip(versions, held, strict=True)
        ]
        print_json({"portfolio": name, "decides": decides, "versions": rows})
        return
    table = Table("number", "package", "aliases", "status", "decides", box=None)
    for one, aliases in zip(versions, held, strict=True):
        package = one.tags.get(VERSION_TAG, "not ours")
        mark = "*" if package == decides else ""
        table.add_row(one.number, package, " ".join(aliases), one.tags.get(STATUS_TAG), mark)
    wide.print(table, highlight=False)


@app.command()
def move(
    version: Annotated[str, typer.Argument(help="Package that the alias is to stand for.")],
    alias: Annotated[
        Literal["champion", "challenger"], typer.Option(help="Which alias.")
    ] = "champion",
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Have an alias of the registry stand for a package; servers that follow it switch."""
    settings, _ = chosen_portfolio(portfolio_name)
    from credit_risk.serving.registry import move_alias

    number = move_alias(settings, version, alias)
    if number is None:
        raise RegistryUnavailable(NONE)
    if as_json:
        print_json({"portfolio": settings.portfolio, "alias": alias, "number": number})
    else:
        print_line(f"{settings.portfolio}: {alias} is {version} now, version {number} there")


def move_along(
    settings: Settings,
    log: SqlAuditLog,
    store: Store,
    record: Record,
    seconds: float = ALIAS_SECONDS,
) -> None:
    """Have the champion's alias be what was activated; who decides does not depend on it.

    The approvers' signatures of the package go there with it, and that the gate let it decide.

    Args:
        settings: whose portfolio.
        log: where it is noted.
        store: where the package is.
        record: the activation.
        seconds: nobody waits longer for the registry.
    """
    if settings.registry_uri is None:
        return
    from credit_risk.serving import activation
    from credit_risk.serving.registry import CHAMPION, move_alias

    version, sha256 = record.body["to"], record.body["package_sha256"]
    signed = activation.signers(settings, log, store, version, sha256).by.values()
    passed = PASSED if record.body["action"] == "promote" else None
    asking = partial(move_alias, settings, version, signatures=signed, status=passed)
    try:
        number = _within(seconds, asking)
    except (PackageNotFound, RegistryUnavailable) as error:
        print_progress(
            f"warning: alias champion of the registry was not moved: {error}; to move it, "
            f"credit-risk registry move {version}"
        )
        return
    if number is not None:
        where = {"name": settings.portfolio, "version": number, "alias": CHAMPION}
        activation.note_followed(log, record, where)
    print_progress(f"alias champion of the registry is version {number} now")


def _within(seconds: float, asking: Callable[[], T]) -> T:
    """What the registry answers, whatever takes its time.

    Of a name that is looked up, and of an answer that trickles in, no client limits the time. So
    another thread waits for it, and ends with the process.

    Raises:
        RegistryUnavailable: it takes longer.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(asking())
        except BaseException as error:  # noqa: BLE001 - whoever waits has it
            answer.set_exception(error)

    Thread(target=ask, name="registry", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise RegistryUnavailable(f"it took longer than {seconds:g} s") from error


def _registry(settings: Settings) -> Registry:
    from credit_risk.serving import registry

    found = registry.connect(settings)
    if found is None:
        raise RegistryUnavailable(NONE)
    return found
