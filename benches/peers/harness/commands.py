"""Runs the commands of supervisors, each bounded in time, and takes their time."""

import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# As much of a command's output as an error quotes.
QUOTED = 400


class Failed(Exception):
    """What was asked for did not happen: becomes a cell of the report, and ends no run."""


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    seconds: float
    began: int
    """Nanoseconds on CLOCK_MONOTONIC, just before it was started."""
    output: str

    def checked(self):
        """Itself, if it succeeded."""
        if self.code != 0:
            text = " ".join(self.output.split())[-QUOTED:]
            raise Failed(f"exit {self.code}: {text}")
        return self


def run(argv, env, folder, bound):
    """Runs a command to its end. Its output goes to a file, as nobody has to read along then."""
    output = Path(folder) / "command.out"
    to_file = (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    from_null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    began = time.monotonic_ns()
    pid = os.posix_spawn(
        argv[0],
        [str(word) for word in argv],
        env,
        file_actions=[from_null, to_file, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setpgroup=0,
    )
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        in_time = poll.poll(max(0, bound) * 1000)
        took = time.monotonic_ns() - began
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
        _pid, status = os.waitpid(pid, 0)
    finally:
        os.close(descriptor)
    text = output.read_text(errors="replace")
    if not in_time:
        words = " ".join(Path(str(word)).name for word in argv[:6])
        raise Failed(f"not done after {bound:.0f} s: {words}: {' '.join(text.split())[-QUOTED:]}")
    return Ran(os.waitstatus_to_exitcode(status), took / 1e9, began, text)


def start(argv, env, folder, stdin=subprocess.DEVNULL, stdout=None):
    """Starts a supervisor that stays in the foreground; its words go to a file."""
    with open(Path(folder) / "supervisor.out", "ab") as words:
        return subprocess.Popen(
            [str(word) for word in argv],
            env=env,
            cwd=folder,
            stdin=stdin,
            stdout=stdout or words,
            stderr=words,
            start_new_session=True,
        )


def wait_until(what, look, bound, every=0.002):
    """Looks again and again until the answer is not None; gives it."""
    deadline = time.monotonic() + bound
    while True:
        if (found := look()) is not None:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"not within {bound:.0f} s: {what}")
        time.sleep(every)
