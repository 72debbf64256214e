"""`credit-risk train`, `compare`, `package`, `evaluate`: labelled rows to packages and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from credit_risk.cli.opening import check_file, chosen_portfolio, wanted_version
from credit_risk.cli.options import AsJson, DataFile, PortfolioName
from credit_risk.cli.printing import out, print_json, print_line, print_progress, steps_done, wide

if TYPE_CHECKING:
    from credit_risk.portfolio import Portfolio
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training

Step = Callable[[str], None]
"""Told of each step of what takes long, as it begins."""
Estimator = Literal[
    "xgboost", "logistic-regression", "random-forest", "gradient-boosting", "neural-network"
]


def train(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    estimator: Annotated[
        Estimator | None,
        typer.Option(help="Estimator; the portfolio's default if absent."),
    ] = None,
    ship: Annotated[
        bool,
        typer.Option(
            "--ship",
            help="Write the package among the shipped ones and make it the one served by default.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a labelled file, package it and install the package."""
    check_file(data)
    from credit_risk.training import train as training_run

    def make(chosen: Portfolio, training: Training, folder: Path, step: Step) -> Packaged:
        return training_run.train(chosen, training, data, folder, estimator=estimator, step=step)

    _make_package("train", make, portfolio_name, ship=ship, as_json=as_json)


def compare(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    estimators: Annotated[
        str | None,
        typer.Option(help="Estimators, separated by commas; all that training.yaml has if absent."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=50, help="Folds of the cross-validation.")] = 5,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder that receives the comparison as JSON, a page and plots."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate estimators on the same folds, and say which is chosen by what rule."""
    named = [_estimator(name.strip()) for name in (estimators or "").split(",") if name.strip()]
    _, chosen = chosen_portfolio(portfolio_name)
    check_file(data)
    from credit_risk.training import comparison
    from credit_risk.training import settings as training_settings

    training = training_settings.load(chosen)
    with steps_done() as step:
        compared = comparison.compare(
            chosen, training, data, estimators=named or None, folds=folds, step=step
        )
    result = compared.result
    if report is not None:
        from credit_risk.training import comparison_report

        comparison_report.write(compared, report)
    for name, why in result.left_out.items():
        print_progress(f"left out: {name} ({why})")
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    print_line(
        f"{result.portfolio}: {result.rows:,} rows, {result.defaults:,} defaults, "
        f"{result.folds} folds"
    )
    wide.print(comparison.table(result))
    print_line(f"chosen: {result.chosen}: {result.because}")
    if report is not None:
        print_line(f"report: {report / 'comparison.md'}")


def _estimator(name: str) -> Estimator:
    for known in get_args(Estimator):
        if name == known:
            return cast("Estimator", known)
    msg = f"no such estimator; there are {', '.join(get_args(Estimator))}"
    raise typer.BadParameter(msg, param_hint="--estimators")


def package_command(
    file: Annotated[Path, typer.Argument(help="Fitted scikit-learn pipeline: .joblib or .skops.")],
    data: DataFile,
    portfolio_name: PortfolioName = None,
    run_pickle_code: Annotated[
        bool,
        typer.Option(
            "--run-pickle-code",
            help="Load FILE although it is a pickle, which RUNS WHATEVER CODE IS IN IT.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap your own fitted pipeline as a package of a portfolio, and install it.

    The pipeline takes a frame of the portfolio's fields and predicts the classes 0 and 1. The
    data should be rows it was not fitted on: figures and reference group come from them.
    """
    check_file(file)
    check_file(data)
    from credit_risk.training import wrapping

    def make(chosen: Portfolio, training: Training, folder: Path, step: Step) -> Packaged:
        return wrapping.wrap(
            chosen, training, file, data, folder, run_pickle_code=run_pickle_code, step=step
        )

    _make_package("package", make, portfolio_name, ship=False, as_json=as_json)


def evaluate(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    version: Annotated[
        str | None, typer.Option("--model-version", help="Package; the active one if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a labelled raw file with the active package and print the figures."""
    settings, chosen = chosen_portfolio(portfolio_name)
    check_file(data)
    from credit_risk.serving.store import Store
    from credit_risk.training import evaluation
    from credit_risk.training import settings as training_settings
    from credit_risk.training import train as training_run

    store = Store(settings)
    package = store.load(settings.portfolio, version or wanted_version(settings, store))
    result = training_run.evaluate_package(package, training_settings.load(chosen), data)
    if as_json:
        print_json(result)
        return
    print_line(
        f"{package.portfolio} {package.version}: {result['rows_scored']:,} of "
        f"{result['rows_read']:,} rows scored"
    )
    for reason, rows in result["rows_not_scored"].items():
        print_line(f"  not scored: {rows:,} rows, {reason}")
    for reason, values in result["values_set_to_missing"].items():
        print_line(f"  mended: {values:,} values, {reason}")
    if result["same_file_as_training"]:
        print_line(
            "  warning: the package was trained on this very file, so these figures flatter it; "
            "its card has those of rows that were held out"
        )
    known = {k: v for k, v in result.items() if k in evaluation.Evaluation.model_fields}
    out.print(evaluation.table(evaluation.Evaluation.model_validate(known)))


def _make_package(
    command: str,
    make: Callable[[Portfolio, Training, Path, Step], Packaged],
    portfolio_name: str | None,
    *,
    ship: bool,
    as_json: bool,
) -> None:
    """Make a package under a progress display, install, register and report the result."""
    settings, chosen = chosen_portfolio(portfolio_name)
    from credit_risk.serving.store import DEFAULT, Store
    from credit_risk.training import evaluation, tracking
    from credit_risk.training import settings as training_settings

    name = settings.portfolio
    training = training_settings.load(chosen)
    folder = settings.packages_dir if ship else settings.state_dir / "packages"
    with tracking.begun(name, command) as run:
        with steps_done() as step:
            made = make(chosen, training, folder, step)
        Store(settings).add(made.path)
        if ship:
            default = settings.packages_dir / name / DEFAULT
            default.write_text(f"{made.version}\n", encoding="utf-8")
        registered = None if run is None else run.register(made.path)
    for warning in made.warnings:
        print_progress(f"warning: {warning}")
    if as_json:
        print_json(
            {
                "portfolio": name,
                "version": made.version,
                "path": str(made.path.absolute()),
                "hold_out": made.evaluation.model_dump(mode="json"),
                "fidelity": made.fidelity,
                "directions": {name: kept.model_dump() for name, kept in made.kept.items()},
                "largest_difference_from_pipeline": made.largest_difference,
                "registered": None if registered is None else asdict(registered),
            }
        )
        return
    out.print(evaluation.table(made.evaluation))
    print_line(f"package {made.version} is installed; its card: {made.path / 'card.md'}")
    if registered is not None:
        print_line(f"registered: version {registered.number} of {registered.name}")
    print_line(f"to serve it: credit-risk models activate {made.version} --portfolio {name}")
