"""
Dagster's PostgreSQL storage, without a look into PostgreSQL's catalogue at every look at a run.

`SqlRunStorage` asks, each time it reads or updates a run, whether the table has two columns that a migration
of 2022 added: 4 ms, seven times in a short run and as often in a launch. In `dagster.yaml`:

    storage:
      custom: {module: definitions.storage, class: PostgresStorage, config: {postgres_url: …}}
"""

from typing import Any

from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresRunStorage
from dagster_postgres.utils import pg_url_from_config


class RunStorage(PostgresRunStorage):
    """Remembers that a migration was made; columns do not go away."""

    _migrated = False

    def has_run_stats_index_cols(self) -> bool:
        """Whether runs have start and end times."""
        self._migrated = self._migrated or super().has_run_stats_index_cols()
        return self._migrated


class PostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` by URL, with that run storage."""

    def __init__(self, postgres_url: str, **options: Any) -> None:
        super().__init__(postgres_url, **options)
        self._run_storage = RunStorage(postgres_url, should_autocreate_tables=False)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "PostgresStorage":
        """As Dagster makes what `dagster.yaml` names; `postgres_url` or `postgres_db`."""
        create = config_value.get("should_autocreate_tables", True)
        return cls(pg_url_from_config(config_value), should_autocreate_tables=create, inst_data=inst_data)
