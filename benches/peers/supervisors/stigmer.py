"""stigmer itself, by its own commands, in a home of its own."""

import json

from harness import linux
from supervisors.base import QUIT_SECONDS, Supervisor


class Stigmer(Supervisor):
    name = "stigmer"
    settings = (
        "backoff 0 s, restarts unlimited; `apply` returns once every component has lived for a "
        "quarter of a second"
    )
    least_delay = "0"

    @classmethod
    def check(cls, tools, programs):
        programs.path("stigmer")
        return programs.stigmer_version()

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.stigmer = programs.path("stigmer")
        self.env["STIGMER_HOME"] = str(self.folder / "home")
        self.manifest = self.folder / "stigmer.yaml"
        self.restart = {
            "max_restarts": "unlimited",
            "min_uptime": "1s",
            "backoff": {"initial": "0s"},
        }

    def launch(self):
        self.run([self.stigmer, "daemon", "--detach"], 30).checked()
        daemon = json.loads(self.run([self.stigmer, "ping", "-o", "json"], 30).checked().output)
        self.keeper = daemon["daemon"]["pid"]
        self.engine = daemon["daemon"]["engine_pid"]

    def declare(self, components):
        # JSON is YAML.
        manifest = {
            "project": "bench",
            "defaults": {"restart": self.restart, "logs": {"max_size": "1TB"}},
            "components": {c.name: {"command": c.argv, "env": c.env} for c in components},
        }
        self.manifest.write_text(json.dumps(manifest, default=str))

    def apply(self, bound):
        return self._ask("apply", bound=bound)

    def status(self, bound):
        return self._ask("status", bound=bound)

    def stop(self, bound):
        return self._ask("stop", bound=bound)

    def quit(self):
        self.run([self.stigmer, "down", "--all"], 4 * QUIT_SECONDS)
        if linux.alive(self.keeper):
            self.run(["/bin/kill", str(self.keeper)], QUIT_SECONDS)
        self.wait_for("its end", lambda: None if linux.alive(self.keeper) else True)

    def root(self):
        return self.keeper

    def log_files(self, name):
        return [self.folder / "home" / "logs" / "bench" / f"{name}.log"]

    def _ask(self, command, *options, bound):
        argv = [self.stigmer, command, "-f", self.manifest, *options]
        return self.run(argv, bound).checked()
