"""Who has so many components: stigmer, with one kind of probe, and the bare loop.

Both are those of benches/peers; what differs is that many components need time, and that they may have
probes.
"""

import json

from harness import linux
from supervisors.stigmer import Stigmer

# More than any command needs, so that what is measured here is the end and not a limit.
COMMAND_TIMEOUT = "3h"
UNHEALTHY = 3


def tcp(number, ports, interval):
    """A connection to one of the ports of the benchmark's own listener."""
    return _liveness({"tcp": ports[number % len(ports)]}, interval)


def execute(_number, _ports, interval):
    """The cheapest program there is."""
    return _liveness({"exec": ["/bin/true"]}, interval)


def _liveness(check, interval):
    # A machine that is too slow for so many probes shall show it in their results, and not by restarts,
    # of which everything else would be full.
    return {"liveness": {**check, "interval": f"{interval}s", "failure_threshold": 1_000_000}}


PROBES = {"none": None, "tcp": tcp, "exec": execute}


class Probed(Stigmer):
    """stigmer, each of whose components has a liveness probe, or none."""

    probes = None

    def probe_with(self, kind, listener, interval):
        """Declares probes of this kind from now on."""
        self.probes, self.interval = PROBES[kind], interval
        self.ports = listener.ports if listener else []

    def declare(self, components):
        super().declare(components)
        if not self.probes:
            return
        manifest = json.loads(self.manifest.read_text())
        for number, component in enumerate(manifest["components"].values()):
            component["probes"] = self.probes(number, self.ports, self.interval)
        self.manifest.write_text(json.dumps(manifest))

    def apply(self, bound):
        return self._ask("apply", "--timeout", COMMAND_TIMEOUT, bound=bound)

    def stop(self, bound):
        return self._ask("stop", "--timeout", COMMAND_TIMEOUT, bound=bound)

    def start(self, bound):
        """Again, after a stop."""
        return self._ask("start", "--timeout", COMMAND_TIMEOUT, bound=bound)

    def down(self, bound):
        return self._ask("down", "--timeout", COMMAND_TIMEOUT, bound=bound)

    def components(self, bound):
        """What it says of each of them."""
        said = self.run([self.stigmer, "status", "-f", self.manifest, "-o", "json"], bound)
        # Which is also what it says of those that are not as they should be.
        if said.code != UNHEALTHY:
            said.checked()
        return json.loads(said.output)["components"]

    def quit(self):
        argv = [self.stigmer, "down", "--all", "--timeout", COMMAND_TIMEOUT]
        self.run(argv, 3600).checked()
        if linux.alive(self.keeper):
            self.run(["/bin/kill", str(self.keeper)], 60)
        self.wait_for("its end", lambda: None if linux.alive(self.keeper) else True)
