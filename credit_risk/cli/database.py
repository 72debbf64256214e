"""`credit-risk database`: the tables that records are in."""

from __future__ import annotations

import typer

from credit_risk.cli.options import AsJson
from credit_risk.cli.printing import print_json, print_line, without_password
from credit_risk.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The tables of the record database.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show which record database the settings name, and whether its tables fit this version."""
    settings = Settings()
    from credit_risk.audit.database import REVISION
    from credit_risk.audit.log import revision

    found = revision(settings)
    url = without_password(settings.audit_url.render_as_string(hide_password=False))
    if as_json:
        print_json({"url": url, "revision": found, "needed": REVISION})
        return
    print_line(url)
    state = "up to date" if found == REVISION else f"this version needs {REVISION}"
    print_line(f"no tables yet; {state}" if found is None else f"revision {found}; {state}")


@app.command(name="upgrade")
def upgrade_database(as_json: AsJson = False) -> None:
    """Bring the tables of the record database up to date; all or nothing.

    Stop all servers and make a backup first: an older version refuses the database afterwards.
    """
    from credit_risk.audit.log import upgrade

    before, after = upgrade(Settings())
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        print_line(f"revision {after}: nothing to do")
    else:
        print_line(f"revision {after} (before: {before or 'none'})")
