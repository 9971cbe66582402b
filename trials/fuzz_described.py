"""What schemathesis is told beside the server's description; it loads this file by its path.

One check more, that every 4xx has our error with a sentence, and a line per answer in the file that
FUZZ_SEEN names: `POST /score<tab>400`. It runs in the environment of trials/fuzz.txt.
"""

import os
import sys
from pathlib import Path

import schemathesis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trials.fuzz_send import in_our_form

SEEN = Path(os.environ["FUZZ_SEEN"])


@schemathesis.check  # type: ignore[untyped-decorator]
def our_error(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A sentence for each refusal."""
    if 400 <= response.status_code < 500 and case.method != "HEAD":
        wrong = in_our_form(response.status_code, response.content)
        if wrong:
            raise AssertionError(wrong)


@schemathesis.hook  # type: ignore[untyped-decorator]
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response
) -> None:
    with SEEN.open("a", encoding="utf-8") as file:
        file.write(f"{case.method} {case.operation.path}\t{response.status_code}\n")
