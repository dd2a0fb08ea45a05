"""What is declared changes, or does not: restarts, limits, removal, mistakes, what stays behind."""

import time

from harness import linux
from harness.commands import Failed, wait_until
from harness.stamps import Stamps
from supervisors.base import Component
from trouble.subjects import BOUND

QUIET_SECONDS = 4
LIMIT = 3
# As much of a refusal as fits in a table.
QUOTED = 120
# In this time, a component that lives for 1.5 s can be started twenty times.
LOOP_SECONDS = 30


def double_fork(subject):
    """A component has forked twice into a session of its own and is stopped."""
    births = subject.folder / "births"
    trouble = subject.programs.path("troublemaker")
    subject.declare([Component("one", (trouble, f"--grandchild=--births={births}"))])
    subject.apply(BOUND)
    text = wait_until(
        "a grandchild", lambda: births.read_text() if births.exists() else None, BOUND
    )
    pid = int(text.split()[1])
    subject.stop(BOUND)
    time.sleep(QUIET_SECONDS)
    stopped = linux.alive(pid)
    return "the grandchild lives on" if stopped else "the grandchild is ended with it"


def crash_loop(subject):
    """A component exits with 1 after 1.5 s, again and again; at most 3 restarts are allowed."""
    subject.restart = subject.limited(LIMIT)
    births = subject.folder / "births"
    trouble = subject.programs.path("troublemaker")
    argv = (trouble, "--births", births, "--exit-code", "1", "--exit-after", "1500ms")
    subject.declare([Component("one", argv)])
    # A command that waits for success may well say that there is none.
    try:
        subject.apply(LOOP_SECONDS)
    except Failed:
        pass
    subject.note(f"wait {LOOP_SECONDS} s")
    time.sleep(LOOP_SECONDS)
    runs = len(births.read_text().splitlines())
    return f"{runs} runs; shown as “{subject.shown('one')}”"


def unchanged(subject):
    """The same declaration is applied again."""
    stamps = Stamps(subject.folder / "stamps")
    components = _idle(subject, stamps, 5)
    subject.apply(BOUND)
    stamps.wait_for(5, BOUND)
    time.sleep(2)
    subject.declare(components)
    subject.apply(BOUND)
    time.sleep(QUIET_SECONDS)
    return f"{len(stamps.all()) - 5} of 5 components restarted"


def removed(subject):
    """One of three components is taken out of the declaration, which is applied."""
    stamps = Stamps(subject.folder / "stamps")
    components = _idle(subject, stamps, 3)
    subject.apply(BOUND)
    stamps.wait_for(3, BOUND)
    time.sleep(2)
    gone = subject.shown_pid(components[-1].name)
    subject.declare(components[:-1])
    subject.apply(BOUND)
    time.sleep(QUIET_SECONDS)
    restarted = len(stamps.all()) - 3
    text = "it lives on" if linux.alive(gone) else "it is stopped"
    return f"{text}; {restarted} of the other 2 restarted"


def misspelt(subject):
    """A key of the declaration is misspelt."""
    subject.restart = dict(subject.misspelt)
    stamps = Stamps(subject.folder / "stamps")
    _idle(subject, stamps, 1)
    try:
        ran = subject.apply(BOUND)
    except Failed as refusal:
        words = str(refusal).replace(f"{subject.folder}/", "")
        return f"refused: “{words[:QUOTED]}...”"
    time.sleep(1)
    started = "started" if stamps.all() else "not started"
    mentioned = next(iter(subject.misspelt)) in ran.output
    return f"{started}; the key is {'mentioned' if mentioned else 'not mentioned'}"


def _idle(subject, stamps, count):
    idle = subject.programs.path("idle")
    components = [Component(f"c{number}", (idle, stamps.path)) for number in range(count)]
    subject.declare(components)
    return components
