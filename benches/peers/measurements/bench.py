"""What every measurement needs: a supervisor, the programs that it supervises, and the report."""

from harness.report import Report
from harness.rows import Launched, Rows
from harness.scale import Scale
from harness.stamps import Stamps
from supervisors.base import Component


class Bench:
    """One supervisor and one report."""

    def __init__(self, make, programs, report: Report, scale: Scale):
        self.make = make
        """Gives the supervisor in a fresh folder."""
        self.idle = programs.path("idle")
        self.flood = programs.path("flood")
        self.programs = {str(self.idle), str(self.flood)}
        self.report = report
        self.scale = scale

    def rows(self):
        """Those of this supervisor."""
        return Rows(self.report, self.make.name)

    def launched(self, rows, row, hurry=False):
        """A fresh supervisor, for a `with`; `hurry`: told to replace as soon as it can."""
        return Launched(self.make, rows, row, hurry)

    def stamps(self, supervisor):
        """Where its components leave their stamps: in a folder of their own, because a supervisor
        may watch the one with its configuration."""
        folder = supervisor.folder / "work"
        folder.mkdir()
        return Stamps(folder / "stamps")

    def components(self, count, stamps):
        """So many that stamp their start and do nothing."""
        argv = (self.idle, stamps.path)
        return [Component(f"c{number:05}", argv) for number in range(count)]
