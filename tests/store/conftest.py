"""This room's tests run on both kinds of database."""

from __future__ import annotations

from tests.both_databases import database_kind, pytest_generate_tests, tmp_path

__all__ = ["database_kind", "pytest_generate_tests", "tmp_path"]
