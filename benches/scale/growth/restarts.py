"""Whether anything grows with the number of restarts: one daemon, a few components that end at once.

    a tenth of the restarts ─> stop, sample, start ─> the next tenth ─> stop, sample, start ─> ...

A sample is taken while all are stopped, for what a restart that is under way needs comes and goes; it is
the least of several looks within a second. By the second tenth everything that is kept of a few runs has
been kept. From then on memory may grow by a tolerance, from the first half to the second; descriptors and
threads may not grow.
"""

import json
import os
import sys
import time
from pathlib import Path

from harness import linux
from harness.commands import Failed
from harness.report import short

from growth.amount import STUCK_SECONDS
from growth.life import COMMAND_SECONDS

COMPONENTS = 10
TENTHS = 10
LOOKS, BETWEEN_LOOKS_SECONDS = 20, 0.05
# Of the memory before, and besides: the allocator takes what it takes in pieces. From half to half; that is
# 10 % and 512 KiB from the second tenth to the last.
TOLERANCE, SPARE_KIB = 0.05, 256
RESTART = {"max_restarts": "unlimited", "min_uptime": "1s", "backoff": {"initial": "0s"}}


def measure(stigmer, count):
    """Samples at each tenth, and what is wrong with them."""
    pids = {"keeper": stigmer.keeper, "engine": stigmer.engine}
    # JSON is YAML.
    components = {f"c{n}": {"command": ["/bin/true"], "restart": RESTART} for n in range(COMPONENTS)}
    stigmer.manifest.write_text(json.dumps({"project": "restarts", "components": components}))
    stigmer.run([stigmer.stigmer, "apply", "-f", stigmer.manifest, "--no-wait"], 60).checked()
    samples = []
    for tenth in range(1, TENTHS + 1):
        restarts = _wait_for(stigmer, count * tenth // TENTHS)
        at = time.monotonic()
        _all(stigmer, "stop")
        samples.append({"restarts": restarts, "at": at, **_sample(stigmer, pids)})
        _all(stigmer, "start", "--no-wait")
        print(f"restarts: {restarts} of {count}", flush=True, file=sys.stderr)
    wrong = [f"the {who} died" for who, pid in pids.items() if not linux.alive(pid)]
    return samples, wrong + _grown(samples)


def _all(stigmer, command, *options):
    argv = [stigmer.stigmer, command, "--all", *options]
    stigmer.run(argv, COMMAND_SECONDS).checked()


def _restarts(stigmer):
    said = stigmer.components(COMMAND_SECONDS)
    return sum(one["restarts"]["total"] for one in said)


def _wait_for(stigmer, count):
    known, since = -1, time.monotonic()
    while (now := _restarts(stigmer)) < count:
        if now != known:
            known, since = now, time.monotonic()
        elif time.monotonic() - since > STUCK_SECONDS:
            raise Failed(f"{now} restarts, and for {STUCK_SECONDS} s no other")
        # The question is work for the daemon, too.
        time.sleep(0.5)
    return now


def _sample(stigmer, pids):
    looks = []
    for _look in range(LOOKS):
        looks.append({f"{who} {what}": look(pid) for who, pid in pids.items() for what, look in LOOKED})
        time.sleep(BETWEEN_LOOKS_SECONDS)
    least = {name: min(look[name] for look in looks) for name in looks[0]}
    return least | _files(stigmer.folder / "home")


LOOKED = [
    ("PSS KiB", lambda pid: linux.proportional_kib([pid])),
    ("RSS KiB", linux.resident_kib),
    ("descriptors", linux.descriptors),
    ("threads", linux.threads),
]


def _files(home):
    """What the home folder holds, in KiB by kind of file, and how many records of runs."""
    sizes = {"state KiB": 0, "daemon's log KiB": 0, "components' logs KiB": 0, "records": 0}
    for folder, _folders, names in os.walk(home):
        for name in names:
            path = Path(folder) / name
            try:
                size = path.lstat().st_size / 1024
            except FileNotFoundError:
                continue
            if name.startswith("state.db"):
                sizes["state KiB"] += size
            elif name.startswith("daemon.log"):
                sizes["daemon's log KiB"] += size
            elif "logs" in path.parts:
                sizes["components' logs KiB"] += size
            elif path.suffix == ".run":
                sizes["records"] += 1
    return {name: round(size) for name, size in sizes.items()}


def _grown(samples):
    second, last = samples[1], samples[-1]
    # Memory that a burst has needed is given back once it has been quiet, and a sample may be older than that:
    # what grows does so also where there is least of it.
    middle = len(samples) // 2
    earlier, later = samples[1:middle], samples[middle:]
    wrong = []
    for name, before in second.items():
        after = last[name]
        if name.endswith("PSS KiB"):
            before, after = (min(sample[name] for sample in half) for half in (earlier, later))
            if after > before * (1 + TOLERANCE) + SPARE_KIB:
                wrong.append(f"{name} grew from {before} to {after}")
        if name.endswith(("descriptors", "threads")) and after > before:
            wrong.append(f"{name} grew from {before} to {after}")
    return wrong


def table(samples):
    """A row for each tenth."""
    names = [name for name in samples[0] if name != "at"]
    lines = ["| " + " | ".join(names) + " | restarts a second |", "|" + "--:|" * (len(names) + 1)]
    before = None
    for sample in samples:
        rate = ""
        if before:
            done = sample["restarts"] - before["restarts"]
            rate = short(done / (sample["at"] - before["at"]))
        lines.append("| " + " | ".join(f"{sample[name]}" for name in names) + f" | {rate} |")
        before = sample
    return "\n".join(lines) + "\n"
