"""What the kernel says about processes: who is below whom, and what they cost."""

import os
import platform
import resource
from pathlib import Path


def descendants(root):
    """Every process below `root`, without itself."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(pid):
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid):
    """The fields behind the name, which may hold blanks and brackets: state, parent, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def alive(pid):
    """Whether it runs; a zombie does not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def program_of(pid):
    """The file that it executes; None of what is gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def environment_of(pid):
    """What it was started with, as the bytes of `NAME=value`."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def arguments_of(pid):
    """Its command line, joined by blanks."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def cgroup_of(pid):
    """The folder of its cgroup of version 2, where there is such a file system."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in groups if line.startswith("0::/")), None)
    mount = next((line.split()[4] for line in mounts if " - cgroup2 " in line), None)
    return Path(mount) / path.lstrip("/") if path and mount else None


def wakeups(pids):
    """How often the threads of these have gone to sleep of their own will: each wake-up of an idle
    thread ends in one."""
    return sum(_of_threads(pids, "status", _voluntary_switches))


def cpu_nanoseconds(pids):
    """How long these were on a processor, by the scheduler's own count, which has no ticks."""
    return sum(_of_threads(pids, "schedstat", lambda text: int(text.split()[0])))


def _of_threads(pids, file, read):
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob(f"*/{file}"):
            try:
                yield read(path.read_text())
            except (OSError, IndexError):
                # It has ended since it was listed.
                continue


def _voluntary_switches(text):
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("voluntary"))


def proportional_kib(pids):
    """Their share of memory (PSS): what they share with others is divided among them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def resident_kib(pid):
    """What of its memory is there, shared or not (RSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def descriptors(pid):
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    """How many it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def narrowest_limits():
    """The most processes and the most descriptors of one process that can be here, each with who says
    so: `{"processes": (32768, "kernel.pid_max"), ...}`."""
    processes = [
        (_number(f"/proc/sys/kernel/{name}"), f"kernel.{name}") for name in ("pid_max", "threads-max")
    ]
    if os.geteuid() != 0:
        processes.append((resource.getrlimit(resource.RLIMIT_NPROC)[0], "RLIMIT_NPROC"))
    group = cgroup_of(os.getpid())
    for folder in [group, *group.parents] if group else []:
        processes.append((_number(folder / "pids.max"), f"{folder}/pids.max"))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    known = [(most, whose) for most, whose in processes if most not in (None, resource.RLIM_INFINITY)]
    return {"processes": min(known), "descriptors": (hard, "the hard RLIMIT_NOFILE")}


def _number(path):
    """A number in a file; None of `max`, and where there is none."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def file_system_of(path):
    """The kind of file system that a path is on."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    within = [words for words in mounts if Path(words[4]) in [path, *Path(path).parents]]
    words = max(within, key=lambda words: len(words[4]))
    return words[words.index("-") + 1]


def allow_many_descriptors():
    """As many as this user may have: a thousand processes are watched by a descriptor each."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def machine():
    """What the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": platform.release(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory // 1024,
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
    }
