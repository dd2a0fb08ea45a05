"""The results: a table for people, and the same as JSON for machines."""

import json
import statistics
from dataclasses import dataclass, field

# What a cell says that holds no figure.
NOT_DONE = "—"
# Units of what the bare loop does as well; its memory is that of a program that knows nothing.
COMPARED = ("ms", "MB/s")


@dataclass
class Cell:
    """What one supervisor did in one row."""

    values: list = field(default_factory=list)
    problem: str | None = None
    """Why there is nothing, or not all of it."""


@dataclass
class Row:
    name: str
    unit: str = ""
    cells: dict = field(default_factory=dict)


class Report:
    """All rows in the order in which they were first named."""

    def __init__(self, machine, supervisors, quick):
        self.machine = machine
        self.supervisors = supervisors
        """Name to version, settings and least delay; to the reason where it is not there."""
        self.quick = quick
        self.rows = {}

    def announce(self, row):
        """Gives a row its place. It is shown once somebody has something in it."""
        self.rows.setdefault(row, Row(row))

    def add(self, supervisor, row, unit, value):
        """One more value of a row."""
        self._cell(supervisor, row, unit).values.append(value)

    def fail(self, supervisor, row, unit, problem):
        """It did not do what this row is about."""
        self._cell(supervisor, row, unit).problem = str(problem)

    def _cell(self, supervisor, row, unit):
        found = self.rows.setdefault(row, Row(row))
        found.unit = found.unit or unit
        return found.cells.setdefault(supervisor, Cell())

    def _used_rows(self):
        return [row for row in self.rows.values() if row.cells]

    def markdown(self):
        """Everything that a reader needs to judge."""
        names = [name for name, facts in self.supervisors.items() if "absent" not in facts]
        lines = []
        if self.quick:
            lines += ["A quick run: it shows that everything works, and no number to quote.", ""]
        lines += [
            "Linux {kernel}, {cpu}, {cores} cores, {memory_mib} MiB, as {user}.".format(
                **self.machine
            ),
            "",
            "Medians; smallest and largest in brackets. The last column is the ratio of stigmer to "
            "the bare loop.",
            "",
            "| | " + " | ".join(names) + " | ratio |",
            "|---|" + "--:|" * (len(names) + 1),
        ]
        problems = []
        for row in self._used_rows():
            cells = []
            for name in names:
                cell = row.cells.get(name, Cell())
                if cell.problem:
                    problems.append(f"{name}, {row.name}: {cell.problem}")
                mark = f" [{len(problems)}]" if cell.problem else ""
                cells.append(_text(cell, row.unit) + mark)
            lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {_ratio(row)} |")
        if problems:
            lines += ["", "What was not done:", ""]
            lines += [f"{number}. {problem}" for number, problem in enumerate(problems, 1)]
        lines += ["", "| | version | least delay before a restart | what is set, what to know |"]
        lines += ["|---|---|---|---|"]
        for name, facts in self.supervisors.items():
            if "absent" in facts:
                lines.append(f"| {name} | not measured: {facts['absent']} | | |")
            else:
                lines.append(
                    "| {} | {version} | {least_delay} | {settings} |".format(name, **facts)
                )
        return "\n".join(lines) + "\n"

    def json(self):
        """The same, with every single value."""
        rows = [
            {
                "name": row.name,
                "unit": row.unit,
                "results": {
                    name: {
                        "median": statistics.median(cell.values) if cell.values else None,
                        "min": min(cell.values, default=None),
                        "max": max(cell.values, default=None),
                        "values": cell.values,
                        "problem": cell.problem,
                    }
                    for name, cell in row.cells.items()
                },
            }
            for row in self._used_rows()
        ]
        report = {
            "schema_version": 1,
            "quick": self.quick,
            "machine": self.machine,
            "supervisors": self.supervisors,
            "rows": rows,
        }
        return json.dumps(report, indent=2) + "\n"


def _text(cell, unit):
    if not cell.values:
        return NOT_DONE
    median = statistics.median(cell.values)
    text = f"{short(median)} {unit}".rstrip()
    if len(cell.values) > 1 and min(cell.values) != max(cell.values):
        text += f" ({short(min(cell.values))}–{short(max(cell.values))})"
    return text


def _ratio(row):
    if row.unit not in COMPARED:
        return ""
    mine, least = (row.cells.get(name, Cell()).values for name in ("stigmer", "bare loop"))
    if not mine or not least or statistics.median(least) == 0:
        return ""
    return f"{statistics.median(mine) / statistics.median(least):.2f}"


def short(value):
    """Three digits that matter."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value)}"
    if abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def percentile(values, percent):
    """The smallest value that at least `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
