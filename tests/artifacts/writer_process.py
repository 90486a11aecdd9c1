"""Stores blobs for ever until somebody kills it: `writer_process.py LOCATION SOURCE`. Prints a line when it begins."""

import os
import sys
from pathlib import Path

from penstock.artifacts import open_store


def main(location: str, source: Path) -> None:
    """Each round another file, folder or run of chunks, so that each is written."""
    store, number = open_store(location), 0
    print("begun", flush=True)
    while True:
        number += 1
        (source / "file").write_bytes(os.urandom(64) + number.to_bytes(8, "big") * 2_000_000)
        if number % 3 == 0:
            store.put_file(source / "file")
        elif number % 3 == 1:
            store.put_tree(source)
        else:
            store.put_chunks(os.urandom(1_000_000) for _ in range(20))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
