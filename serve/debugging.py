"""A debugger can attach to the running server, where SERVE_DEBUG_PORT says so (`make local-debug`).

The worker process listens, since score.py and all request handling run in it; the engine process is
left alone. debugpy is not part of the serve image: it is in the image's target `debug`, and in the
virtual environment once `make local-debug` has put it there. PATHS_FROM_ECLIPSE_TO_PYTHON, which
debugpy itself reads, says which folder of the editor is which folder here.
"""

import logging
import time

from serve.settings import Settings

log = logging.getLogger("azmlinfsrv.serve")

PORT_SECONDS = 10.0
"""A worker that takes the place of a dead one waits so long for the port of the one before."""


def listen(settings: Settings) -> None:
    """In the worker, once score.py is there; without debugpy or a port the server goes on."""
    try:
        import debugpy
    except ImportError:
        log.error("no debugger can attach: debugpy is not installed; next: make local-debug")
        return
    debugpy.configure(subProcess=False)
    end = time.monotonic() + PORT_SECONDS
    while True:
        try:
            debugpy.listen((settings.debug_host, settings.debug_port))
        except RuntimeError as error:
            if time.monotonic() > end:
                log.error("no debugger can attach to port %d: %s", settings.debug_port, error)
                return
            time.sleep(0.5)
        else:
            log.info("a debugger can attach to port %d", settings.debug_port)
            return
