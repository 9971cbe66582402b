"""Speaks to the server at argv[1] by LangChain's ChatOpenAI; prints what it got, as JSON."""

import json
import sys

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(
    base_url=f"{sys.argv[1]}/v1",
    api_key="none",
    model="tiny-ja",
    temperature=0,
    max_tokens=24,
)
whole = chat.invoke("hello")
streamed = "".join(str(chunk.content) for chunk in chat.stream("hello"))
usage = whole.usage_metadata or {}
print(json.dumps({"whole": whole.content, "streamed": streamed, "tokens": usage["output_tokens"]}))
