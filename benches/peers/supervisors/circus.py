"""circus: a daemon in Python over ZeroMQ, told by one file of watchers."""

import shlex

from harness import commands
from supervisors.base import LAUNCH_SECONDS, Supervisor


class Circus(Supervisor):
    name = "circus"
    settings = "one watcher a component; both outputs in one log; flapping is a plugin that is off"
    # It looks for the dead at this interval and never between.
    check_delay = 5.0
    least_delay = "its `check_delay`, 5 s by default; 0.1 s in the rows about crashes"

    @classmethod
    def check(cls, tools, programs):
        return tools.python_version("circus")

    def __init__(self, tools, programs, folder):
        super().__init__(tools, programs, folder)
        self.python = tools.python()
        self.config = self.folder / "circus.ini"

    def hurry(self):
        """The settings with which it replaces soon, at the price of looking ten times a second."""
        self.check_delay = 0.1

    def launch(self):
        self.declare([])
        self.process = commands.start([self.python / "circusd", self.config], self.env, self.folder)
        self.wait_for("its answer", self._answers)

    def _answers(self):
        ran = self.run([*self._client(1), "numwatchers"], LAUNCH_SECONDS)
        return True if ran.code == 0 and "Error" not in ran.output else None

    def declare(self, components):
        text = f"""[circus]
check_delay = {self.check_delay}
endpoint = ipc://{self.folder}/endpoint
pubsub_endpoint = ipc://{self.folder}/pubsub
logoutput = {self.folder}/circus.log
"""
        self.config.write_text(text + "".join(map(self._watcher, components)))

    def _watcher(self, component):
        log = self._log(component.name)
        program, *arguments = map(str, component.argv)
        text = f"""
[watcher:{component.name}]
cmd = {program}
args = {shlex.join(arguments)}
copy_env = true
stdout_stream.class = FileStream
stdout_stream.filename = {log}
stderr_stream.class = FileStream
stderr_stream.filename = {log}
"""
        for name, value in component.env.items():
            text += f"[env:{component.name}]\n{name} = {value}\n"
        return text

    def apply(self, bound):
        return self._ask("reloadconfig", "--waiting", bound=bound)

    def status(self, bound):
        return self._ask("status", bound=bound)

    def stop(self, bound):
        return self._ask("stop", "--waiting", bound=bound)

    def quit(self):
        self.end_process()

    def _client(self, bound):
        endpoint = f"ipc://{self.folder}/endpoint"
        return [self.python / "circusctl", "--endpoint", endpoint, "--timeout", str(int(bound))]

    def _ask(self, *words, bound):
        return self.run([*self._client(bound), *words], bound).checked()
