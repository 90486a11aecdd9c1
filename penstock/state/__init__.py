"""Penstock's state in PostgreSQL: embedded by default, external by PENSTOCK_DATABASE_URL."""
