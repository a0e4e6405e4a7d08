"""What tasks have used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table that agents fill every 20 seconds."""
    op.create_table(
        "task_metrics",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "at"),
    )
    op.create_index("task_metrics_by_time", "task_metrics", ["at"])
