"""The supervisor dies: what becomes of what it ran, and of what it knew.

three components ─> SIGKILL to the supervisor ─> who lives? ─> brought back ─> who is known?
                                                                                who is doubled?
"""

import time

from harness import linux
from harness.commands import wait_until
from harness.stamps import Stamps, Watched
from supervisors.base import Component
from trouble.subjects import BOUND, StigmerSubject

COUNT = 3
# A supervisor that is going to do something does it within this time.
WATCHED_SECONDS = 4
# Its first run ends with 7, later ones do not end.
ENDS_ONCE = """\
echo $$ >> {births}; [ $(wc -l < {births}) -gt 1 ] && exec sleep 1000; sleep 6; exit 7
"""


def everything_killed(subject):
    """The supervisor is killed, with all its processes."""
    stamps = _three(subject)
    before = stamps.all()
    subject.save()
    subject.kill_all()
    time.sleep(WATCHED_SECONDS)
    alive = [stamp for stamp in before if linux.alive(stamp.pid)]
    line, known = subject.listing()
    text = [f"{len(alive)} of {COUNT} components live on"]
    text.append(f"the status then {'knows' if known else 'does not know'} them (“{line}”)")
    subject.bring_back()
    text.append(f"brought back: {_known_again(subject, stamps, before)}")
    return "; ".join(text)


def one_process_killed(subject):
    """Only one of the supervisor's processes is killed."""
    if not isinstance(subject, StigmerSubject):
        return "it has only one"
    text = []
    for which in ("engine", "keeper"):
        stamps = Stamps(subject.folder / "stamps")
        if not stamps.all():
            _three(subject)
        before = [stamp for stamp in stamps.all() if linux.alive(stamp.pid)]
        subject.kill([getattr(subject, which)], f"the {which}")
        wait_until("the daemon's answer", lambda: _answers(subject), BOUND, every=0.05)
        text.append(f"{which}: {_known_again(subject, stamps, before)}")
    return "; ".join(text)


def _answers(subject):
    if subject.run([subject.stigmer, "ping", "-o", "json"], BOUND).code != 0:
        return None
    subject.learn_pids()
    return True


def _three(subject):
    stamps = Stamps(subject.folder / "stamps")
    idle = subject.programs.path("idle")
    subject.declare([Component(name, (idle, stamps.path)) for name in ("one", "two", "three")])
    subject.apply(BOUND)
    stamps.wait_for(COUNT, BOUND)
    time.sleep(1)
    return stamps


def _known_again(subject, stamps, before):
    time.sleep(WATCHED_SECONDS)
    pids = {stamp.pid for stamp in before}
    shown = {subject.shown_pid(name) for name in ("one", "two", "three")}
    alive = [stamp for stamp in stamps.all() if linux.alive(stamp.pid)]
    doubled = max(0, len(alive) - COUNT)
    return f"{len(pids & shown)} of {COUNT} known by their pid, {len(alive)} run, {doubled} doubled"


def death_meanwhile(subject):
    """A component dies with exit code 7 while the supervisor is dead."""
    births = subject.folder / "births"
    script = subject.folder / "ends-once.sh"
    script.write_text(ENDS_ONCE.format(births=births))
    subject.declare([Component("one", ("/bin/sh", script))])
    subject.note(f"ends-once.sh: {script.read_text().strip()}")
    subject.apply(BOUND)
    pid = wait_until("a birth", lambda: _first_birth(births), BOUND)
    subject.save()
    subject.kill_all()
    wait_until("its death", lambda: None if linux.alive(pid) else True, BOUND)
    subject.note("wait for the component to end")
    subject.bring_back()
    time.sleep(WATCHED_SECONDS / 2)
    return (
        f"runs {'again' if _births(births) > 1 else 'no more'}; shown as “{subject.shown('one')}”"
    )


def _births(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def _first_birth(file):
    if _births(file) == 0:
        return None
    return int(file.read_text().split()[0])


def death_by_signal(subject):
    """A component is killed with SIGKILL, under the policy “restart on failure”."""
    subject.restart = subject.on_failure()
    stamps = Stamps(subject.folder / "stamps")
    subject.declare([Component("one", (subject.programs.path("idle"), stamps.path))])
    subject.apply(BOUND)
    (first,) = stamps.wait_for(1, BOUND)
    time.sleep(2)
    with Watched([first]) as watched:
        watched.kill()
    subject.note("kill -9 (the component)")
    time.sleep(WATCHED_SECONDS)
    again = len(stamps.all()) > 1
    return f"{'restarted' if again else 'not restarted'}; shown as “{subject.shown('one')}”"
