"""The limit: `examples/bare.rs`, a loop of posix_spawn and waitpid."""

import subprocess

from harness import commands
from harness.commands import Failed
from supervisors.base import QUIT_SECONDS, Supervisor


class Bare(Supervisor):
    name = "bare loop"
    settings = "one process that decides nothing; standard output is one file for all"
    least_delay = "0"
    shows_status = False
    can_change = False

    @classmethod
    def check(cls, tools, programs):
        programs.path("bare")
        return "posix_spawn, waitpid"

    def declare(self, components):
        self.components = components

    def apply(self, bound):
        first = self.components[0]
        self.process = commands.start(
            [self.programs.path("bare"), len(self.components), *first.argv],
            self.env,
            self.folder,
            stdin=subprocess.PIPE,
        )

    def stop(self, bound):
        self.process.stdin.close()

    def quit(self):
        if self.process is None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed("did not end") from None

    def log_files(self, name):
        return [self.folder / "supervisor.out"]
