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
    from credit_risk.audit.log import tables

    found = tables(settings)
    url = without_password(settings.audit_url.render_as_string(hide_password=False))
    if as_json:
        state = {"state": found.state, "revision": found.revision, "needed": REVISION}
        print_json({"url": url, **state, "told": f"the record database {found}"})
        return
    print_line(url)
    print_line(f"the record database {found}")


@app.command(name="upgrade")
def upgrade_database(as_json: AsJson = False) -> None:
    """Bring the tables of the record database up to date; all or nothing.

    Stop all servers and make a backup first: an older version refuses the database afterwards.
    Tables of this version that nothing says the revision of, as after some restores, get that
    mark. What cannot be upgraded is told with what to do instead.
    """
    from credit_risk.audit.log import upgrade

    before, after = upgrade(Settings())
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        print_line(f"revision {after}: nothing to do")
    else:
        print_line(f"revision {after} (before: {before or 'none'})")
