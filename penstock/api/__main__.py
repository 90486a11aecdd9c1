"""`python -m penstock.api`: serve until SIGTERM."""

import logging
import os

import uvicorn

from penstock.api.app import create_app
from penstock.api.limits import load_limits
from penstock.settings import load_settings


def main() -> None:
    """Listen where the settings say; loopback, unless TLS is set up."""
    settings = load_settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(
        create_app(settings, load_limits(os.environ)),
        host=settings.host,
        port=settings.ports["api"],
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
