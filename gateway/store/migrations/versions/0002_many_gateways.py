"""Several gateways on one database: counters by writer, leases by gateway

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op


revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('incarnations', schema=None) as batch_op:
        batch_op.add_column(sa.Column('place', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('lease', sa.Double(), nullable=True))
    # The primary key changes: made anew, for both kinds of database, with what was counted so far.
    op.rename_table('counters', 'counters_before')
    op.create_table('counters',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('writer', sa.String(length=36), nullable=False),
    sa.Column('value', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.PrimaryKeyConstraint('name', 'writer', name='pk_counters_by_writer')
    )
    op.execute("INSERT INTO counters (name, writer, value) SELECT name, '', value FROM counters_before")
    op.drop_table('counters_before')
