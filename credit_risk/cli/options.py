"""Options that several commands have, and what they say."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from credit_risk.audit.records import microseconds

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PortfolioName = Annotated[
    str | None, typer.Option("--portfolio", help="Portfolio; PORTFOLIO of the settings if absent.")
]
DataFile = Annotated[Path, typer.Option("--data", help="Labelled raw file, CSV or Parquet.")]
Done = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")]


def period(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """A time from ``--since`` on and before ``--until``, both in microseconds since the epoch.

    Raises:
        typer.BadParameter: there is none between the two.
    """
    first, end = microseconds(since), microseconds(until)
    if first is not None and end is not None and end <= first:
        raise typer.BadParameter("--until is not after --since")
    return first, end
