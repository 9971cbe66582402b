"""Ask the local server, or with TARGET=cloud the endpoint, one question; show the curl for it."""

import argparse
import json
from pathlib import Path
from typing import Any

from scripts import local_key
from scripts.azure.given import overrides
from scripts.console import run_verb, say
from scripts.errors import CommandError, MachineError, UsageError
from scripts.local_serve import address, curl, read_port
from scripts.local_train import DEFAULT_RECIPE, find_recipe
from scripts.settings import flag_default

SECONDS = 200
"""Longer than the local server may take for an answer."""
SAMPLE = "オーストラリアの首都はどこですか？"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make ask", description="Ask the local server, or the endpoint (TARGET=cloud)."
    )
    parser.add_argument("--prompt", default=flag_default("PROMPT"), help="the question")
    parser.add_argument("--port", default=flag_default("PORT", "5001"), help="of the local server")
    parser.add_argument(
        "--target", default=flag_default("TARGET", "local"), help="local or cloud (%(default)s)"
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        default=flag_default("RECIPE", DEFAULT_RECIPE),
        help="whose endpoint is asked",
    )
    parser.add_argument("--set", default=flag_default("SET"), help="overrides of the recipe")
    parser.add_argument(
        "--endpoint", default=flag_default("ENDPOINT"), help="instead of the recipe's"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=bool(flag_default("JSON")),
        help="print the whole answer as JSON",
    )
    arguments = parser.parse_args()
    if arguments.target not in ("local", "cloud"):
        raise UsageError(f"TARGET is {arguments.target!r}: use local or cloud.")
    if not arguments.prompt:
        raise UsageError(f"PROMPT is empty: make ask PROMPT='{SAMPLE}'")
    if arguments.target == "local":
        answer = ask_local(read_port(arguments.port), {"prompt": arguments.prompt})
        output, reasoning = answer["output"], answer.get("reasoning") or ""
    else:
        settings = overrides(arguments.set, arguments.endpoint)
        output, reasoning, answer = ask_cloud(arguments.recipe, settings, arguments.prompt)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    if reasoning:
        say(f"reasoning: {reasoning}")
    print(output)


def ask_local(port: int, body: dict[str, Any]) -> dict[str, Any]:
    """The local server's answer; notes that its image has answered here."""
    headers = local_key.headers(port)
    say(curl(port, body, with_key=bool(headers)))
    import requests

    try:
        reply = requests.post(address(port), json=body, headers=headers, timeout=SECONDS)
    except requests.ConnectionError:
        raise MachineError(f"no server answers on port {port}; next: make local-serve") from None
    except requests.Timeout:
        raise MachineError(f"no answer within {SECONDS} s; next: make local-logs") from None
    try:
        answer: dict[str, Any] = reply.json()
    except ValueError:
        raise CommandError(
            f"HTTP {reply.status_code}, and no JSON: {reply.text[:200]}", 1
        ) from None
    if not reply.ok:
        raise CommandError(f"HTTP {reply.status_code}: {answer['error']['message']}", 1)
    from scripts.azure import images

    images.remember_answer(port, model=str(answer.get("model", "")))
    return answer


def ask_cloud(path: Path, settings: list[str], prompt: str) -> tuple[str, str, dict[str, Any]]:
    """The deployed model's answer, its reasoning, and the whole of it as it came."""
    recipe = find_recipe(path, settings)
    from scripts.azure import routes
    from scripts.azure.client import connect

    cloud, route = connect(), routes.of(recipe)
    say(route.curl(cloud, recipe, prompt))
    answer = route.ask(cloud, recipe, prompt)
    if answer.by:
        say(f"answered by {answer.by}{f' ({cloud.label()})' if cloud.label() else ''}")
    if answer.prompt_tokens is not None and answer.completion_tokens is not None:
        say(f"tokens: {answer.prompt_tokens} of the prompt, {answer.completion_tokens} answered")
    return answer.output, answer.reasoning, dict(answer.body)


if __name__ == "__main__":
    run_verb(main)
