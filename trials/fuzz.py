"""Ten thousand bad requests: `make fuzz [COUNT=10000] [SEED=7] [MODEL=folder]`; minutes.

    python -m trials.fuzz --help

Serves a small model on 127.0.0.1 and asks it by its own description (/swagger.json?version=3):

    schemathesis    right and wrong bodies for each operation; answers are held against the schemas
    hypothesis      changed values, broken JSON, bytes, methods, paths, queries, headers, and what
                    is not HTTP (fuzz_inputs.py)

Nothing may crash, hang or be answered 5xx, and each 4xx has our error with a sentence. A request
that fails is made as small as it goes and left in outputs/trials/fuzz-failures/, with the curl that
repeats it. Afterwards the server answers as it did before, by the same processes. The same SEED
sends the same requests. Ends with 4 where a row of the table is missed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.table import Result
from trials import environment
from trials.fuzz_send import Attempt, curl, documented, judge, send
from trials.server import Server, started
from trials.table import OUTPUTS, finish, row

HERE = Path(__file__).resolve().parent
CACHE = Path(".cache")
SETTINGS = {
    "SERVE_REQUEST_SECONDS": "20",
    "SERVE_ENGINE_CACHE": str((CACHE / "engine").absolute()),
}
SMALL_CONTEXT, CONTEXT = "96", "512"
"""So that a body that is right after all costs little; prompts take some 33 tokens of the embedded
model's, more of others."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,our_error"
)
"""Not those that hold acceptance against the schema: what follows from several fields together, and
what does not fit into the context, is refused though each field is as described."""
COVERED = 8000
"""From this many on, schemathesis also asks each edge of each field: some 5,000 requests."""
EXAMPLES_SHARE = 0.1
"""Of all requests: what it draws at random."""
GOOD = {"messages": [{"role": "user", "content": "Hello!"}], "max_new_tokens": 16}
MOST_SECONDS = 600.0
USAGE_ERROR = 2


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was asked and answered."""

    folder: Path
    """Of the requests that failed."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By operation or generator, and status."""
    failures: list[str] = field(default_factory=list)
    """What was wrong, in words."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    given = environ.get
    parser.add_argument("--count", type=int, default=given("COUNT") or "10000")
    parser.add_argument("--seed", type=int, default=given("SEED") or "7")
    parser.add_argument("--model", type=Path, default=given("MODEL") or None)
    asked = parser.parse_args()
    if not 100 <= asked.count <= 1_000_000:
        print("error: COUNT is from 100 to 1000000", file=sys.stderr)
        return USAGE_ERROR
    try:
        model = asked.model or _small_model()
        if not (model / "config.json").is_file():
            print(
                f"error: {model} has no model; leave MODEL out, or name a folder", file=sys.stderr
            )
            return USAGE_ERROR
        python = environment.ensure(HERE / "fuzz.txt")
    except environment.UnavailableError as error:
        print(f"error: trials/fuzz.txt cannot be installed: {error}", file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives this
    environ = {"SERVE_CONTEXT": CONTEXT if asked.model else SMALL_CONTEXT}
    return finish("fuzz", fuzz(model, asked.count, asked.seed, python, OUTPUTS, environ))


def fuzz(
    model: Path, count: int, seed: int, python: Path, folder: Path, environ: Mapping[str, str]
) -> list[Result]:
    """All of it; the rows of the table. The log and the failures go below `folder`."""
    seen = Seen(folder=folder / "fuzz-failures")
    shutil.rmtree(seen.folder, ignore_errors=True)
    seen.folder.mkdir(parents=True)
    with started(model, folder / "fuzz", {**SETTINGS, **environ}) as server:
        with urllib.request.urlopen(f"{server.url}/swagger.json?version=3", timeout=30) as page:  # noqa: S310 - ours
            description = json.loads(page.read())
        before = (_good(server), server.worker(), server.engine())
        say(f"serving {model} at {server.url}; its log: {server.watched.log}")
        began = time.monotonic()
        say("schemathesis asks by the description")
        _described(server, description, count, seed, python, seen)
        say(f"{seen.answers.total()} requests, {len(seen.failures)} failures")
        _own(server, description, count - seen.answers.total(), seed, seen)
        seconds = time.monotonic() - began
        after = _after(server)
        log = server.log()
    return _judged(seen, count, seconds, before, after, log)


def _described(
    server: Server, description: Any, count: int, seed: int, python: Path, seen: Seen
) -> None:
    """The schemathesis command; its report stands beside the failures where it finds something."""
    answers = (seen.folder / "answers.tsv").absolute()
    answers.touch()
    examples = max(1, round(count * EXAMPLES_SHARE / len(description["paths"])))
    phases = "examples,coverage,fuzzing" if count >= COVERED else "examples,fuzzing"
    command = [str(python.with_name("schemathesis")), "run", "--url", server.url]
    command += [f"{server.url}/swagger.json?version=3", "--checks", CHECKS, "--mode", "all"]
    command += ["--phases", phases, "--max-examples", str(examples)]
    command += ["--seed", str(seed), "--generation-database", "none", "--request-timeout", "30"]
    command += ["--no-color", "--continue-on-failure", "--output-sanitize", "false"]
    hooks = {"SCHEMATHESIS_HOOKS": str(HERE / "fuzz_described.py"), "FUZZ_SEEN": str(answers)}
    # one worker, so that the seed decides; a folder of its own, where it finds no settings
    done = subprocess.run(
        command, env={**os.environ, **hooks}, cwd=seen.folder, capture_output=True, text=True
    )
    for line in answers.read_text(encoding="utf-8").splitlines():
        operation, status = line.split("\t")
        method, path = operation.split(" ")
        described = method.lower() in description["paths"][path]
        seen.answers[operation if described else "other methods", int(status)] += 1
    answers.unlink()
    if done.returncode:
        report = seen.folder / "schemathesis.txt"
        report.write_text(done.stdout + done.stderr, encoding="utf-8")
        seen.failures.append(f"schemathesis ended with {done.returncode}: {report}")


def _own(server: Server, description: Any, count: int, seed: int, seen: Seen) -> None:
    """Each generator's share; hypothesis makes what fails as small as it goes."""
    from trials import fuzz_inputs

    generators = fuzz_inputs.kinds(description)
    left = count
    for number, (name, strategy) in enumerate(generators.items()):
        share = max(1, left // (len(generators) - number))
        left -= _generated(server, description, (name, strategy), share, seed, seen)
    attempts = fuzz_inputs.stalled(description)
    with ThreadPoolExecutor(len(attempts)) as pool:
        answers = list(pool.map(lambda attempt: send(server.port, attempt), attempts))
    for attempt, answer in zip(attempts, answers, strict=True):
        seen.answers[attempt.kind, answer.status] += 1
        if wrong := judge(attempt, answer, None):
            _keep(server, attempt, wrong, seen)


def _generated(
    server: Server, description: Any, generator: tuple[str, Any], count: int, seed: int, seen: Seen
) -> int:
    """Ask what the strategy makes, and keep what fails; how many requests were sent."""
    import hypothesis

    name, strategy = generator
    sent = 0
    failed: list[tuple[Attempt, str]] = []

    def ask(attempt: Attempt) -> None:
        nonlocal sent
        sent += 1
        answer = send(server.port, attempt)
        seen.answers[attempt.kind, answer.status] += 1
        if wrong := judge(attempt, answer, documented(description, attempt)):
            failed.append((attempt, wrong))
            raise AssertionError(wrong)

    settings = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    began = time.monotonic()
    try:
        hypothesis.seed(seed)(settings(hypothesis.given(strategy)(ask)))()  # type: ignore[no-untyped-call]
    except (AssertionError, OSError) as error:
        if not failed:  # there is no server any more
            seen.failures.append(f"{name}: {error}")
        else:
            _keep(server, *failed[-1], seen)
    say(f"{name}: {sent} requests in {time.monotonic() - began:.0f} s")
    return sent


def _keep(server: Server, attempt: Attempt, wrong: str, seen: Seen) -> None:
    """The request as a file, and the command that repeats it."""
    seen.failures.append(f"{attempt.kind}: {wrong}")
    name = f"{len(seen.failures):02}-{attempt.kind.replace(' ', '-')}"
    file = seen.folder / f"{name}.{'raw' if attempt.raw is not None else 'body'}"
    file.write_bytes(attempt.raw if attempt.raw is not None else attempt.body or b"")
    text = f"# {wrong}\n{curl(attempt, server.port, file)}\n"
    (seen.folder / f"{name}.sh").write_text(text, encoding="utf-8")


def _judged(
    seen: Seen,
    count: int,
    seconds: float,
    before: Sequence[Any],
    after: Sequence[Any],
    log: str,
) -> list[Result]:
    rows = []
    for name in dict.fromkeys(name for name, _ in seen.answers):
        parts = sorted((status, n) for (other, status), n in seen.answers.items() if other == name)
        words = ", ".join(f"{n} x {status or 'closed'}" for status, n in parts)
        rows.append(row(f"{name}: {words}", sum(n for _, n in parts), "requests"))
    total = seen.answers.total()
    errors = sum(n for (_, status), n in seen.answers.items() if status >= 500)
    rows.append(row("all", total, "requests", f">= {count:,}", met=total >= count))
    rows.append(row("answered 5xx", errors, "requests", "0", met=errors == 0))
    wrong = len(seen.failures)
    for sentence in seen.failures:
        say(f"failure: {sentence}")
    rows.append(row(f"failures, in {seen.folder}", wrong, "kinds", "0", met=wrong == 0))
    traces = log.count("Traceback (most recent call last)")
    rows.append(row("tracebacks in the server's log", traces, "", "0", met=traces == 0))
    names = ("a right request is answered as before", "the same worker", "the same engine")
    for name, was, now in zip(names, before, after, strict=True):
        rows.append(row(name, int(was == now), "", "1", met=was == now))
    rows.append(row("time", seconds, "s", f"<= {MOST_SECONDS:g}", met=seconds <= MOST_SECONDS))
    return rows


def _after(server: Server) -> tuple[Any, Any, Any]:
    try:
        return _good(server), server.worker(), server.engine()
    except (OSError, LookupError) as error:
        say(f"afterwards: {error}")
        return None, None, None


def _good(server: Server) -> Any:
    body = json.dumps(GOOD).encode()
    with urllib.request.urlopen(f"{server.url}/score", body, timeout=60) as page:  # noqa: S310 - ours
        return json.loads(page.read())


def _small_model() -> Path:
    """The embedded base model, which a first training makes too."""
    from train import tiny

    return tiny.ensure(CACHE)


def say(line: str) -> None:
    print(f"fuzz: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
