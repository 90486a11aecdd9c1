"""
What a plugin and Penstock have agreed on: places, names, exit codes and limits. docs/plugins.md tells it to people.

`penstock/sdk` holds the plugin's side; it may import nothing from here.
"""

from typing import Final

CONTRACT: Final = 1
MANIFEST: Final = "plugin.yaml"
LABEL: Final = "dev.penstock.plugin"

CI: Final = "/ci"
PLUGIN: Final = "/plugin"
INPUT, OUTPUT = "input.json", "output.json"
METRICS, DATA, PIPES = "metrics.jsonl", "data.jsonl", "pipes.jsonl"
RESULTS, ARTIFACTS, SECRETS = "results", "artifacts", "secrets"
TOKEN: Final = "penstock-data-token"
"""The file below `secrets/` with the token of the data API; no secret of a plugin's may be called so."""

DONE, FAILED, TRY_AGAIN, BAD_CONFIGURATION = 0, 1, 75, 78
"""Exit codes; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits.h."""

ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 1.0

KIB, MIB = 1024, 1024 * 1024
MANIFEST_BYTES: Final = 256 * KIB
OUTPUT_BYTES: Final = 256 * KIB
LINES_BYTES: Final = 256 * MIB
"""Of metrics.jsonl, data.jsonl and pipes.jsonl, each."""
REPORT_BYTES: Final = 64 * MIB
REPORT_FILES: Final = 32
ARTIFACT_COUNT: Final = 100
ARTIFACT_FILES: Final = 100_000
CI_BYTES: Final = 4 * 1024 * MIB
"""What a plugin may write in all; it is stopped above."""
MEMORY_BYTES: Final = 2 * 1024 * MIB
PIDS: Final = 512
DATA_PREFIX: Final = "/api/v1/plugin-data"
"""Where the data API is, below PENSTOCK_DATA_URL's host."""
