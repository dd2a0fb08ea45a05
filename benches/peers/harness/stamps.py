"""The stamps that the idle program leaves: who ran, and since when.

`examples/idle.rs` appends `PID NANOSECONDS` as its first act. So "replaced" means here that the new
process has run, not that somebody says so, and it means the same with every supervisor.
"""

import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.commands import Failed, wait_until


@dataclass(frozen=True)
class Stamp:
    pid: int
    nanoseconds: int
    """On CLOCK_MONOTONIC, when its own code began."""


class Stamps:
    """The file of stamps of one supervisor."""

    def __init__(self, path):
        self.path = Path(path)
        self._known, self._offset = [], 0

    def all(self):
        """Oldest first in the order of writing."""
        # The file only grows: whoever waits for ten thousand does not read the first of them again and
        # again, in the time of the supervisor.
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        # What is behind the last newline is still being written.
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._known += [Stamp(*map(int, line.split())) for line in whole.splitlines()]
        return self._known.copy()

    def wait_for(self, count, bound):
        """All stamps, once there are `count` of them."""

        def enough():
            found = self.all()
            return found if len(found) >= count else None

        try:
            return wait_until("", enough, bound)
        except Failed:
            there = len(self.all())
            raise Failed(f"{there} of {count} had run after {bound:.0f} s") from None

    def once_quiet(self, seconds):
        """All stamps, once there came no more for so long."""
        known, since = self.all(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.1)
            if len(now := self.all()) != len(known):
                known, since = now, time.monotonic()
        return known

    def crash(self, victim, bound):
        """Kills a process. Gives the milliseconds until its replacement ran, and the stamp of that."""
        known = len(self.all())
        with Watched([victim]) as watched:
            began = watched.kill()
            replacement = self.wait_for(known + 1, bound)[known]
        return (replacement.nanoseconds - began) / 1e6, replacement


class Watched:
    """Processes known by descriptor, so that no signal reaches another one of the same number."""

    def __init__(self, stamps):
        self.descriptors = {}
        for stamp in stamps:
            try:
                self.descriptors[stamp.pid] = os.pidfd_open(stamp.pid)
            except ProcessLookupError:
                raise Failed(f"process {stamp.pid} ended by itself") from None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for descriptor in self.descriptors.values():
            os.close(descriptor)

    def kill(self):
        """Kills all. Gives the time just before the first."""
        began = time.monotonic_ns()
        for descriptor in self.descriptors.values():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return began

    def wait_for_all_to_end(self, bound):
        """Gives the time at which the last of them had ended. One after the other, so that whoever
        watches sleeps through most of it and takes no time from the supervisor."""
        deadline = time.monotonic() + bound
        for number, descriptor in enumerate(self.descriptors.values()):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                left = len(self.descriptors) - number
                raise Failed(f"up to {left} of {number + left} lived on after {bound:.0f} s")
        return time.monotonic_ns()

    def end_by(self, act, bound):
        """Does what shall end them all. Gives the nanoseconds until the last had ended, and what came of
        the doing. They are watched by another thread: they are gone before a command says so."""
        with ThreadPoolExecutor(1) as watcher:
            began = time.monotonic_ns()
            ended = watcher.submit(self.wait_for_all_to_end, bound)
            outcome = act()
            return ended.result() - began, outcome
