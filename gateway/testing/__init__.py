"""Shipped fakes (first part)."""
