"""The portal: deposits and their keys, sign-in codes, sessions, counts

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op


revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    op.create_table('deposits',
    sa.Column('message', sa.String(length=36), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('handle', sa.LargeBinary(), nullable=False),
    sa.Column('typed', sa.String(length=16), nullable=False),
    sa.Column('verp', sa.String(length=32), nullable=False),
    sa.Column('key', sa.String(length=320), nullable=False),
    sa.Column('made', sa.Double(), nullable=False),
    sa.Column('expires', sa.Double(), nullable=False),
    sa.Column('ends', sa.Double(), nullable=True),
    sa.Column('needs', sa.String(length=16), nullable=False),
    sa.Column('notice', sa.String(length=36), nullable=True),
    sa.Column('noticed', sa.Double(), nullable=True),
    sa.Column('notice_tls', sa.String(length=16), nullable=True),
    sa.Column('phrase', sa.LargeBinary(), nullable=True),
    sa.Column('opened', sa.Double(), nullable=True),
    sa.Column('recalled', sa.Double(), nullable=True),
    sa.Column('reminded', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['message'], ['messages.id'], name=op.f('fk_deposits_message')),
    sa.PrimaryKeyConstraint('message', 'n', name=op.f('pk_deposits'))
    )
    with op.batch_alter_table('deposits', schema=None) as batch_op:
        batch_op.create_index('ix_deposits_handle', ['handle'], unique=False)
        batch_op.create_index('ix_deposits_typed', ['typed'], unique=False)
        batch_op.create_index('ix_deposits_verp', ['verp'], unique=False)
        batch_op.create_index('ix_deposits_key', ['key', 'message'], unique=False)
        batch_op.create_index('ix_deposits_ends', ['ends'], unique=False,
            sqlite_where=sa.text('ends IS NOT NULL'), postgresql_where=sa.text('ends IS NOT NULL'))
        batch_op.create_index('ix_deposits_there', ['message'], unique=False,
            sqlite_where=sa.text('ends IS NOT NULL'), postgresql_where=sa.text('ends IS NOT NULL'))
        batch_op.create_index('ix_deposits_notice', ['notice'], unique=False,
            sqlite_where=sa.text('notice IS NOT NULL'), postgresql_where=sa.text('notice IS NOT NULL'))
    op.create_table('deposit_keys',
    sa.Column('id', _LONG, autoincrement=True, nullable=False),
    sa.Column('message', sa.String(length=36), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('ring_key', sa.Integer(), nullable=True),
    sa.Column('data_key', sa.LargeBinary(), nullable=True),
    sa.ForeignKeyConstraint(['message'], ['messages.id'], name=op.f('fk_deposit_keys_message')),
    sa.ForeignKeyConstraint(['ring_key'], ['ring_keys.id'], name=op.f('fk_deposit_keys_ring_key')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deposit_keys'))
    )
    with op.batch_alter_table('deposit_keys', schema=None) as batch_op:
        batch_op.create_index('ix_deposit_keys_message', ['message', 'n'], unique=False)
        batch_op.create_index('ix_deposit_keys_ring_key', ['ring_key'], unique=False,
            sqlite_where=sa.text('ring_key IS NOT NULL'), postgresql_where=sa.text('ring_key IS NOT NULL'))
    op.create_table('portal_codes',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('key', sa.String(length=320), nullable=False),
    sa.Column('address', sa.String(length=320), nullable=False),
    sa.Column('browser', sa.LargeBinary(), nullable=False),
    sa.Column('message', sa.String(length=36), nullable=True),
    sa.Column('n', sa.Integer(), nullable=True),
    sa.Column('reference', sa.String(length=8), nullable=False),
    sa.Column('code', sa.LargeBinary(), nullable=False),
    sa.Column('made', sa.Double(), nullable=False),
    sa.Column('expires', sa.Double(), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('mail', sa.String(length=36), nullable=False),
    sa.Column('assurance', sa.String(length=16), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_portal_codes'))
    )
    with op.batch_alter_table('portal_codes', schema=None) as batch_op:
        batch_op.create_index('ix_portal_codes_browser', ['browser'], unique=False)
        batch_op.create_index(batch_op.f('ix_portal_codes_expires'), ['expires'], unique=False)
        batch_op.create_index(batch_op.f('ix_portal_codes_mail'), ['mail'], unique=False)
    op.create_table('portal_sessions',
    sa.Column('id', sa.LargeBinary(), nullable=False),
    sa.Column('key', sa.String(length=320), nullable=False),
    sa.Column('address', sa.String(length=320), nullable=False),
    sa.Column('level', sa.String(length=16), nullable=False),
    sa.Column('told', sa.Text(), nullable=False),
    sa.Column('made', sa.Double(), nullable=False),
    sa.Column('seen', sa.Double(), nullable=False),
    sa.Column('ends', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_portal_sessions'))
    )
    with op.batch_alter_table('portal_sessions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_portal_sessions_ends'), ['ends'], unique=False)
    op.create_table('portal_counts',
    sa.Column('key', sa.LargeBinary(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('ends', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_portal_counts'))
    )
    with op.batch_alter_table('portal_counts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_portal_counts_ends'), ['ends'], unique=False)
