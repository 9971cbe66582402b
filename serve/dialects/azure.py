"""Azure's own addresses of OpenAI's two forms, so that a client written for one works on the other.

    /openai/deployments/<deployment>/chat/completions?api-version=…   AzureOpenAI of the package
    /openai/v1/chat/completions                                       OpenAI(base_url=…/openai/v1/)
    /chat/completions, /completions                                   the model catalog

There a deployment's or a base model's name stands where this server has one model and its adapters.
So any name is taken here: an adapter's is that adapter, every other one the served model. /v1
refuses an unknown name, as elsewhere. The api-version is not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serve.dialects.parsed import Dialect, Json, Parsed
from serve.errors import RequestError
from serve.request import GenerationRequest

DEPLOYMENTS = "/openai/deployments/{deployment}/"
BELOW_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<name>[^/]+)/(?P<form>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByAnyName:
    """A dialect whose `model` may be any name."""

    dialect: Dialect
    deployment: str | None = None
    """Of the address; it goes over `model`, which Azure does not read there."""

    def parse(self, body: bytes, *, context: int) -> Parsed:
        parsed: Any = self.dialect.parse(body, context=context)
        changed: Parsed = replace(parsed, requests=tuple(map(self._named, parsed.requests)))
        return changed

    def error_body(self, error: RequestError) -> Json:
        return self.dialect.error_body(error)

    def _named(self, request: GenerationRequest | RequestError) -> GenerationRequest | RequestError:
        if isinstance(request, RequestError):
            return request
        return replace(request, model=self.deployment or request.model, any_model=True)


def routes(chat: Dialect, completions: Dialect) -> Mapping[str, Dialect]:
    """Rule → dialect; {deployment} stands for any part of a path."""
    forms = {
        "chat/completions": ByAnyName(dialect=chat),
        "completions": ByAnyName(dialect=completions),
    }
    places = ("/", "/openai/v1/", DEPLOYMENTS)
    return {f"{place}{form}": dialect for place in places for form, dialect in forms.items()}


def of_deployment(path: str, known: Mapping[str, Dialect]) -> tuple[str, Dialect] | None:
    """The rule of a path below a deployment and its dialect, which knows the deployment's name."""
    match = BELOW_DEPLOYMENT.fullmatch(path)
    rule = f"{DEPLOYMENTS}{match['form']}" if match else ""
    dialect = known.get(rule)
    if match is None or not isinstance(dialect, ByAnyName):
        return None
    return rule, replace(dialect, deployment=match["name"])
