"""OpenAI's own client on an Azure OpenAI resource, and its errors in our sentences.

    with connect(account) as service:
        job = call("read the job", lambda: service.fine_tuning.jobs.retrieve(name))

It speaks the versionless API (`/openai/v1/`) with a token of Microsoft Entra. The client itself
tries again what is safe; what must not be done twice is asked with `once(service)`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from scripts.azure.openai.accounts import Account
from scripts.azure.retry import BUSY, WORDS_SHOWN, NotFound, Refused
from scripts.errors import CloudError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

T = TypeVar("T")

SCOPE = "https://cognitiveservices.azure.com/.default"
ROLE = "Cognitive Services OpenAI Contributor"
SECONDS = 120.0
"""For an answer, and for each part of an upload."""
TRIES_AGAIN = 5


def connect(account: Account) -> "AbstractContextManager[OpenAI]":
    """The client; its connections are closed at the end of the `with`."""
    from azure.identity import get_bearer_token_provider
    from openai import OpenAI

    made: AbstractContextManager[OpenAI] = OpenAI(
        base_url=f"{account.endpoint}/openai/v1/",
        api_key=get_bearer_token_provider(account.credential, SCOPE),
        max_retries=TRIES_AGAIN,
        timeout=SECONDS,
    )
    return made


def once(service: "OpenAI") -> "OpenAI":
    """The same client without tries of its own."""
    return service.with_options(max_retries=0)


def call(what: str, function: Callable[[], T]) -> T:
    """The function's result; `what` completes "could not …" in the error.

    Raises NotFound, Refused, or CloudError where the service cannot be reached.
    """
    import openai
    from azure.core.exceptions import ClientAuthenticationError

    try:
        return function()
    except openai.APIStatusError as error:
        raise _refused(what, error) from error
    except openai.APIConnectionError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise CloudError(
            f"could not {what}: Azure OpenAI cannot be reached ({reason}): check the network and "
            "give the same command again."
        ) from error
    except ClientAuthenticationError as error:
        raise CloudError(
            f"could not {what}: the login gives no token for Azure OpenAI "
            f"({str(error).strip().splitlines()[0]}): az login."
        ) from error


def _refused(what: str, error: "APIStatusError") -> CloudError:
    status, code = error.status_code, str(error.code or "")
    body = error.body if isinstance(error.body, dict) else {}
    said = " ".join(str(body.get("message") or error.message).split())[:WORDS_SHOWN]
    sentence = f"could not {what}: Azure OpenAI answered {status}" + (f" ({code})" if code else "")
    sentence = f"{sentence}: {said}"
    if status in (401, 403):
        sentence += f" Next: have the role {ROLE} on the resource given to you."
    elif status in BUSY:
        sentence += " Next: the same command again, which goes on with what is there."
    kind = NotFound if status == 404 else Refused
    return kind(sentence, status, code)
