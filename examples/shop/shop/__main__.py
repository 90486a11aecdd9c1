"""`python3 -m shop`: serve on $HOST:$PORT until told to end. `python3 -m shop --check` only loads everything."""

import os
import signal
import sys
import threading
from pathlib import Path

from shop.catalogue import load_catalogue
from shop.server import ShopServer

VERSION = Path(__file__).with_name("version.txt")


def version() -> str:
    """The commit that this was packaged from."""
    return VERSION.read_text().strip() if VERSION.exists() else "dev"


def main() -> None:
    catalogue = load_catalogue()
    if "--check" in sys.argv[1:]:
        print(f"shop {version()}: {len(catalogue)} products")
        return
    # A weakness on purpose: without $HOST it listens on every network of the machine.
    host = os.environ.get("HOST", "0.0.0.0")
    server = ShopServer((host, int(os.environ.get("PORT", "8000"))), catalogue, version())
    # shutdown() waits for the loop that this very thread runs, so another has to call it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"shop {version()} on http://{host}:{server.server_port}", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
