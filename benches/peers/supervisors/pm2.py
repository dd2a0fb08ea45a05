"""PM2: a daemon in Node, told by an ecosystem file."""

import json
from pathlib import Path

from harness import linux
from supervisors.base import QUIT_SECONDS, Supervisor


class Pm2(Supervisor):
    name = "PM2"
    settings = (
        "fork mode, no interpreter, `max_restarts` out of reach, `vizion` and `pmx` off (it does "
        "not look for a Git repository and injects nothing)"
    )
    least_delay = "0 (`restart_delay` is not set)"

    @classmethod
    def check(cls, tools, programs):
        tools.npm()
        return tools.npm_version()

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.home = self.folder / "pm2"
        self.env |= {"PM2_HOME": str(self.home), "PM2_DISABLE_VERSION_CHECK": "true", "CI": "1"}
        self.ecosystem = self.folder / "ecosystem.json"
        self.restart = {"max_restarts": 1_000_000_000, "min_uptime": 100}
        self.applied = False

    def launch(self):
        self._ask("ping", bound=60)
        self.daemon = int((self.home / "pm2.pid").read_text())

    def declare(self, components):
        apps = [self._app(component) for component in components]
        self.ecosystem.write_text(json.dumps({"apps": apps}))

    def _app(self, component):
        program, *arguments = map(str, component.argv)
        return {
            "name": component.name,
            "script": program,
            "args": arguments,
            "interpreter": "none",
            "exec_mode": "fork",
            "env": component.env,
            "out_file": str(self._log(component.name)),
            "error_file": str(self._log(component.name)),
            "vizion": False,
            "pmx": False,
            **self.restart,
        }

    def apply(self, bound):
        # The command that makes what runs as the file says, for what is new and what is known.
        return self._ask("startOrRestart", self.ecosystem, bound=bound)

    def status(self, bound):
        return self._ask("list", bound=bound)

    def stop(self, bound):
        return self._ask("stop", "all", bound=bound)

    def quit(self):
        self._ask("kill", bound=4 * QUIT_SECONDS)
        self.wait_for("its end", lambda: None if linux.alive(self.daemon) else True)

    def root(self):
        return self.daemon

    def _ask(self, command, *options, bound):
        program = Path(self.tools.npm()) / "bin" / "pm2"
        return self.run([self.tools.node(), program, command, *options], bound).checked()
