"""runit: one runsv for each service, below one runsvdir."""

import signal

from harness import commands
from harness import tools as installed
from supervisors.base import Supervisor
from supervisors.s6 import write_service


class Runit(Supervisor):
    name = "runit"
    settings = (
        "run scripts of /bin/sh that exec the program; no log service but in the rows about logs "
        "(svlogd); start is the start of `runsvdir`, which otherwise looks for new services every "
        "5 s; a changed run script has to be told with `sv restart` by hand"
    )
    least_delay = "0, but never sooner than 1 s after the last start"

    @classmethod
    def check(cls, tools, programs):
        tools.debian(installed.RUNIT)
        return tools.debian_version("runit")

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.bin = tools.debian(installed.RUNIT) / "usr" / "bin"
        self.services = self.folder / "services"
        self.services.mkdir(exist_ok=True)
        self.env |= {"PATH": f"{self.bin}:{self.env['PATH']}", "SVDIR": str(self.services)}
        self.declared = {}

    def declare(self, components):
        self.changed = []
        for component in components:
            if self.declared.get(component.name) == component:
                continue
            if component.name in self.declared:
                self.changed.append(component.name)
            log = self._log_folder(component.name)
            log.mkdir(parents=True, exist_ok=True)
            # One file without an end.
            (log / "config").write_text("s0\n")
            write_service(self.services / component.name, component, f"exec svlogd {log}\n")
            self.declared[component.name] = component

    def apply(self, bound):
        if self.changed:
            return self.run([self.bin / "sv", "restart", *self.changed], bound).checked()
        self.process = commands.start(
            [self.bin / "runsvdir", "-P", self.services], self.env, self.folder
        )
        return None

    def status(self, bound):
        return self.run([self.bin / "sv", "status", *sorted(self.declared)], bound).checked()

    def stop(self, bound):
        words = ["-w", int(bound), "stop", *sorted(self.declared)]
        return self.run([self.bin / "sv", *words], bound).checked()

    def quit(self):
        # It tells every runsv to end, and ends itself with 111.
        self.end_process(signal.SIGHUP)

    def log_files(self, name):
        folder = self._log_folder(name)
        return [*sorted(folder.glob("@*")), folder / "current"]

    def _log_folder(self, name):
        return self.folder / "log" / name
