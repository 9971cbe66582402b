"""Processes of this machine whose training and serving are stand-ins (stand_in.py).

    nodes = QuickHostNodes(folder, really="preempted")

For trials of the cloud verbs against faults and kills, where a job of a second shows what one of an
hour would. Commands, inputs, outputs, ports and signals are as in host.py. What has `really` in its
name is really trained and served.
"""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from emulator.nodes import Program
from emulator.nodes.host import HostNodes, HostProcess

PROGRAM = Path(__file__).with_name("stand_in.py")
STAND_IN = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))}"
TRAIN = re.compile(r"python -m train (?P<words>.*)", re.DOTALL)
TUNE = re.compile(r'tune\.py --base "\$base" (?P<words>.*)', re.DOTALL)
"""How job.yml and tuning.py begin; what follows are the words that the program is given."""


class QuickHostNodes(HostNodes):
    """Runs stand-ins, but for what has `really` in its name (an empty one is in none)."""

    def __init__(self, folder: Path, really: str = "") -> None:
        super().__init__(folder)
        self._really = really

    def start(self, program: Program) -> HostProcess:
        if self._really and self._really in program.name:
            return super().start(program)
        return super().start(replace(program, command=stand_in(program.command)))


def stand_in(command: str | None) -> str:
    """The command that stands for this one; a command that is neither is run as it is."""
    if command is None:
        return f"{STAND_IN} serve"
    if found := TRAIN.search(command):
        return f"{STAND_IN} train {found['words']}"
    if found := TUNE.search(command):
        return f"{STAND_IN} tune {found['words']}"
    return command
