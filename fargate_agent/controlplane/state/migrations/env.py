"""Alembic's entry: runs migrations over the connection that `schema` gives it."""

from alembic import context

from fargate_agent.controlplane.state.model import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite can't alter a table in place
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
