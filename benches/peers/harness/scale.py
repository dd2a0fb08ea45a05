"""How much is measured, and how long anything may take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    small: int
    """A few components."""
    large: int
    """Many."""
    repeats: int
    """How often a start with its stop is repeated, for its median."""
    asks: int
    """How often the status is asked for."""
    idle_seconds: int
    """For how long an idle supervisor is watched."""
    kills: int
    """Crashes of one component, one after the other."""
    storm: int
    """Crashes all at once."""
    log_lines: int
    """Lines of 100 bytes that one component writes."""
    bound: int
    """Seconds that one step of a supervisor may take: then it is said, and the next one's turn."""
    patience: int
    """A supervisor that has needed so many seconds for a row is not asked again for its median."""
    limit: int
    """Seconds that all of it may take."""


FULL = Scale(
    small=100,
    large=1000,
    repeats=5,
    asks=20,
    idle_seconds=30,
    kills=30,
    storm=200,
    log_lines=1024**3 // 100,
    bound=180,
    patience=60,
    limit=3 * 3600,
)
QUICK = Scale(
    small=10,
    large=100,
    repeats=2,
    asks=3,
    idle_seconds=3,
    kills=3,
    storm=20,
    log_lines=1024**3 // 1000,
    bound=60,
    patience=20,
    limit=1800,
)
