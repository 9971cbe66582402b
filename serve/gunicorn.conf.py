"""How gunicorn runs the inference server: threads, drain and address (GUNICORN_CMD_ARGS=-c this).

The inference server's own command line outranks this file in three settings, and --bind is one of
them: always 0.0.0.0. So the address is set when gunicorn is about to make its socket.
"""

import os
import shutil
import sys
import tempfile
from typing import Any

from serve import startup
from serve.settings import Settings

settings = Settings.from_env()

worker_class = "serve.worker.Worker"
threads = settings.threads
graceful_timeout = settings.drain_seconds
keepalive = 75
forwarder_headers = ""  # a client on this machine may not say SCRIPT_NAME or PATH_INFO by a header
control_socket_disable = True  # it would write below the home folder
if os.access("/dev/shm", os.W_OK):  # noqa: S108 - gunicorn's heartbeat file, which a slow disk would stall
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - as above


def on_starting(server: Any) -> None:
    """Before the socket is made. The command line is changed too, since a reload reads it again."""
    server.cfg.set("bind", [settings.bind])
    for index, argument in enumerate(sys.argv[:-1]):
        if argument == "-b":
            sys.argv[index + 1] = settings.bind
    if not settings.engine_cache:  # here and not in a worker, so that it outlives one
        os.environ["SERVE_ENGINE_CACHE"] = tempfile.mkdtemp(prefix="homeport-engine-")
    startup.listen()


def post_worker_init(worker: Any) -> None:
    if settings.debug_port:
        from serve import debugging

        debugging.listen(settings)


def on_exit(server: Any) -> None:
    if not settings.engine_cache:
        shutil.rmtree(os.environ.get("SERVE_ENGINE_CACHE", ""), ignore_errors=True)
    startup.last_words()
