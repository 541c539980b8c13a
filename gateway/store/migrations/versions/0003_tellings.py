"""Who was told of what within the hour, and what came since

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op


revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('tellings',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('told', sa.Double(), nullable=False),
    sa.Column('about', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_tellings'))
    )
    with op.batch_alter_table('tellings', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_tellings_told'), ['told'], unique=False)
    op.create_table('untold',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('writer', sa.String(length=36), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('first', sa.Double(), nullable=False),
    sa.Column('last', sa.Double(), nullable=False),
    sa.Column('sample', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', 'writer', name='pk_untold')
    )
