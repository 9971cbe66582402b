"""What outlives a reload of request handling: the engine, the tokenizer, the queue, the counters.

    start(settings)     # in init(): loads in the background, while / and /readyz say so
    app()               # request handling as it is now; watch.py replaces it

This module, what it imports at its top and serve/engine/ stay as they were loaded; all other
modules of serve/ are imported by name inside build(), so that a reload gets new ones.
"""

import atexit
import gc
import importlib
import logging
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from serve import startup
from serve.admission import Admission
from serve.errors import StartupError
from serve.kept import Kept
from serve.metrics import Metrics
from serve.settings import Settings

log = logging.getLogger("azmlinfsrv.serve")


class App(Protocol):
    """Request handling: routes.App."""

    def handle(self, request: Any) -> Any:
        """Answer one Flask request."""

    def warm_up(self) -> float:
        """Seconds that a first answer took; StartupError where there is none."""


_kept: Kept | None = None
_app: App | None = None
_started = time.monotonic()


def start(settings: Settings) -> None:
    """Load in a thread of its own, so that the server answers probes meanwhile."""
    threading.Thread(target=_load_or_end, args=(settings,), name="load", daemon=True).start()


def app() -> App | None:
    """None while the weights load."""
    return _app


def metrics() -> Metrics | None:
    """None while the weights load."""
    return None if _kept is None else _kept.metrics


def loading_seconds() -> float:
    return time.monotonic() - _started


def build(kept: Kept) -> App:
    """Request handling of the modules as they are now."""
    made: App = importlib.import_module("serve.routes").App(kept)
    return made


def rebuild() -> None:
    """Put request handling of the modules as they are now in the place of the present one."""
    global _app
    if _kept is None:
        raise RuntimeError("nothing is loaded yet")
    _app = build(_kept)


def _load_or_end(settings: Settings) -> None:
    global _app, _kept
    try:
        _kept = load(settings)
        made = build(_kept)
        log.info("first answer after %.2f s", made.warm_up())
        if settings.watch:  # before the first answer, so that no edit after it is missed
            importlib.import_module("serve.watch").start()
        # what is loaded stays: going over all of it for garbage stopped every thread for a second
        gc.collect()
        gc.freeze()
        _app = made
        log.info("serving %s %s", _kept.model.name, _kept.engine_name)
    except StartupError as error:
        startup.fail(str(error))
    except BaseException:  # a bug: its traceback, and no server that never becomes ready
        log.exception("the server cannot start")
        startup.fail("the server cannot start; the traceback above is a bug.")


def _temporary_folder() -> str:
    """For what an engine makes of the weights: as long as the server runs, so for restarts too."""
    folder = tempfile.mkdtemp(prefix="homeport-engine-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(settings: Settings) -> Kept:
    """Find the model, choose how to run it, load it; StartupError in one sentence."""
    from serve import choices, engine, model, prompt
    from serve.engine import environments, hardware
    from serve.engine.supervisor import Supervisor

    found = model.find(settings.model, adapters=settings.adapters)
    if settings.context:
        found = replace(found, context=min(settings.context, found.context))
    log.info("model folder: %s (%.1fM parameters)", found.root, found.parameters / 1e6)
    tokenizer = prompt.load_tokenizer(found.tokenizer)
    chosen = choices.choose(settings, hardware.probe(), found)
    spec = engine.EngineSpec(
        engine=chosen.engine.value,
        root=found.root,
        device=chosen.device.value,
        dtype=chosen.dtype.value,
        concurrency=settings.max_concurrent,
        context=found.context,
        adapters=found.adapters,
        cache=Path(settings.engine_cache or _temporary_folder()),
    )
    log.info("loading the weights %s", chosen)
    try:
        loaded = Supervisor(spec, python=str(environments.python(spec.engine)))
    except StartupError as error:
        if settings.engine != "auto" or spec.engine == choices.FALLBACK:
            raise
        fallback = choices.Choice(value=choices.FALLBACK, reason=f"{spec.engine} said: {error}")
        chosen = replace(chosen, engine=fallback)
        log.warning("loading the weights again %s", chosen)
        spec = replace(spec, engine=choices.FALLBACK)
        loaded = Supervisor(spec, python=str(environments.python(spec.engine)))
    info = loaded.info
    log.info("loaded in %.1f s by %s, %s", info.load_seconds, info.version, info.attention)
    admission = Admission(running=settings.max_concurrent, waiting=settings.max_queue)
    return Kept(
        settings=settings,
        model=found,
        tokenizer=tokenizer,
        engine=loaded,
        engine_name=str(chosen),
        admission=admission,
        metrics=Metrics(
            load=lambda: admission.load, engine=lambda: (not loaded.state, loaded.restarts)
        ),
    )
