"""`credit-risk promote`: a candidate becomes the package that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from credit_risk.cli.opening import chosen_portfolio, log_and_store
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, wide
from credit_risk.cli.registry import move_along

if TYPE_CHECKING:
    from credit_risk.promotion import Criterion
    from credit_risk.serving.promoting import Examination


def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An installed package.")],
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is missing; nothing is put on record.")
    ] = False,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Have a candidate decide that shows what the portfolio asks for, once enough people approve.

    The portfolio's promotion.yaml says what that is. What came of it is put on record, also where
    it is refused. Running servers switch by themselves.

    Exit code 1: it does not decide, as it fails a criterion or lacks approvals.
    """
    settings, _ = chosen_portfolio(portfolio_name)
    with log_and_store(settings) as (log, store):
        from credit_risk.serving import promoting

        examined = promoting.examine(settings, log, store, version)
        record = activated = None
        if not check:
            record, activated = promoting.promote(settings, log, store, examined)
        told = {
            "outcome": examined.outcome,
            "candidate": examined.candidate,
            "champion": examined.champion,
            "judgement": examined.judgement.model_dump(mode="json"),
            "approvals": {
                "required": examined.policy.approvals,
                "given": examined.approved.key_ids,
            },
            "lacking": examined.lacking,
            "record": None if record is None else record.id,
            "activation": None if activated is None else activated.id,
        }
        if as_json:
            print_json(told)
        else:
            _print(settings.portfolio, examined, told)
        if activated is not None:
            move_along(settings, log, store, activated)
    if examined.outcome != "PROMOTED":
        raise typer.Exit(1)


def _print(name: str, examined: Examination, told: dict[str, Any]) -> None:
    table = Table("", "criterion", "shown", "asked for", "of", box=None)
    for c in examined.judgement.criteria:
        shown = "" if c.value is None else f"{c.value:.4g}"
        table.add_row(c.state, c.title, shown, _limit(c), c.detail)
    wide.print(table, highlight=False, markup=False)
    print_line(f"approved by {examined.approved.told()}; {examined.policy.approvals} have to")
    if examined.outcome == "PROMOTED":
        decides = "decides from now on" if told["activation"] else "may decide"
        before = f" (before: {examined.champion})" if examined.champion else ""
        print_line(f"{name}: {examined.candidate} {decides}{before}{_recorded(told)}")
        return
    for reason in examined.judgement.reasons:
        print_line(f"refused: {reason}")
    if examined.lacking:
        print_line(
            f"lacking: {examined.lacking} more of those in the file of approvers, each with "
            f"credit-risk approve {examined.candidate} --key FILE"
        )
    decides = examined.champion or "nothing"
    print_line(f"{name}: {decides} goes on deciding{_recorded(told)}")


def _recorded(told: dict[str, Any]) -> str:
    return "" if told["record"] is None else f"; record {told['activation'] or told['record']}"


def _limit(criterion: Criterion) -> str:
    if criterion.most is not None:
        asked = f"at most {criterion.most:.4g}"
    elif criterion.least is not None:
        asked = f"at least {criterion.least:.4g}"
    else:
        return ""
    return f"{asked}, if known" if criterion.optional else asked
