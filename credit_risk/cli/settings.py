"""`credit-risk settings` and `version`: what this program is, and what it goes by."""

from __future__ import annotations

import shlex

from pydantic import SecretStr

from credit_risk import __version__
from credit_risk.cli.options import AsJson
from credit_risk.cli.printing import print_json, print_line, without_password
from credit_risk.settings import PREFIX, Settings


def show_settings(as_json: AsJson = False) -> None:
    """Show the settings in force, as the lines of a file of environment variables."""
    settings = Settings()
    values = settings.model_dump(mode="json")
    if settings.database_url is not None:
        values["database_url"] = without_password(settings.database_url)
    if as_json:
        print_json(values)
        return
    for name, field in Settings.model_fields.items():
        value = values[name]
        print_line(f"# {field.description}")
        # Neither has a value that a shell could take from here.
        unset = "# " if value is None or isinstance(getattr(settings, name), SecretStr) else ""
        print_line(f"{unset}{PREFIX}{name.upper()}={'' if unset else shlex.quote(str(value))}")


def version(as_json: AsJson = False) -> None:
    """Print the version of this program."""
    if as_json:
        print_json({"version": __version__})
    else:
        print_line(__version__)
