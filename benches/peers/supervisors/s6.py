"""s6: one s6-supervise for each service, below one s6-svscan."""

import shlex
import shutil
import signal
from pathlib import Path

from harness import commands, linux
from harness import tools as installed
from harness.commands import Failed
from supervisors.base import Supervisor

# s6-svscan executes this path, which is compiled in. It is not there, as nothing is installed; the
# scanner works in its scan folder, so that a path from there leads to a link of ours.
COMPILED_IN = b"/usr/bin/s6-supervise\0"
LINK = ".s6-supervise"

# s6-log cannot be told not to rotate: the largest size that it takes, and enough old ones.
LARGEST_LOG = 268_435_455


class S6(Supervisor):
    name = "s6"
    settings = (
        "run scripts of /bin/sh that exec the program; no log service but in the rows about logs "
        "(s6-log, 256 MiB a file); status is a loop of `s6-svstat`; stop is `s6-svscanctl -t`; a "
        "changed run script has to be told with `s6-svc -r` by hand"
    )
    least_delay = "1 s, which cannot be set"

    @classmethod
    def check(cls, tools, programs):
        tools.debian(installed.S6)
        return tools.debian_version("s6")

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.root_folder = tools.debian(installed.S6)
        self.bin = self.root_folder / "usr" / "bin"
        self.scan = self.folder / "scan"
        self.scan.mkdir(exist_ok=True)
        (self.folder / "log").mkdir(exist_ok=True)
        libraries = {str(path.parent) for path in self.root_folder.glob("usr/lib/**/lib*.so.*")}
        self.env |= {
            "PATH": f"{self.bin}:{self.env['PATH']}",
            "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        }
        self.declared = {}
        self.changed = []

    def _scanner(self):
        """s6-svscan, but for the path of s6-supervise."""
        original = (self.bin / "s6-svscan").read_bytes()
        if original.count(COMPILED_IN) != 1:
            raise Failed("s6-svscan does not hold the path of s6-supervise once")
        path = f"./{LINK}".encode().ljust(len(COMPILED_IN), b"\0")
        scanner = self.folder / "s6-svscan"
        scanner.write_bytes(original.replace(COMPILED_IN, path))
        scanner.chmod(0o755)
        (self.scan / LINK).symlink_to(self.bin / "s6-supervise")
        return scanner

    def launch(self):
        # By default it takes at most 500 services.
        self.process = commands.start(
            [self._scanner(), "-c", 4000, self.scan], self.env, self.folder
        )
        control = self.scan / ".s6-svscan" / "control"
        self.wait_for("its control", lambda: True if control.exists() else None)

    def declare(self, components):
        self.changed = []
        for component in components:
            if self.declared.get(component.name) == component:
                continue
            if component.name in self.declared:
                self.changed.append(component.name)
            write_service(self.scan / component.name, component, self._logger(component))
            self.declared[component.name] = component

    def _logger(self, component):
        return f"exec s6-log -b n1000 s{LARGEST_LOG} {self._log_folder(component.name)}\n"

    def apply(self, bound):
        if self.changed:
            # It is told by hand: nothing looks whether a run script has changed.
            for name in self.changed:
                ran = self.run([self.bin / "s6-svc", "-r", self.scan / name], bound).checked()
            return ran
        self.run([self.bin / "s6-svscanctl", "-a", self.scan], bound).checked()
        return None

    def status(self, bound):
        loop = f'for service in {self.scan}/*; do s6-svstat "$service"; done'
        return self.run(["/bin/sh", "-c", loop], bound).checked()

    def stop(self, bound):
        self.run([self.bin / "s6-svscanctl", "-t", self.scan], bound).checked()

    def quit(self):
        if linux.alive(self.process.pid) and self.process.poll() is None:
            self.end_process(signal.SIGTERM)

    def log_files(self, name):
        folder = self._log_folder(name)
        return [*sorted(folder.glob("@*")), folder / "current"]

    def _log_folder(self, name):
        return self.folder / "log" / name


def write_service(folder, component, logger):
    """A service folder as s6 and runit know it, whole or not at all."""
    draft = folder.with_name(f".{folder.name}.new")
    draft.mkdir(parents=True)
    exports = "".join(
        f"export {name}={shlex.quote(str(value))}\n" for name, value in component.env.items()
    )
    command = shlex.join(map(str, component.argv))
    _write_script(draft / "run", f"{exports}exec 2>&1\nexec {command}\n")
    if component.logged:
        (draft / "log").mkdir()
        _write_script(draft / "log" / "run", logger)
    if folder.exists():
        # Its supervisor lives in this folder, which therefore stays.
        (draft / "run").rename(folder / "run")
        shutil.rmtree(draft)
    else:
        draft.rename(folder)


def _write_script(path: Path, body):
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)
