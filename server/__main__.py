"""The command `python -m server`."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence

import uvicorn
from prometheus_client import CollectorRegistry, disable_created_metrics

from oodserve.errors import ConfigurationError, OodserveError
from server import logs
from server.app import create_app
from server.draining import Drain, DrainingServer
from server.protocol import BoundedHttpProtocol
from server.settings import Settings, parse

LOG = logging.getLogger("server")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until told to stop; returns the exit status: 0 done, 1 failed, 2 usage."""
    try:
        settings = parse(argv, environ)
    except ConfigurationError as error:
        sys.stderr.write(f"python -m server: {error}\n")
        return 2
    logs.configure(settings.log_level)
    LOG.info("starting", extra={"fields": {"settings": settings.describe()}})
    # One series more for each labelled counter and histogram, which nothing here reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    drain = Drain()
    try:
        app = create_app(settings, registry=CollectorRegistry(), drain=drain)
        listener = _listen(settings)
    except OodserveError as error:
        LOG.error("cannot start", extra={"fields": {"error": str(error)}})
        return 1
    config = uvicorn.Config(
        app,
        # uvloop wherever there is one.
        loop="auto",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=settings.backlog,
        # uvicorn declares whole seconds, and hands both on to timers that take any number.
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.drain_timeout_s,  # type: ignore[arg-type]
    )
    DrainingServer(config, settings=settings, drain=drain).run(sockets=[listener])
    return 1 if drain.abandoned else 0


def _listen(settings: Settings) -> socket.socket:
    """Return a bound socket, so that a port in use is an error before anything is loaded."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on `{settings.host}` port {settings.port} ({error.strerror}); "
            "choose others with `--host` and `--port`"
        ) from error
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
