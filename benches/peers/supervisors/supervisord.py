"""supervisord: a daemon in Python, told by a file for each program."""

import shlex

from harness import commands
from supervisors.base import LAUNCH_SECONDS, Supervisor

# A pipe and a log for each program, and some more.
DESCRIPTORS = 10_000


class Supervisord(Supervisor):
    name = "supervisord"
    settings = "`startsecs=0`, so that a command waits for no uptime; both outputs in one log"
    least_delay = "0 (`startsecs=0`)"

    @classmethod
    def check(cls, tools, programs):
        return tools.python_version("supervisor")

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.python = tools.python()
        self.config = self.folder / "supervisord.conf"
        self.programs_folder = self.folder / "conf.d"
        self.programs_folder.mkdir(exist_ok=True)
        self.restart = {"startsecs": 0, "autorestart": "true"}

    def launch(self):
        socket = self.folder / "supervisor.sock"
        self.config.write_text(f"""
[unix_http_server]
file = {socket}
[supervisord]
nodaemon = true
minfds = {DESCRIPTORS}
logfile = {self.folder}/supervisord.log
pidfile = {self.folder}/supervisord.pid
childlogdir = {self.folder}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://{socket}
[include]
files = {self.programs_folder}/*.conf
""")
        self.start_daemon()

    def start_daemon(self):
        """Also after its death."""
        self.process = commands.start(
            [self.python / "supervisord", "-c", self.config], self.env, self.folder
        )
        self.wait_for("its answer", self._answers)

    def _answers(self):
        ran = self.run([self.python / "supervisorctl", "-c", self.config, "pid"], LAUNCH_SECONDS)
        return True if ran.code == 0 else None

    def declare(self, components):
        wanted = set()
        for component in components:
            path = self.programs_folder / f"{component.name}.conf"
            path.write_text(self._program(component))
            wanted.add(path)
        for path in set(self.programs_folder.iterdir()) - wanted:
            path.unlink()

    def _program(self, component):
        environment = ",".join(f'{name}="{value}"' for name, value in component.env.items())
        keys = {
            "command": shlex.join(map(str, component.argv)),
            "environment": environment,
            "redirect_stderr": "true",
            "stdout_logfile": self._log(component.name),
            "stdout_logfile_maxbytes": 0,
            **self.restart,
        }
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        return f"[program:{component.name}]\n{lines}"

    def apply(self, bound):
        return self._ask("update", bound=bound)

    def status(self, bound):
        return self._ask("status", bound=bound)

    def stop(self, bound):
        return self._ask("stop", "all", bound=bound)

    def quit(self):
        self.end_process()

    def _ask(self, *words, bound):
        return self.run([self.python / "supervisorctl", "-c", self.config, *words], bound).checked()
