"""Dagster resources: they open what `penstock` offers."""
