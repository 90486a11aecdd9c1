"""What a plugin's metrics are called in SQL: a view for each that its manifest declares, in the warehouse."""

from penstock.plugins.data.views import DeclaredMetric, define_views, drop_views
from penstock.plugins.manifest import Manifest
from penstock.settings import Settings
from penstock.warehouse import Warehouse
from penstock.warehouse.home import warehouse_location


def declared_metrics(manifest: Manifest) -> tuple[DeclaredMetric, ...]:
    """Raises: InputError for names that make no view."""
    return tuple(
        DeclaredMetric(
            plugin=manifest.name,
            name=name,
            unit=schema.get("unit"),
            kind=schema.get("kind", "gauge"),
            type=schema.get("type", "number"),
            description=str(schema.get("description", "")),
        )
        for name, schema in manifest.metrics.items()
    )


def define_metrics(settings: Settings, manifest: Manifest) -> tuple[str, ...]:
    """Make the views, or make them anew. Returns: their names. Raises: PlatformError when the warehouse is away."""
    if not manifest.metrics:
        return ()
    with Warehouse(warehouse_location(settings)) as warehouse:
        return define_views(warehouse, declared_metrics(manifest))


def drop_metrics(settings: Settings, manifest: Manifest) -> None:
    """Remove the views; what was told stays in `plugin_metrics`."""
    if manifest.metrics:
        with Warehouse(warehouse_location(settings)) as warehouse:
            drop_views(warehouse, declared_metrics(manifest))
