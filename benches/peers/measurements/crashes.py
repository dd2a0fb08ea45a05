"""From a crash to its replacement: one after the other, and all at once.

crashes  launch ─> apply 1 ─> (SIGKILL ─> its replacement has run) × trials
storm    launch ─> apply N ─> (SIGKILL to all ─> N replacements have run) × rounds
"""

import time

from harness.report import percentile
from harness.stamps import Watched
from measurements import LIVED_SECONDS

# A replacement that is not there by then does not come.
REPLACED_SECONDS = 20
STORM_ROUNDS = 3


def crashes(bench):
    """A component that has lived for a while, and one that has not."""
    rows = bench.rows()
    usual, worst = "crash to replacement, p50", "crash to replacement, p99"
    early = "crash just after the start, to replacement, p50"
    rows.announce(usual, worst, early)
    with bench.launched(rows, usual, hurry=True) as supervisor:
        stamps = bench.stamps(supervisor)
        with rows.about(usual):
            supervisor.declare(bench.components(1, stamps))
            supervisor.apply(bench.scale.bound)
            stamps.wait_for(1, bench.scale.bound)
            delays = [_crash(stamps, LIVED_SECONDS) for _kill in range(bench.scale.kills)]
            rows.values(usual, "ms", delays)
            rows.value(worst, "ms", percentile(delays, 99))
        if rows.failed:
            return
        with rows.about(early):
            rows.values(early, "ms", [_crash(stamps, 0) for _kill in range(bench.scale.kills)])


def _crash(stamps, lived):
    """Kills it once it has lived so long; gives the milliseconds until its replacement ran."""
    newest = stamps.all()[-1]
    time.sleep(max(0, lived - (time.monotonic_ns() - newest.nanoseconds) / 1e9))
    delay, _replacement = stamps.crash(newest, REPLACED_SECONDS)
    return delay


def storm(bench):
    """All at once, until as many have been replaced."""
    rows = bench.rows()
    count = bench.scale.storm
    row = f"storm of {count} crashes, until all are replaced"
    with bench.launched(rows, row, hurry=True) as supervisor, rows.about(row):
        stamps = bench.stamps(supervisor)
        supervisor.declare(bench.components(count, stamps))
        supervisor.apply(bench.scale.bound)
        for round_number in range(1, STORM_ROUNDS + 1):
            known = stamps.wait_for(count * round_number, bench.scale.bound)
            time.sleep(LIVED_SECONDS)
            with Watched(known[-count:]) as watched:
                began = watched.kill()
                known = stamps.wait_for(count * (round_number + 1), bench.scale.bound)
            last = max(stamp.nanoseconds for stamp in known[-count:])
            rows.milliseconds(row, last - began)
