"""Penstock: CI/CD whose every output is a data asset."""

__version__ = "0.1.0"
