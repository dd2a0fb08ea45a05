"""Where a scenario writes down what it has measured, and that something did not happen.

A supervisor that does not do what is asked for is a result: its row says so, the rows that need it
are empty, and the next supervisor has its turn.
"""

from harness.commands import Failed


class Rows:
    """The rows of one supervisor."""

    def __init__(self, report, name):
        self.report, self.name = report, name
        self.failed = False

    def announce(self, *rows):
        """Their order in the report, whoever has figures for them first."""
        for row in rows:
            self.report.announce(row)

    def value(self, row, unit, value):
        self.report.add(self.name, row, unit, value)

    def values(self, row, unit, values):
        for value in values:
            self.value(row, unit, value)

    def milliseconds(self, row, nanoseconds):
        self.value(row, "ms", nanoseconds / 1e6)

    def seconds(self, row, seconds):
        self.value(row, "ms", seconds * 1e3)

    def fail(self, row, unit, problem):
        self.failed = True
        self.report.fail(self.name, row, unit, problem)

    def about(self, row, unit="ms"):
        """What fails inside is told in this row."""
        return _About(self, row, unit)


class _About:
    def __init__(self, rows, row, unit):
        self.rows, self.row, self.unit = rows, row, unit

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        if isinstance(error, Failed):
            self.rows.fail(self.row, self.unit, error)
            return True
        return False


class Launched:
    """A supervisor that is there for the length of a scenario. That it cannot be launched, or does
    not end, is told in the row that the scenario is about."""

    def __init__(self, make, rows, row, hurry):
        self.make, self.rows, self.row, self.hurry = make, rows, row, hurry

    def __enter__(self):
        self.supervisor = self.make()
        if self.hurry and hasattr(self.supervisor, "hurry"):
            self.supervisor.hurry()
        try:
            self.supervisor.launch()
        except Failed:
            self.make.clear(self.supervisor)
            raise
        return self.supervisor

    def __exit__(self, kind, error, _traceback):
        try:
            self.supervisor.quit()
        except Failed as problem:
            self.rows.fail(self.row, "ms", f"at its end: {problem}")
        # Nothing of this scenario may run into the next one's time.
        self.make.clear(self.supervisor)
        return False
