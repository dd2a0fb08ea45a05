"""What is asked of each supervisor: to be started, to be told what shall run, to stop it, to end.

    launch ──> declare, apply ──> (status, idle, crashes ...) ──> declare, apply ──> stop ──> quit
               writes files       the supervisor's own commands

Each is used as its documentation says, with the settings under which it replaces soonest, and with
nothing switched off that it does by itself. What differs is in `settings` and `least_delay`, which
the report shows.
"""

import os
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import commands, linux
from harness.commands import Failed

# How long a supervisor may take to be there, or to be gone after everything has been stopped.
LAUNCH_SECONDS = 30
QUIT_SECONDS = 15


@dataclass(frozen=True)
class Component:
    """One program that shall run."""

    name: str
    argv: tuple
    env: dict = field(default_factory=dict)
    logged: bool = False
    """What it writes is looked at: where that needs a process of its own, there is one."""

    def with_env(self, name, value):
        """The same, changed."""
        return replace(self, env={**self.env, name: value})


class Supervisor:
    """One supervisor in a folder of its own."""

    name = ""
    settings = ""
    """What is set, and what a reader must know to compare."""
    least_delay = ""
    """The soonest that it can be told to replace what has crashed."""
    shows_status = True
    """Whether there is anything to ask."""
    can_change = True
    """Whether a component can be given another environment while others run."""

    def __init__(self, tools, programs, folder):
        self.tools = tools
        self.programs = programs
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
        }

    @classmethod
    def check(cls, tools, programs):
        """Installs what it needs; gives its version."""
        raise NotImplementedError

    def launch(self):
        """Starts it with nothing to supervise."""

    def declare(self, components):
        """Writes down what shall run."""
        raise NotImplementedError

    def apply(self, bound):
        """Makes it so. Gives the command that ran, or None if there is none that waits."""
        raise NotImplementedError

    def status(self, bound):
        """Asks for the status of everything."""
        raise NotImplementedError

    def stop(self, bound):
        """Stops everything. Gives the command that ran, or None if there is none that waits."""
        raise NotImplementedError

    def quit(self):
        """Ends it in order. The warden ends what is left."""

    def root(self):
        """The process from which all others come; None before there is one."""
        return self.process.pid if self.process else None

    def log_files(self, name):
        """Where the lines of this component are, oldest first."""
        return [self._log(name)]

    def _log(self, name):
        return self.folder / f"{name}.log"

    # Helpers for those below.

    def run(self, argv, bound):
        """One of its commands."""
        return commands.run(argv, self.env, self.folder, bound)

    def own_processes(self, programs):
        """All of its processes: those below its root that are no component."""
        if (root := self.root()) is None:
            return []
        below = linux.descendants(root)
        return [root] + [pid for pid in below if linux.program_of(pid) not in programs]

    def wait_for(self, what, look):
        """Waits for a state of its launch."""
        return commands.wait_until(f"{self.name}: {what}", look, LAUNCH_SECONDS, every=0.02)

    def end_process(self, number=signal.SIGTERM):
        """Asks its process in the foreground to end."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"did not end within {QUIT_SECONDS} s of {number.name}") from None
