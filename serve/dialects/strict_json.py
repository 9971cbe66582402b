"""The body's bytes → a JSON value, strictly: no doubled names, no NaN, nothing around it.

What Python's own reader lets pass, and would then be half ignored, is refused with a sentence.
Content-Type plays no part. It knows no fields.
"""

import json
from typing import Any, NoReturn, cast

from serve.errors import RequestError

MAX_BODY_BYTES = 1024 * 1024


def refuse(field: str | None, sentence: str) -> NoReturn:
    """400 with one sentence."""
    raise RequestError(400, sentence, field)


def too_large() -> RequestError:
    """The answer to a body over the limit, also where it was not read to its end."""
    return RequestError(413, f"the request body is over {MAX_BODY_BYTES} bytes; send less text.")


def read_json(body: bytes) -> Any:
    """Any JSON value; RequestError carries 400 or 413."""
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    if not body.strip():
        refuse(None, "the request body is empty; send a JSON object.")
    try:
        text = body.decode("utf-8-sig")  # PowerShell writes the mark
    except UnicodeDecodeError as error:
        refuse(None, f"the request body is not UTF-8 (byte {error.start}); encode it as UTF-8.")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        refuse(None, f"the request body is not JSON: {error.msg} at {where}.")
    except RecursionError:
        refuse(None, "the request body is nested too deeply.")
    except ValueError:  # an integer of thousands of digits
        refuse(None, "the request body holds a number with too many digits.")


def read_object(body: bytes) -> dict[str, Any]:
    """The body where it must be an object."""
    return as_object(read_json(body))


def as_object(value: Any) -> dict[str, Any]:
    """The whole body, seen to be an object."""
    if isinstance(value, str):
        refuse(None, "the request body is a JSON string; send the object itself, encoded once.")
    if not isinstance(value, dict):
        refuse(None, "the request body must be a JSON object, in braces.")
    return cast(dict[str, Any], value)


def quoted(name: str) -> str:
    """A name out of the request, fit for an answer: short, and without half surrogates."""
    return name[:64].encode("utf-8", "replace").decode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            refuse(quoted(name), f'"{quoted(name)}" is given twice; give it once.')
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    refuse(None, f"{name} is not a number in JSON; send a finite number.")
