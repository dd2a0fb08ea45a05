"""All that was measured, and what went wrong, by subject, row and number of components."""

import statistics
from dataclasses import dataclass, field

from harness.commands import Failed
from harness.report import percentile


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
        """What stigmer did that it should not have done: whoever reads it, and the exit code, say so."""
        self.notes = []
        """What a reader must know besides."""

    def put(self, subject, row, size, *values):
        self._figure(subject, row, size).values.extend(values)

    def percentiles(self, subject, row, size, values):
        """The usual one and the worst but for one in a hundred."""
        self.put(subject, f"{row} p50", size, percentile(values, 50))
        self.put(subject, f"{row} p99", size, percentile(values, 99))

    def get(self, subject, row, size):
        return self.by_key.get((subject, row, size), Figure())

    def value(self, subject, row, size):
        return self.get(subject, row, size).value()

    def fail(self, subject, row, size, problem):
        self._figure(subject, row, size).problem = str(problem)

    def is_wrong(self, what):
        self.wrong.append(what)

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
        self.figures.is_wrong(f"{subject}, {size} components, {row}: {error}")
        return True
