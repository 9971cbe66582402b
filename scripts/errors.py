"""Every error of the verbs that is the user's to mend: one sentence and the next command.

VerbError            exit 1, never raised itself
├── UsageError       exit 2: what was asked for is wrong
├── MachineError     exit 3: this machine cannot do it (engine, port, disk, memory, network)
├── CloudError       exit 6: Azure refused or failed; nothing is left billing that was not said
└── CommandError     a command that the verb ran failed; its exit code is passed on
"""


class VerbError(Exception):
    """Base of the tree; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(VerbError):
    """A flag, variable, recipe or file that the user named does not fit."""

    exit_code = 2


class MachineError(VerbError):
    """The machine cannot do it as it is; the sentence says what to start, free or choose."""

    exit_code = 3


class CommandError(VerbError):
    """A command that was run in the user's name failed after printing its own reason."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code or 1


class CloudError(VerbError):
    """Azure refused or failed; the sentence says what, what is left there, and the next command."""

    exit_code = 6
