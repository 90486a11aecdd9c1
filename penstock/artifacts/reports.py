"""Raw reports of scans and lists of components that the warehouse refers to: from them its tables are built again."""

from penstock.errors import NotFoundError
from penstock.settings import Settings

_REFERRED = """
SELECT report_sha256 FROM scans WHERE report_sha256 IS NOT NULL
UNION SELECT report_sha256 FROM ingest_errors WHERE report_sha256 IS NOT NULL
UNION SELECT report_sha256 FROM sboms WHERE report_sha256 IS NOT NULL
"""


def archived_reports(settings: Settings) -> frozenset[str]:
    """
    Their digests; none where nothing was ever recorded.

    Raises: PlatformError when the warehouse does not answer: who sweeps must stop then.
    """
    from penstock.warehouse.home import warehouse_location
    from penstock.warehouse.sql import ask

    try:
        answer = ask(warehouse_location(settings), _REFERRED, limit=None)
    except NotFoundError:
        return frozenset()
    return frozenset(row[0] for row in answer.rows)
