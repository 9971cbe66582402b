"""Ask a deployment as Azure's own documentation does: with the SDK's invoke, or the openai client.

    python -m scripts.rehearse_clients URL BODY < key

URL and BODY are those of the curl that `make ask TARGET=cloud` prints. A scoring URI is asked by
azure-ai-ml's online_endpoints.invoke, any other route by openai, and the answer is printed.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECONDS = 300


def main() -> None:
    url, body = sys.argv[1], json.loads(sys.argv[2])
    if urlsplit(url).path == "/score":
        print(invoke(urlsplit(url).netloc.partition(".")[0], body))
    else:
        print(by_openai(url, sys.stdin.read().strip(), body))


def invoke(endpoint: str, body: dict[str, Any]) -> str:
    """The answer of the endpoint by the SDK, which fetches the key itself."""
    from scripts.azure.client import connect

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
        return str(connect().ml.online_endpoints.invoke(endpoint, request_file=str(file)))


def by_openai(url: str, key: str, body: dict[str, Any]) -> str:
    """The first choice's text."""
    import openai

    base, chat, _ = url.partition("/chat/completions")
    if not chat:
        base = url.partition("/completions")[0]
    with openai.OpenAI(base_url=base, api_key=key, timeout=SECONDS) as client:
        # an endpoint of the catalog serves one model, and its requests name none
        given = {"model": "", **body, "stream": False}
        if chat:
            answer = client.chat.completions.create(**given)
            return str(answer.choices[0].message.content)
        return str(client.completions.create(**given).choices[0].text)


if __name__ == "__main__":
    main()
