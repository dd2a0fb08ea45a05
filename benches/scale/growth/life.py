"""The life of so many components, from their start to their stop.

    launch ─> apply N ─> rest ─> status ─> apply again ─> change one
                                   ─> crashes one by one ─> storm of a tenth ─> stop ─> down ─> quit

The bare loop takes the same way, and leaves out what it cannot do. What is waited for is bounded by how
long nothing happens, and not by how long it takes: a slow machine is no mistake.
"""

import subprocess
import time
from datetime import UTC, datetime, timedelta

from harness import linux
from harness.commands import Failed
from harness.stamps import Stamps, Watched
from supervisors.base import Component

from growth.amount import PATIENCE_SECONDS, SLOTS_OF_AN_INTERVAL, STUCK_SECONDS

# For whole commands and for the end of all: only what hangs takes so long.
COMMAND_SECONDS = 1800
# What has lived so long counts as started: min_uptime is a second.
LIVED_SECONDS = 1.5
# After an act of which nobody else should notice anything.
QUIET_SECONDS = 0.5
# A crash is alone: what is left to do after the one before is over.
BETWEEN_CRASHES_SECONDS = 0.05
# In the example `connect`: where the interval is 10 s it makes as many at one time as stigmer does.
TURNS_A_SECOND = 10
# Of an interval: a probe that took longer to come round is not counted. And so many of all have to be.
LATE, ENOUGH = 1.2, 0.9


class Life:
    """One subject with so many components."""

    def __init__(self, name, supervisor, size, amount, figures, programs):
        self.name, self.supervisor, self.size = name, supervisor, size
        self.amount, self.figures = amount, figures
        folder = supervisor.folder / "work"
        folder.mkdir()
        self.stamps = Stamps(folder / "stamps")
        argv = (programs.path("idle"), self.stamps.path)
        self.components = [Component(f"c{number:05}", argv) for number in range(size)]
        self.alive = []

    def start(self):
        """Whether all of them run."""
        with self._about("start") as about:
            self.supervisor.declare(self.components)
            began = time.monotonic_ns()
            ran = self.supervisor.apply(COMMAND_SECONDS)
            started = self._wait_for(self.size)
            self._put("start", (max(stamp.nanoseconds for stamp in started) - began) / 1e6)
            if ran:
                self._put("start, until the command ends", ran.seconds * 1e3)
            self.alive = self._nobody_else(self.size, "the start")
        return not about.failed

    def crashes(self):
        """One after the other, while all others are there; each time another one."""
        with self._about("replacement p50"):
            delays = []
            for trial in range(self.amount.trials):
                time.sleep(BETWEEN_CRASHES_SECONDS)
                victim = trial * len(self.alive) // self.amount.trials
                delay, self.alive[victim] = self.stamps.crash(self.alive[victim], STUCK_SECONDS)
                delays.append(delay)
            self.figures.percentiles(self.name, "replacement", self.size, delays)
            self._nobody_else(len(self.stamps.all()), "the crashes")

    def storm(self):
        """A tenth of them at once."""
        with self._about("storm"):
            before = len(self.stamps.all())
            time.sleep(LIVED_SECONDS)
            victims = self.alive[::10]
            with Watched(victims) as watched:
                began = watched.kill()
                replaced = self._wait_for(before + len(victims))[before:]
            self._put("storm", (max(stamp.nanoseconds for stamp in replaced) - began) / 1e6)
            self._nobody_else(before + len(victims), "the storm")
            self.alive = [one for one in self.alive if one not in set(victims)] + replaced

    def stop(self):
        """All of them, once they have lived."""
        with self._about("stop"):
            before = len(self.stamps.all())
            time.sleep(LIVED_SECONDS)
            with Watched(self.alive) as watched:
                act = lambda: self.supervisor.stop(COMMAND_SECONDS)
                gone, ran = watched.end_by(act, COMMAND_SECONDS)
            self._put("stop", gone / 1e6)
            if ran:
                self._put("stop, until the command ends", ran.seconds * 1e3)
            self._nobody_else(before, "the stop")

    def _about(self, row):
        return self.figures.about(self.name, row, self.size)

    def _put(self, row, *values):
        self.figures.put(self.name, row, self.size, *values)

    def _wait_for(self, count):
        """All stamps once there are so many, however long it takes while there come more."""
        known, since = 0, time.monotonic()
        while len(stamps := self.stamps.all()) < count:
            if len(stamps) != known:
                known, since = len(stamps), time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                raise Failed(f"{known} of {count} had run, and for {STUCK_SECONDS} s no other")
            # The stamps tell the time; who waits must not take it from those who work.
            time.sleep(0.01)
        return stamps

    def _nobody_else(self, expected, after):
        """All stamps, of which there must not be more than expected."""
        stamps = self.stamps.once_quiet(QUIET_SECONDS)
        if len(stamps) != expected:
            extra = len(stamps) - expected
            self.figures.is_wrong(self.name, self.size, f"{extra} more started at {after}")
        return stamps


class DaemonsLife(Life):
    """What only stigmer does."""

    def __init__(self, name, supervisor, size, amount, figures, programs, listener):
        super().__init__(name, supervisor, size, amount, figures, programs)
        self.listener, self.connect = listener, programs.path("connect")
        self.pids = {"keeper": supervisor.keeper, "engine": supervisor.engine}

    def down(self):
        """All of them are ended and forgotten, which is more than a stop."""
        with self._about("down, until the command ends"):
            before = len(self.stamps.all())
            self.supervisor.start(COMMAND_SECONDS)
            self._wait_for(before + self.size)
            time.sleep(LIVED_SECONDS)
            ran = self.supervisor.down(COMMAND_SECONDS)
            self._put("down, until the command ends", ran.seconds * 1e3)
            self._nobody_else(before + self.size, "the down")

    def rest(self):
        """What it costs while nobody asks for anything."""
        with self._about("memory"):
            time.sleep(self.amount.settle_seconds)
            wakeups = {who: linux.wakeups([pid]) for who, pid in self.pids.items()}
            cpu = {who: linux.cpu_nanoseconds([pid]) for who, pid in self.pids.items()}
            began = time.monotonic_ns()
            time.sleep(self.amount.rest_seconds)
            seconds = (time.monotonic_ns() - began) / 1e9
            for who, pid in self.pids.items():
                share = (linux.cpu_nanoseconds([pid]) - cpu[who]) / 1e7 / seconds
                self._put(f"rest: CPU, {who}", share)
                self._put(f"rest: wake-ups, {who}", (linux.wakeups([pid]) - wakeups[who]) / seconds)
                self._put(f"memory, {who}", linux.proportional_kib([pid]) / 1024)
            for row in ("rest: CPU", "rest: wake-ups", "memory"):
                each = (self.figures.value(self.name, f"{row}, {who}", self.size) for who in self.pids)
                self._put(row, sum(each))
            if self.name != "none":
                self._probes()
            if self.name == "tcp":
                self._only_connections()
            self._nobody_else(self.size, "rest")

    def _probes(self):
        """Whether all of them are made, and when they come."""
        if self.name == "tcp":
            # Of one interval, in which each has its turn once.
            counts = self.listener.last(SLOTS_OF_AN_INTERVAL)
            if any(counts):
                self._put("largest slot to mean", max(counts) * len(counts) / sum(counts))
        try:
            said = self.supervisor.components(COMMAND_SECONDS)
        except Failed as problem:
            self.figures.overload(self.name, self.size, f"no answer: {problem}")
            return
        probes = [one["probes"]["liveness"] for one in said]
        failing = sum(probe["result"] == "failure" for probe in probes)
        # Each has been probed once in the last interval, if all is well; a little later is no loss.
        since = datetime.now(UTC) - timedelta(seconds=self.amount.interval * LATE)
        ends = [datetime.fromisoformat(probe["at"]) for probe in probes if probe["result"] == "success"]
        passed = sum(end > since for end in ends) / self.amount.interval
        self._put("probes that passed, a second", passed)
        self._put("probes that failed last", failing)
        expected = self.size / self.amount.interval
        if failing or passed < expected * ENOUGH:
            told = f"{passed:.0f} of {expected:.0f} probes a second passed, {failing} failed last"
            self.figures.overload(self.name, self.size, told)

    def _only_connections(self):
        """What as many connections take that nobody decides about; beside the probes, which go on."""
        row = "rest: CPU of a loop that only connects"
        each = max(1, round(self.size / self.amount.interval / TURNS_A_SECOND))
        seconds = self.amount.rest_seconds
        words = [self.connect, each, seconds * TURNS_A_SECOND, *self.listener.ports]
        argv = [str(word) for word in words]
        bound = seconds + STUCK_SECONDS
        try:
            ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=bound)
            share = int(ran.stdout) / 1e7 / seconds
        except (subprocess.SubprocessError, ValueError) as problem:
            self.figures.fail(self.name, row, self.size, f"{problem}: {getattr(problem, 'stderr', None)}")
            return
        # Where there are fewer probes than turns it makes more connections than they are.
        made = each * TURNS_A_SECOND * self.amount.interval
        self._put(row, share * self.size / made)

    def questions(self):
        """Status, and an apply of what is there already."""
        with self._about("status"):
            self._repeat("status", self.amount.asks, self.supervisor.status)
            said = self.supervisor.components(COMMAND_SECONDS)
            running = sum(one["state"] == "running" for one in said)
            if running != self.size:
                raise Failed(f"{running} of {self.size} are running")
        with self._about("apply, unchanged"):
            self._repeat("apply, unchanged", self.amount.applies, self.supervisor.apply)
            self._nobody_else(self.size, "an apply without a change")

    def _repeat(self, row, times, command):
        began = time.monotonic()
        for _time in range(times):
            self._put(row, command(COMMAND_SECONDS).seconds * 1e3)
            if time.monotonic() - began > PATIENCE_SECONDS:
                return

    def change(self):
        """One of them gets another environment."""
        with self._about("apply, one changed"):
            before = len(self.stamps.all())
            changed = self.components.copy()
            changed[self.size // 2] = changed[self.size // 2].with_env("CHANGED", "1")
            self.supervisor.declare(changed)
            began = time.monotonic_ns()
            ran = self.supervisor.apply(COMMAND_SECONDS)
            new = self._wait_for(before + 1)[before]
            if b"CHANGED=1" not in linux.environment_of(new.pid):
                self.figures.is_wrong(self.name, self.size, "another one was restarted")
            self._put("apply, one changed", (new.nanoseconds - began) / 1e6)
            self._put("apply, one changed, until the command ends", ran.seconds * 1e3)
            self._nobody_else(before + 1, "a change of one")
            self.alive = [one for one in self.stamps.all() if linux.alive(one.pid)]

    def same_daemon(self):
        """That a part of it died and was replaced must not go unseen."""
        for who, pid in self.pids.items():
            if not linux.alive(pid):
                self.figures.is_wrong(self.name, self.size, f"the {who} died")
