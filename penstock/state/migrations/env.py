"""Alembic's entry: runs on the connection that `penstock.state.database` hands in."""

from alembic import context

from penstock.state.tables import projects

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=projects.metadata,
    version_table_schema="penstock",
    include_schemas=True,
)
context.run_migrations()
