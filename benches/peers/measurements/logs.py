"""What a log costs the component that writes it, and the supervisor.

launch ─> apply 1 ─> it writes its lines ─> all of them are in its log ─> each is looked for
"""

import os
import time

from harness import commands, linux
from harness.lines import count_lines
from measurements import LINE, QUIET_SECONDS
from supervisors.base import Component

REPEATS = 3
# An index, or whatever else is written besides, is complete by then.
SETTLED_SECONDS = 0.2


def log(bench, lines_a_write, what):
    """One component writes as fast as it can, several times."""
    rows = bench.rows()
    began = time.monotonic()
    for _repeat in range(REPEATS):
        _one_log(bench, rows, lines_a_write, f"log, {what}: ")
        if rows.failed or time.monotonic() - began > bench.scale.patience:
            return


def _one_log(bench, rows, lines_a_write, name):
    lines, row = bench.scale.log_lines, name + "speed of the writer"
    with bench.launched(rows, row) as supervisor, rows.about(row, "MB/s"):
        stamps = bench.stamps(supervisor).path
        argv = (bench.flood, stamps, lines, lines_a_write)
        supervisor.declare([Component("writer", argv, logged=True)])
        cpu = linux.cpu_nanoseconds(supervisor.own_processes(bench.programs))
        # What others have written does not reach the disk in our time.
        os.sync()
        supervisor.apply(bench.scale.bound)

        def written():
            text = stamps.read_text() if stamps.exists() else ""
            return list(map(int, text.split())) if text.endswith("\n") else None

        _pid, begin, end, used = commands.wait_until(row, written, bench.scale.bound, 0.01)
        arrived = _arrived(supervisor, lines * LINE, end)
        rows.value(row, "MB/s", lines * LINE * 1e3 / (end - begin))
        speed = lines * LINE * 1e3 / (arrived - begin)
        rows.value(name + "speed until all is in the file", "MB/s", speed)
        time.sleep(SETTLED_SECONDS)
        cpu = linux.cpu_nanoseconds(supervisor.own_processes(bench.programs)) - cpu
        rows.value(name + "supervisor's CPU, of the writer's", "%", 100 * cpu / used)
        lost, problem = count_lines(supervisor.log_files("writer"), lines)
        rows.value(name + "lines lost or twice", "", lost)
        if problem:
            rows.fail(name + "lines lost or twice", "", problem)


def _arrived(supervisor, expected, written):
    """When the log had its full length, or had stopped to grow. If it has it at the first look,
    it had it when the writer was done."""
    size, since = None, written
    while time.monotonic_ns() - since < QUIET_SECONDS * 1e9:
        files = [file for file in supervisor.log_files("writer") if file.exists()]
        now = sum(file.stat().st_size for file in files)
        if now != size:
            since = time.monotonic_ns() if size is not None or now < expected else written
            size = now
        if size >= expected:
            break
        time.sleep(0.005)
    return since
