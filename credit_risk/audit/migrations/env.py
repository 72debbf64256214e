"""Alembic's way in: runs migrations on the connection, and in the transaction, it is given."""

from __future__ import annotations

from alembic import context

from credit_risk.audit.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite alters tables by making them anew.
    render_as_batch=True,
)
context.run_migrations()
