"""The life of many components, from their start to their stop.

launch ─> apply N ─> all have run ─> status ─> idle ─> change one ─> stop ─> all gone
"""

import time

from harness import commands, linux
from harness.stamps import Watched
from measurements import QUIET_SECONDS

# After this, timers of the start are over, and an idle supervisor is idle.
SETTLED_SECONDS = 4


def life(bench, count):
    """Starts and stops `count` components again and again, and looks at them the last time."""
    rows = bench.rows()
    rows.announce(
        f"start of {count}, until all have run",
        f"start of {count}, until the command ends",
        f"status of {count}",
        f"idle with {count}: CPU",
        f"idle with {count}: wake-ups",
        f"idle with {count}: memory (PSS)",
        f"idle with {count}: processes",
    )
    if count == bench.scale.small:
        rows.announce(
            f"change of one of {count}, until it has run",
            f"change of one of {count}, until the command ends",
            f"change of one of {count}: processes restarted",
        )
    rows.announce(
        f"stop of {count}, until all are gone",
        f"stop of {count}, until the command ends",
    )
    began = time.monotonic()
    for repeat in range(bench.scale.repeats):
        tired = time.monotonic() - began > bench.scale.patience
        last = tired or repeat + 1 == bench.scale.repeats
        with bench.launched(rows, f"start of {count}, until all have run") as supervisor:
            _one_life(bench, supervisor, rows, count, last)
        if last or rows.failed:
            return


def _one_life(bench, supervisor, rows, count, last):
    stamps = bench.stamps(supervisor)
    components = bench.components(count, stamps)
    supervisor.declare(components)
    with rows.about(f"start of {count}, until all have run"):
        began = time.monotonic_ns()
        ran = supervisor.apply(bench.scale.bound)
        started = stamps.wait_for(count, bench.scale.bound)
        last_start = max(stamp.nanoseconds for stamp in started)
        rows.milliseconds(f"start of {count}, until all have run", last_start - began)
        if ran:
            rows.seconds(f"start of {count}, until the command ends", ran.seconds)
    if rows.failed:
        return
    if last:
        _status(bench, supervisor, rows, count)
        _idle(bench, supervisor, rows, count)
        if count == bench.scale.small and supervisor.can_change:
            _change(bench, supervisor, rows, count, components, stamps)
    _stop(bench, supervisor, rows, count, stamps)


def _status(bench, supervisor, rows, count):
    if not supervisor.shows_status:
        return
    with rows.about(f"status of {count}"):
        for _ask in range(bench.scale.asks):
            rows.seconds(f"status of {count}", supervisor.status(bench.scale.bound).seconds)


def _idle(bench, supervisor, rows, count):
    with rows.about(f"idle with {count}: memory (PSS)", "MiB"):
        time.sleep(SETTLED_SECONDS)
        pids = supervisor.own_processes(bench.programs)
        cpu, wakeups = linux.cpu_nanoseconds(pids), linux.wakeups(pids)
        time.sleep(bench.scale.idle_seconds)
        cpu, wakeups = linux.cpu_nanoseconds(pids) - cpu, linux.wakeups(pids) - wakeups
        seconds = bench.scale.idle_seconds
        rows.value(f"idle with {count}: CPU", "ms/s", cpu / 1e6 / seconds)
        rows.value(f"idle with {count}: wake-ups", "/s", wakeups / seconds)
        memory = linux.proportional_kib(pids) / 1024
        rows.value(f"idle with {count}: memory (PSS)", "MiB", memory)
        rows.value(f"idle with {count}: processes", "", len(pids))


def _change(bench, supervisor, rows, count, components, stamps):
    row = f"change of one of {count}, until it has run"
    with rows.about(row):
        before = len(stamps.all())
        changed = components.copy()
        changed[count // 2] = changed[count // 2].with_env("CHANGED", "1")
        supervisor.declare(changed)
        began = time.monotonic_ns()
        ran = supervisor.apply(bench.scale.bound)

        def replaced():
            new = stamps.all()[before:]
            return next((s for s in new if b"CHANGED=1" in linux.environment_of(s.pid)), None)

        changed_one = commands.wait_until(row, replaced, bench.scale.bound)
        rows.milliseconds(row, changed_one.nanoseconds - began)
        if ran:
            rows.seconds(f"change of one of {count}, until the command ends", ran.seconds)
        restarts = len(stamps.once_quiet(QUIET_SECONDS)) - before
        rows.value(f"change of one of {count}: processes restarted", "", restarts)


def _stop(bench, supervisor, rows, count, stamps):
    row = f"stop of {count}, until all are gone"
    with rows.about(row):
        alive = [stamp for stamp in stamps.all() if linux.alive(stamp.pid)]
        with Watched(alive) as watched:
            bound = bench.scale.bound
            gone, ran = watched.end_by(lambda: supervisor.stop(bound), bound)
            if ran:
                rows.seconds(f"stop of {count}, until the command ends", ran.seconds)
            rows.milliseconds(row, gone)
