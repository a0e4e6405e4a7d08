"""Which clusters an agent serves; live tasks are found by cluster."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column that each agent fills when it registers next, and an index."""
    with op.batch_alter_table("container_instances") as instances:
        instances.add_column(sa.Column("clusters", sa.JSON(), nullable=True))
    live = sa.text("last_status != 'STOPPED'")
    op.create_index(
        "tasks_live_of_cluster", "tasks", ["cluster"], sqlite_where=live, postgresql_where=live
    )
