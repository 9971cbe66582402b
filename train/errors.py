"""Every error of train/ that is the user's to mend: one sentence, printed without a traceback.

    TrainError              exit 1, never raised itself
    ├── InputError          exit 2: a recipe, file, row or flag is wrong
    └── VerificationError   exit 4: a result was made and failed its own check (merge, reload)

Anything else that ends the program is a bug and keeps its traceback.
"""


class TrainError(Exception):
    """Base of the tree; `exit_code` is what the process ends with."""

    exit_code = 1


class InputError(TrainError):
    """Something the user wrote or pointed at is wrong: what, where, and how to mend it."""

    exit_code = 2


class VerificationError(TrainError):
    """A result that the run made does not hold what it must; it is not published as `latest`."""

    exit_code = 4
