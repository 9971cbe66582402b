"""Ask the local server one question, and show the curl that does the same."""

import argparse
import json

from scripts.console import run_verb, say
from scripts.errors import CommandError, MachineError, UsageError
from scripts.local_serve import address, curl, read_port
from scripts.settings import flag_default

SECONDS = 200
"""Longer than the server may take for an answer."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make ask", description="Ask the local server.")
    parser.add_argument("--prompt", default=flag_default("PROMPT"), help="the question")
    parser.add_argument("--port", default=flag_default("PORT", "5001"))
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    arguments = parser.parse_args()
    port = read_port(arguments.port)
    if not arguments.prompt:
        raise UsageError("PROMPT is empty: make ask PROMPT='オーストラリアの首都はどこですか？'")
    body = {"prompt": arguments.prompt}
    say(curl(port, body))
    import requests

    try:
        reply = requests.post(address(port), json=body, timeout=SECONDS)
    except requests.ConnectionError:
        raise MachineError(f"no server answers on port {port}; next: make local-serve") from None
    except requests.Timeout:
        raise MachineError(f"no answer within {SECONDS} s; next: make local-logs") from None
    try:
        answer = reply.json()
    except ValueError:
        raise CommandError(
            f"HTTP {reply.status_code}, and no JSON: {reply.text[:200]}", 1
        ) from None
    if not reply.ok:
        raise CommandError(f"HTTP {reply.status_code}: {answer['error']['message']}", 1)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    if answer.get("reasoning"):
        say(f"reasoning: {answer['reasoning']}")
    print(answer["output"])


if __name__ == "__main__":
    run_verb(main)
