"""The `penstock` command: one file for each group of commands, put together by `registry`."""

import sys


def main() -> None:
    """The entry point. Its imports are inside, so that Ctrl-C while modules load is no traceback either."""
    try:
        from penstock.cli.registry import call

        sys.exit(call())
    except KeyboardInterrupt:
        sys.exit(130)
