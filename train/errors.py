"""Every end of train/ that is not a bug, one sentence each, printed without a traceback.

    TrainError              exit 1, never raised itself
    ├── InputError          exit 2: a recipe, file, row or flag is wrong
    ├── MachineError        exit 3: this machine cannot do it as it is (disk, memory, network)
    └── VerificationError   exit 4: a result was made and failed its own check (merge, reload)
    Interrupted             exit 5: SIGTERM or SIGINT; the same command goes on where it stopped

Anything else that ends the program is a bug and keeps its traceback.
"""

import os
import re

SECRETS = ("HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
AUTHORIZATION = re.compile(r"\b(Bearer|Basic) +(?=\S*[\d=])[^\s\"',;\\]{8,}", re.IGNORECASE)


def public(text: str) -> str:
    """`text` without secrets: a server may repeat in its error what it was sent.

    Of addresses, the user names and passwords are left out.
    """
    text = AUTHORIZATION.sub(r"\1 …", re.sub(r"//[^/@\s]*@", "//", text))
    for value in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(value, "…")
    return text


def reason(error: BaseException) -> str:
    """What a library's error says, as one sentence that can stand inside another."""
    return " ".join(public(str(error)).split()).partition(". ")[0] or type(error).__name__


class TrainError(Exception):
    """Base of the tree; `exit_code` is what the process ends with."""

    exit_code = 1


class InputError(TrainError):
    """Something the user wrote or pointed at is wrong: what, where, and how to mend it."""

    exit_code = 2


class MachineError(TrainError):
    """The machine cannot do it as it is; the sentence says what to free or choose."""

    exit_code = 3


class VerificationError(TrainError):
    """A result that the run made does not hold what it must; it is not published as `latest`."""

    exit_code = 4


class Interrupted(BaseException):
    """Asked to stop; what was done so far is on disk, and the sentence says up to where.

    No Exception, like KeyboardInterrupt: it may come up in the middle of a library, and must not be
    taken for a failure there.
    """

    exit_code = 5
