"""Runs the work in a process of its own, and afterwards ends whatever the work has left behind.

    warden (subreaper) ── fork ──> work ──> supervisors ──> components
       ^                                       |
       └── every orphan becomes its child <────┘

Supervisors detach themselves and die with their components alive: that is what is measured here.
The kernel hands orphans to the nearest subreaper above them, so that everything that the work ever
started is below the warden in the tree of processes. It signals those and nothing else.

Failure paths: the work fails, takes longer than its limit, or the warden is interrupted: in each
case the tree is ended first and the scratch folder is removed then.
"""

import ctypes
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path

from harness import linux

PR_SET_CHILD_SUBREAPER = 36
# A process in an endless write to a disk takes a moment to die.
ENDING_SECONDS = 30
# Bytes of a file that takes room. Such are the logs of a benchmark of logs, and no others.
LARGE = 1024**2


class Interrupted(Exception):
    """A signal that asks the warden to end."""


def guard(work, limit_seconds):
    """Calls `work(scratch_folder)` in a child; gives the exit code of the program."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")
    scratch = Path(tempfile.mkdtemp(prefix="stigmer-peers-"))
    pid = os.fork()
    if pid == 0:
        # Whatever happens, the child must not go on with what the parent has to do.
        code = 1
        try:
            code = work(scratch)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    try:
        return _wait_for(pid, limit_seconds)
    except Interrupted as reason:
        print(f"ended: {reason}", file=sys.stderr)
        return 1
    finally:
        _end_everything()
        shutil.rmtree(scratch, ignore_errors=True)


def _wait_for(work, limit_seconds):
    """Reaps every orphan until the work itself has ended."""

    def interrupt(number, _frame):
        reasons = {signal.SIGALRM: f"it took longer than {limit_seconds} s"}
        raise Interrupted(reasons.get(number, signal.Signals(number).name))

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    signal.alarm(limit_seconds)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == work:
            signal.alarm(0)
            return os.waitstatus_to_exitcode(status)


def _end_everything():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if left := _end_all_below(os.getpid(), spared=None):
        print(f"still there: {left}", file=sys.stderr)


def clear(folder):
    """Called by the work: ends everything that was started so far, and empties what is large in a folder.

    The files stay until the end of all. Before ext4 makes a file, it passes over every number that was
    freed in the last minutes, one by one: after a few thousand that are removed, a file takes half a
    millisecond to make, and whoever comes next would seem slow."""
    _end_all_below(os.getppid(), spared=os.getpid())
    for parent, _folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size > LARGE:
                os.truncate(path, 0)


def _end_all_below(root, spared):
    """Again until nothing is left: a supervisor may start something anew while it is being ended.
    Gives what is still there."""
    deadline = time.monotonic() + ENDING_SECONDS
    groups = {linux.cgroup_of(pid) for pid in linux.descendants(root)}
    while time.monotonic() < deadline:
        left = [pid for pid in linux.descendants(root) if pid != spared]
        for pid in left:
            _kill(pid)
        _reap()
        if not left:
            _remove(groups - {None, linux.cgroup_of(os.getpid())})
            return []
        time.sleep(0.02)
    return left


def _remove(groups):
    """Groups that were made below ours for what has ended. The kernel removes only empty ones."""
    own = linux.cgroup_of(os.getpid())
    for group in groups:
        while own in group.parents:
            try:
                group.rmdir()
            except OSError:
                break
            group = group.parent


def _kill(pid):
    # It was found below the warden less than a moment ago. The kernel hands out numbers in turn, so
    # that one does not come back before tens of thousands of others.
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass
