"""Asks the server at argv[1] by both Azure clients of the `openai` package; prints it as JSON."""

import json
import sys
from typing import Any

import openai

azure = openai.AzureOpenAI(
    azure_endpoint=sys.argv[1], api_key="none", api_version="2024-10-21", max_retries=0
)
newer = openai.OpenAI(base_url=f"{sys.argv[1]}/openai/v1/", api_key="none", max_retries=0)
catalog = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
messages: Any = [{"role": "user", "content": "hello"}]
greedy: dict[str, Any] = {"model": "gpt-4.1-ja", "temperature": 0, "max_tokens": 12}

chats, texts, models = {}, {}, {}
for name, client in {"azure": azure, "newer": newer, "catalog": catalog}.items():
    chats[name] = client.chat.completions.create(messages=messages, **greedy).choices[0].message
    texts[name] = client.completions.create(prompt="fox", **greedy).choices[0].text
for name, client in {"azure": azure, "newer": newer}.items():
    models[name] = [model.id for model in client.models.list()]
streamed = "".join(
    (chunk.choices[0].delta.content or "") if chunk.choices else ""
    for chunk in azure.chat.completions.create(messages=messages, stream=True, **greedy)
)
print(
    json.dumps(
        {
            "chats": {name: message.content for name, message in chats.items()},
            "texts": texts,
            "models": models,
            "streamed": streamed,
        }
    )
)
