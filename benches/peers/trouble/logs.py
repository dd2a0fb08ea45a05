"""Lines of a component's log, while it is rotated and while the supervisor dies."""

import time

from harness import linux
from harness.commands import Failed, wait_until
from harness.lines import count_lines
from supervisors.base import Component
from trouble.subjects import BOUND

LINES = 3_000_000
ROTATED_AT = "10MB"
LATE_SECONDS = 3

# It counts its lines in a file beside its log, one number a line: to be compared with the log.
COUNTING = (
    "n=0; while :; do n=$((n+1)); "
    'echo "line $$ $n"; echo "$n" >> {folder}/count.$$; sleep 0.01; done'
)


def rotation(subject):
    """A component writes three million lines of 100 bytes while its log is rotated at 10 MB."""
    subject.restart = subject.rotated(ROTATED_AT)
    stamps = subject.folder / "stamps"
    argv = (subject.programs.path("flood"), stamps, LINES, 1)
    subject.declare([Component("writer", argv)])
    subject.apply(BOUND)
    wait_until("the end of the writer", lambda: True if _ended(stamps) else None, 2 * BOUND, 0.05)
    # Whatever is to be rotated is rotated by then.
    time.sleep(LATE_SECONDS)
    files = subject.log_files("writer")
    lost, problem = count_lines(files, LINES)
    text = f"{len(files)} files" if len(files) > 1 else "one file, not rotated"
    text += f"; {lost} of {LINES} lines lost or twice"
    return f"{text}: {problem}" if problem else text


def _ended(stamps):
    return stamps.exists() and stamps.read_text().endswith("\n")


def death(subject):
    """A component writes a hundred lines a second; the supervisor is killed and brought back."""
    command = COUNTING.format(folder=subject.folder)
    script = subject.folder / "counting.sh"
    script.write_text(command)
    subject.declare([Component("one", ("/bin/sh", script))])
    subject.apply(BOUND)
    time.sleep(2)
    subject.save()
    pid = subject.shown_pid("one")
    subject.kill_all()
    time.sleep(LATE_SECONDS)
    alive = linux.alive(pid)
    subject.bring_back()
    time.sleep(LATE_SECONDS)
    counts = {
        path.name.removeprefix("count."): path.read_text().count("\n")
        for path in subject.folder.glob("count.*")
    }
    if str(pid) not in counts:
        raise Failed("the writer has counted nothing")
    logged = {}
    for file in subject.log_files("one"):
        for line in file.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "line":
                logged.setdefault(words[1], set()).add(words[2])
    # The last lines may be on their way.
    wrote, found = counts[str(pid)], len(logged.get(str(pid), ()))
    text = [f"the writer {'lives on' if alive else 'dies with it'}"]
    text.append(f"of its {wrote} lines {max(0, wrote - found)} are lost")
    if len(counts) > 1:
        text.append("another copy of it runs beside it" if alive else "a new one is started")
    return "; ".join(text)
