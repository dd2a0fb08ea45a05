"""The programs of this repository that take part, as cargo has built them."""

import re
import subprocess
from pathlib import Path

BUILD = "cargo build --release --bins --examples"


class NotBuilt(Exception):
    """A program is not there; says how to make it."""


class Programs:
    """A folder like target/release."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()

    def path(self, name):
        """stigmer itself or one of the examples."""
        path = self.folder / name if name == "stigmer" else self.folder / "examples" / name
        if not path.exists():
            raise NotBuilt(f"{path} is not there; build it first: {BUILD}")
        return path

    def stigmer_version(self):
        """As it says itself."""
        done = subprocess.run(
            [self.path("stigmer"), "--version"], capture_output=True, text=True, check=True
        )
        return re.sub(r"^stigmer ", "", done.stdout.strip())
