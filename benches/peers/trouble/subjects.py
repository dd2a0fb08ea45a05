"""The supervisors that trouble is made for, with their own names for what a scenario needs.

A subject is a supervisor of `supervisors/` that also can be killed and brought back as its
documentation says, tells what its status shows of one component, and has words for limits,
policies and rotation. It writes down each command, so that the report can show how to repeat it.
"""

import json
import os
import re
import signal
from pathlib import Path

from harness import linux
from harness.commands import Failed
from supervisors.pm2 import Pm2
from supervisors.stigmer import Stigmer
from supervisors.supervisord import Supervisord

BOUND = 60
INSTALL_SECONDS = 120

# Commands that find out pids and states.
ASKED = {"ping", "-o", "jlist", "pid"}


class Noted:
    """Writes down what is done to it, in words that can be typed."""

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.notes = []
        self.declared_env = {}

    def note(self, text):
        """One step; the same step twice in a row is one."""
        text = text.replace(f"{self.folder}/", "")
        if not self.notes or self.notes[-1] != text:
            self.notes.append(text)

    def run(self, argv, bound):
        words = [Path(str(word)).name if "/" in str(word) else str(word) for word in argv]
        if words[0] == "node":
            del words[0]
        # What only this program asks for is no step.
        if not ASKED.intersection(words):
            self.note(" ".join(words))
        return super().run(argv, bound)

    def declare(self, components):
        alike = {}
        for component in components:
            alike.setdefault(self.described(component), []).append(component.name)
        for description, names in alike.items():
            self.note(f"declare {', '.join(names)}: {description}")
        super().declare(components)

    def first_line(self, text):
        """Of what a command said: without colours, and without the folders of this run."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"{self.folder}/", "")
        lines = [line.strip() for line in plain.splitlines() if line.strip()]
        if not lines:
            raise Failed("it said nothing")
        return lines[0]

    def described(self, component):
        """The command, and what is set besides."""
        command = " ".join(
            Path(word).name if word.startswith("/") else word for word in map(str, component.argv)
        )
        keys = json.dumps(self.restart) if self.restart else "defaults"
        return f"`{command}`, {keys}"

    def kill(self, pids, who):
        """SIGKILL to these processes of the supervisor, all of them before any can react."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.note(f"kill -9 ({who})")
        for pid in pids:
            self.wait_for(f"the end of {pid}", lambda pid=pid: None if linux.alive(pid) else True)

    def kill_all(self):
        """The supervisor and whatever belongs to it."""
        self.kill(self.supervisor_pids(), "the supervisor")


class StigmerSubject(Noted, Stigmer):
    defaults = {}

    def limited(self, restarts):
        return {"max_restarts": restarts, "backoff": {"initial": "0s"}}

    def on_failure(self):
        return {"policy": "on-failure", "backoff": {"initial": "0s"}}

    misspelt = {"max_restart": 3}

    def rotated(self, size):
        """Set for all components of the manifest."""
        self.rotation = {"max_size": size, "max_files": 1000}
        return {}

    rotation = None

    def declare(self, components):
        super().declare(components)
        manifest = json.loads(self.manifest.read_text())
        if self.rotation:
            manifest["defaults"]["logs"] = self.rotation
        for component in components:
            if component.name in self.secrets:
                env = manifest["components"][component.name]["env"]
                env["TOKEN"] = {"secret": {"file": str(self.secrets[component.name])}}
        self.manifest.write_text(json.dumps(manifest, default=str))

    secrets = {}

    def declare_secret(self, component, value):
        file = self.folder / "secret"
        file.write_text(value)
        file.chmod(0o600)
        self.secrets = {component.name: file}
        self.note("env: {TOKEN: {secret: {file: secret}}}")
        self.declare([component])
        return [file]

    def supervisor_pids(self):
        return [self.keeper, self.engine]

    def listing(self):
        ran = self.run([self.stigmer, "status", "-f", self.manifest], BOUND)
        return self.first_line(ran.output), " three " in ran.output

    def bring_back(self):
        self.apply(BOUND)
        self.learn_pids()

    def learn_pids(self):
        """Of the daemon that answers now."""
        daemon = json.loads(self.run([self.stigmer, "ping", "-o", "json"], 30).checked().output)
        self.keeper, self.engine = (daemon["daemon"][key] for key in ("pid", "engine_pid"))

    def shown(self, name):
        ran = self.run([self.stigmer, "status", "-f", self.manifest], BOUND)
        line = next((line for line in ran.output.splitlines() if f" {name} " in line), None)
        return " ".join(line.split()) if line else "not shown"

    def shown_pid(self, name):
        ran = self.run([self.stigmer, "status", "-o", "json", "-f", self.manifest], BOUND)
        found = [c for c in json.loads(ran.output)["components"] if c["name"] == name]
        return found[0]["pid"] if found else None

    def save(self):
        """Nothing is saved by hand."""

    def written(self):
        """Everything that it has written itself."""
        return self.folder / "home"

    def log_files(self, name):
        folder = self.folder / "home" / "logs" / "bench"
        rotated = [path for path in folder.glob(f"{name}.log.*") if path.suffix != ".idx"]
        return [*sorted(rotated), folder / f"{name}.log"]


class Pm2Subject(Noted, Pm2):
    defaults = {}

    def limited(self, restarts):
        return {"max_restarts": restarts}

    def on_failure(self):
        return {"stop_exit_codes": [0]}

    misspelt = {"max_restart": 3}

    def rotated(self, size):
        """A module of its own makers, which looks once a second here, as often as it can."""
        # It fetches the module by npm, which may need what this machine says of certificates.
        kept, self.env = self.env, {**os.environ, **self.env}
        try:
            argv = [self.tools.node(), self.program(), "install", "pm2-logrotate"]
            self.run(argv, INSTALL_SECONDS).checked()
        finally:
            self.env = kept
        for key, value in (("max_size", size), ("retain", 1000), ("workerInterval", 1)):
            self._ask("set", f"pm2-logrotate:{key}", str(value), bound=BOUND)
        return {}

    def declare_secret(self, component, value):
        self.note(f"env: {{TOKEN: {value}}}")
        self.declare([component.with_env("TOKEN", value)])
        return [self.ecosystem]

    def supervisor_pids(self):
        return [self.daemon]

    def listing(self):
        ran = self._ask("list", bound=BOUND)
        # It has started another daemon to ask.
        self.daemon = int((self.home / "pm2.pid").read_text())
        return self.first_line(ran.output), " three " in ran.output

    def bring_back(self):
        self._ask("resurrect", bound=BOUND)
        self.daemon = int((self.home / "pm2.pid").read_text())

    def shown(self, name):
        known = self._known(name)
        if known is None:
            return "not shown"
        env = known["pm2_env"]
        text = f"{env['status']}, {env['restart_time']} restarts"
        return text + (f", exit code {env['exit_code']}" if "exit_code" in env else "")

    def shown_pid(self, name):
        known = self._known(name)
        return known["pid"] if known else None

    def _known(self, name):
        output = self._ask("jlist", bound=BOUND).output
        apps = json.loads(output[output.index("[{") :]) if "[{" in output else []
        return next((app for app in apps if app["name"] == name), None)

    def save(self):
        """What `resurrect` needs."""
        self._ask("save", bound=BOUND)

    def written(self):
        return self.home

    def program(self):
        return Path(self.tools.npm()) / "bin" / "pm2"

    def log_files(self, name):
        rotated = [path for path in self.folder.glob(f"{name}*.log")]
        return sorted(rotated, key=lambda path: path.stat().st_mtime)


class SupervisordSubject(Noted, Supervisord):
    defaults = {}

    def limited(self, restarts):
        return {"startretries": restarts, "autorestart": "true"}

    def on_failure(self):
        return {"autorestart": "unexpected", "startsecs": 0}

    misspelt = {"startretrys": 3}

    def rotated(self, size):
        return {"stdout_logfile_maxbytes": size, "stdout_logfile_backups": 1000}

    def declare_secret(self, component, value):
        # The daemon is started with the variable, and its configuration refers to it.
        self.note("environment = TOKEN=%(ENV_TOKEN)s")
        self.declare([component.with_env("TOKEN", "%(ENV_TOKEN)s")])
        return []

    def supervisor_pids(self):
        return [self.process.pid]

    def kill_all(self):
        super().kill_all()
        self.process.wait()

    def listing(self):
        ran = self.run([self.python / "supervisorctl", "-c", self.config, "status"], BOUND)
        return self.first_line(ran.output), "three" in ran.output.split()

    def bring_back(self):
        self.note("supervisord -c supervisord.conf")
        self.start_daemon()

    def shown(self, name):
        ran = self.run([self.python / "supervisorctl", "-c", self.config, "status", name], BOUND)
        line = " ".join(self.first_line(ran.output).split())
        return line.removeprefix(f"{name} ")

    def shown_pid(self, name):
        ran = self.run([self.python / "supervisorctl", "-c", self.config, "pid", name], BOUND)
        return int(ran.output) if ran.output.strip().isdigit() else None

    def save(self):
        """Nothing is saved at all."""

    def written(self):
        return self.folder

    def log_files(self, name):
        rotated = [path for path in self.folder.glob(f"{name}.log*")]
        return sorted(rotated, key=lambda path: path.stat().st_mtime)


ALL = [StigmerSubject, Pm2Subject, SupervisordSubject]
