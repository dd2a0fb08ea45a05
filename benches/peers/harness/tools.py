"""Installs the peers into a folder of their own: nothing of the system is changed.

    npm install pm2         ──> FOLDER/npm
    pip install supervisor  ──> FOLDER/python    (with circus, in a virtual environment)
    apt-get download s6 ... ──> FOLDER/debian    (unpacked by dpkg -x, not installed)

A peer that cannot be installed here (no npm, no Debian, no network) is told with its reason.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# What was compared; a newer one may be given by the environment variable behind it.
PM2 = os.environ.get("PEERS_PM2", "pm2@7.0.4")
SUPERVISOR = os.environ.get("PEERS_SUPERVISOR", "supervisor==4.3.0")
CIRCUS = os.environ.get("PEERS_CIRCUS", "circus==0.19.0")
# Debian has one version of each. The libraries are those that s6 and execline are linked with.
S6 = ["s6", "execline", "libs6-*", "libexecline*", "libskarnet*"]
RUNIT = ["runit"]

INSTALL_SECONDS = 300


class Unavailable(Exception):
    """This peer cannot be installed here."""


class Tools:
    """Where the programs of the peers are."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def npm(self):
        """The folder of PM2's package."""
        package = self.folder / "npm" / "node_modules" / "pm2"
        if not package.exists():
            place = self.folder / "npm"
            place.mkdir(exist_ok=True)
            (place / "package.json").write_text('{"private": true}')
            _run(
                [_program("npm"), "install", PM2, "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=place,
                env={**os.environ, "npm_config_cache": str(self.folder / "npm-cache")},
            )
        return package

    def node(self):
        """The interpreter of PM2."""
        return _program("node")

    def python(self):
        """The folder with the programs of supervisord and circus."""
        place = self.folder / "python"
        if not (place / "bin" / "circusd").exists():
            _run([sys.executable, "-m", "venv", place])
            _run(
                [place / "bin" / "pip", "install", "--quiet", "--no-cache-dir", SUPERVISOR, CIRCUS]
            )
        return place / "bin"

    def python_version(self, package):
        """Of supervisor or circus, and of what runs it."""
        words = [self.python() / "pip", "show", package]
        version = next(
            line.split()[1] for line in _run(words).splitlines() if line.startswith("Version:")
        )
        return f"{version}, Python {platform.python_version()}"

    def debian(self, packages):
        """The root under which these packages are unpacked."""
        root = self.folder / "debian"
        done = root / f".{packages[0]}"
        if not done.exists():
            fetched = self.folder / "debs" / packages[0]
            fetched.mkdir(parents=True, exist_ok=True)
            _run([_program("apt-get"), "download", *_names(packages)], cwd=fetched)
            for package in fetched.glob("*.deb"):
                _run([_program("dpkg"), "-x", package, root])
            done.touch()
        return root

    def debian_version(self, package):
        """Of one that was fetched."""
        file = next((self.folder / "debs").glob(f"*/{package}_*.deb"))
        return _run([_program("dpkg-deb"), "-f", file, "Version"]).strip()

    def npm_version(self):
        """Of PM2, and of what runs it."""
        version = json.loads((self.npm() / "package.json").read_text())["version"]
        return f"{version}, Node {_run([self.node(), '--version']).strip()}"


def _names(packages):
    """Libraries have their version in their name: those of this release, by what the first of the
    packages depends on."""
    depends = _run([_program("apt-cache"), "depends", packages[0]]).split()
    names = []
    for package in packages:
        prefix = package.removesuffix("*").removesuffix("-")
        found = [word for word in depends if word.startswith(prefix)]
        names.append(found[0] if package.endswith("*") and found else package)
    return names


def _program(name):
    if path := shutil.which(name):
        return path
    raise Unavailable(f"{name} is not there")


def _run(argv, **options):
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, **options
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(words[:3])}: not done in {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(words[:3])}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout
