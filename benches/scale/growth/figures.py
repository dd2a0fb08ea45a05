"""All that was measured, and what went wrong, by subject, row and number of components."""

import statistics
from dataclasses import dataclass, field

from harness.commands import Failed
from harness.report import percentile


# Characters of a problem that are shown.
MOST_SHOWN = 200


@dataclass
class Figure:
    """What one subject did in one row with so many components."""

    values: list = field(default_factory=list)
    problem: str | None = None

    def value(self):
        """The one value of it, or the median; None where there is none."""
        return statistics.median(self.values) if self.values else None


class Figures:
    """Written by the lives, read by the table."""

    def __init__(self):
        self.by_key = {}
        self.wrong = []
        """What stigmer did that it should not have done, or did not do: the run fails by it."""
        self.notes = []
        """What a reader must know besides."""
        self.overloaded = set()
        """Lives for whose probes this machine is too slow: what comes of that is told, and not held
        against stigmer."""

    def put(self, subject, row, size, *values):
        self._figure(subject, row, size).values.extend(values)

    def percentiles(self, subject, row, size, values):
        """The usual one and the worst but for one in a hundred, of these and all that came before."""
        self.put(subject, row, size, *values)
        known = self.get(subject, row, size).values
        for rank in (50, 99):
            self._figure(subject, f"{row} p{rank}", size).values = [percentile(known, rank)]

    def get(self, subject, row, size):
        return self.by_key.get((subject, row, size), Figure())

    def value(self, subject, row, size):
        return self.get(subject, row, size).value()

    def fail(self, subject, row, size, problem):
        self._figure(subject, row, size).problem = _brief(problem)

    def overload(self, subject, size, how):
        """The machine cannot do what this life asks for."""
        self.overloaded.add((subject, size))
        self.notes.append(f"{_life(subject, size)}: too much for this machine: {_brief(how)}")

    def is_wrong(self, subject, size, what):
        """stigmer did something that it should not have done, or did not do what it was told."""
        told = f"{_life(subject, size)}: {_brief(what)}"
        (self.notes if (subject, size) in self.overloaded else self.wrong).append(told)

    def about(self, subject, row, size):
        """What fails inside is told in this row, and wrong: nothing here is bounded so that slowness
        alone would end it."""
        return _About(self, subject, row, size)

    def _figure(self, *key):
        return self.by_key.setdefault(key, Figure())

    def json(self):
        return [
            {
                "subject": subject,
                "row": row,
                "components": size,
                "median": figure.value(),
                "values": figure.values,
                "problem": figure.problem,
            }
            for (subject, row, size), figure in self.by_key.items()
        ]


class _About:
    def __init__(self, figures, *key):
        self.figures, self.key = figures, key
        self.failed = False

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        if not isinstance(error, Failed):
            return False
        self.failed = True
        self.figures.fail(*self.key, error)
        subject, row, size = self.key
        self.figures.is_wrong(subject, size, f"{row}: {_brief(error)}")
        return True


def _life(subject, size):
    return f"{subject}, {size} components" if size else subject


def _brief(problem):
    """How it begins and how it ends: a command that fails may have a line for each component."""
    text = str(problem)
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"
