"""The platform: Dagster's address for the rest of Penstock, and the processes that are one Penstock."""
