"""How much is measured, and what the figures are compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Amount:
    sizes: tuple
    """Numbers of components."""
    rounds: int
    """How often all are started, asked, killed and stopped, the bare loop and stigmer by turns: the median
    of all is what is told."""
    trials: int
    """Crashes of one component, one after the other; in each round."""
    asks: int
    """How often the status is asked for in each round, and how often a command is started."""
    applies: int
    """How often an unchanged manifest is applied in each round."""
    settle_seconds: int
    """From the last command until a supervisor counts as at rest."""
    rest_seconds: int
    """For how long it is watched then; at least one interval of the probes."""
    interval: int
    """Seconds between two probes of a component."""
    declared: int
    """Components of the manifest with mistakes."""
    limit: int
    """Seconds that all of it may take."""


FULL = Amount(
    sizes=(1000, 5000, 10_000),
    rounds=7,
    trials=50,
    asks=50,
    applies=5,
    settle_seconds=8,
    rest_seconds=30,
    interval=10,
    declared=10_000,
    limit=3 * 3600,
)
QUICK = Amount(
    sizes=(100, 200),
    rounds=2,
    trials=5,
    asks=5,
    applies=2,
    settle_seconds=2,
    rest_seconds=2,
    interval=1,
    declared=1000,
    limit=600,
)

MISTAKES = 100
# Into so many an interval of the probes is divided, to see whether they come in bursts.
SLOTS_OF_AN_INTERVAL = 100
# Where nothing more happens for so long, nothing will: the only time after which something is wrong.
STUCK_SECONDS = 60
# What is repeated for its median is not begun again after so many seconds.
PATIENCE_SECONDS = 20
# No further round of a size is begun after so many.
ROUNDS_SECONDS = 120

# Row to the most that it should be, by number of components; None is any number.
AIMS = {
    "start: ratio": {1000: 2.0},
    "storm: ratio": {None: 2.0},
    "replacement p50: ratio": {None: 1.5},
    "replacement p99: ratio": {None: 3.0},
    "stop: ratio": {1000: 1.3},
    "status": {1000: 10.0, 10_000: 80.0},
    "apply, unchanged": {10_000: 300.0},
    "memory": {100: 8.0, 1000: 10.0, 10_000: 48.0},
}
# The same of those rows that have an aim with some kinds of probes only.
PROBE_AIMS = {
    "none": {"rest: wake-ups": {None: 0.0}},
    "tcp": {"rest: CPU": {1000: 1.0}},
    "exec": {},
}
COMMAND_AIM_MS = 5.0
MISTAKES_AIM_MS = 500.0


def aim(probes, row, size):
    """The most that a figure should be; None where nobody has said."""
    known = AIMS.get(row) or PROBE_AIMS.get(probes, {}).get(row, {})
    # What is said of memory and wake-ups is said of a daemon that probes nothing.
    if row == "memory" and probes != "none":
        return None
    return known.get(size, known.get(None))
