"""Tables of record databases made as their migrations made them first: in a few milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import command

if TYPE_CHECKING:
    from alembic.config import Config

_MADE: dict[str, list[tuple[str, Any]]] = {}
"""The statements of all migrations on an empty database, by the kind of database."""
_CHANGES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE")
_upgrade = command.upgrade


def upgrade(config: Config, revision: str) -> None:
    """Alembic's `command.upgrade`; what it did to an empty database is done to the next ones.

    It reads and compiles every migration anew each time, which takes longer than most tests.
    """
    connection: sa.Connection = config.attributes["connection"]
    kind = connection.dialect.name
    if revision != "head" or sa.inspect(connection).get_table_names():
        _upgrade(config, revision)
    elif kind in _MADE:
        for statement, parameters in _MADE[kind]:
            connection.exec_driver_sql(statement, parameters)
    else:
        _MADE[kind] = _watched(connection, config)


def _watched(connection: sa.Connection, config: Config) -> list[tuple[str, Any]]:
    """Run all migrations; what they changed, statement by statement."""
    seen: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, *more: Any) -> None:  # noqa: ANN401 - the driver's
        if statement.lstrip().startswith(_CHANGES):
            seen.append((statement, more[0] or None))

    sa.event.listen(connection, "before_cursor_execute", keep)
    _upgrade(config, "head")
    sa.event.remove(connection, "before_cursor_execute", keep)
    return seen
