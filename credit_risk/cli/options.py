"""Options that several commands have, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PortfolioName = Annotated[
    str | None, typer.Option("--portfolio", help="Portfolio; PORTFOLIO of the settings if absent.")
]
DataFile = Annotated[Path, typer.Option("--data", help="Labelled raw file, CSV or Parquet.")]
Done = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")]
