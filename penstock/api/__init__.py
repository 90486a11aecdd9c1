"""Penstock's own HTTP API: for the command line, the dashboards, hooks and other people's programs."""
