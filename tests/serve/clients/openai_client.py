"""Speaks to the server at argv[1] by the `openai` package; prints what it got, as JSON."""

import json
import sys
from typing import Any

import openai

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
messages: Any = [{"role": "user", "content": "hello"}]
greedy: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": 24}

whole = client.chat.completions.create(messages=messages, **greedy)
text, usage = "", None
options = {"include_usage": True}
for chunk in client.chat.completions.create(
    messages=messages, stream=True, stream_options=options, **greedy
):
    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    usage = chunk.usage or usage
several = client.chat.completions.create(
    model=model, messages=messages, max_tokens=8, n=3, seed=1, temperature=0.8, top_p=0.9
)
likely = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=2, **greedy)
plain = client.completions.create(prompt=["hello", "fox"], **greedy)
piece = "".join(
    chunk.choices[0].text
    for chunk in client.completions.create(prompt="fox", stream=True, **greedy)
)
errors = {}
for name, body in {
    "no such model": {"messages": messages, "model": "gpt-9"},
    "a wrong field": {"messages": messages, **greedy, "extra_body": {"max_tokns": 3}},
    "too much": {"messages": messages, **greedy, "max_tokens": 4096},
}.items():
    try:
        client.chat.completions.create(**body)
    except openai.APIStatusError as error:
        errors[name] = [type(error).__name__, error.param, error.message]
print(
    json.dumps(
        {
            "whole": whole.choices[0].message.content,
            "finish_reason": whole.choices[0].finish_reason,
            "streamed": text,
            "usage": [whole.usage and whole.usage.completion_tokens, usage and usage.total_tokens],
            "several": len(several.choices),
            "logprobs": len((likely.choices[0].logprobs or whole).content or []),
            "texts": [choice.text for choice in plain.choices],
            "piece": piece,
            "errors": errors,
        }
    )
)
