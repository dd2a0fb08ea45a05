"""Who can read what: secrets that were declared, variables of the shell that were not, sockets."""

import os
import stat
import time

from harness import linux
from harness.stamps import Stamps
from supervisors.base import Component
from trouble.subjects import BOUND

DECLARED = "declared-4f9c1d77"
OF_THE_SHELL = "shell-b02e55a9"
# No log of anything here is longer.
LARGEST = 64 * 1024 * 1024


def kept(subject):
    """A component is given a secret; the shell of the command has another one, undeclared."""
    stamps = Stamps(subject.folder / "stamps")
    component = Component("one", (subject.programs.path("idle"), stamps.path))
    ours = subject.declare_secret(component, DECLARED)
    subject.apply(BOUND)
    (first,) = stamps.wait_for(1, BOUND)
    subject.save()
    time.sleep(1)
    text = []
    for value, name in ((DECLARED, "the declared one"), (OF_THE_SHELL, "the shell’s")):
        files = [path for path in _files_with(subject.written(), value) if path not in ours]
        where = ", ".join(_described(subject, path) for path in files)
        text.append(f"{name} is written to {where}" if files else f"{name} is in no file")
    inside = any(OF_THE_SHELL.encode() in entry for entry in linux.environment_of(first.pid))
    text.append(f"the component {'has' if inside else 'does not have'} the shell’s")
    return "; ".join(text)


def given(subject):
    """What the shell has, before the supervisor is launched."""
    subject.env |= {"SHELL_SECRET": OF_THE_SHELL, "TOKEN": DECLARED}


def sockets(subject):
    """The control sockets of the supervisor, and the folders that they are in."""
    subject.note("find the supervisor's folder -type s -ls")
    found = []
    for folder, _folders, files in os.walk(subject.written()):
        for name in files:
            path = os.path.join(folder, name)
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                above = stat.filemode(os.lstat(folder).st_mode)
                found.append(f"{name} {stat.filemode(os.lstat(path).st_mode)} in {above}")
    return "; ".join(sorted(found)) or "none"


def _files_with(folder, value):
    for place, _folders, files in os.walk(folder):
        for name in files:
            path = os.path.join(place, name)
            mode = os.lstat(path)
            if stat.S_ISREG(mode.st_mode) and mode.st_size < LARGEST:
                with open(path, "rb") as content:
                    if value.encode() in content.read():
                        yield path


def _described(subject, path):
    return f"{os.path.relpath(path, subject.folder)} {stat.filemode(os.lstat(path).st_mode)}"
