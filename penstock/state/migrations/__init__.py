"""Alembic revisions, one file each, numbered; `HEAD` is the newest."""

HEAD = "0002"
