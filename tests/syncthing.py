"""Two real Syncthing nodes that share one folder, on loopback only, for tests (the recipe of facts/files.md §1)."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil

from harness import wait_for

FOLDER, KEY = "ws", "loopback"
PATIENCE = 60.0
_OFF = (
    "globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "crashReportingEnabled",
    "startBrowser", "announceLANAddresses",
)  # fmt: skip
_OPTIONS = {"urAccepted": "-1", "autoUpgradeIntervalH": "0", "stunKeepaliveStartS": "0", "reconnectionIntervalS": "1"}


def missing() -> str:
    """Why these tests cannot run here, in words; "" if they can."""
    return "" if shutil.which("syncthing") else "syncthing is not installed (apt-get install syncthing)"


class Node:
    """One Syncthing, with its own copy of the folder."""

    def __init__(self, base: Path, name: str) -> None:
        self.folder, self.home, self.log = base / name, base / f"{name}.home", base / f"{name}.syncthing.log"
        self.name, self.sync_port, self.gui_port = name, _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(exist_ok=True)
        command = ["syncthing", "generate", f"--home={self.home}", "--no-default-folder", "--skip-port-probing"]
        subprocess.run(command, check=True, capture_output=True, env=_environment(), timeout=PATIENCE)
        found = re.search(r'<device id="([A-Z0-9-]+)"', (self.home / "config.xml").read_text())
        assert found
        self.device = found[1]

    def configure(self, peer: Node, *, dials: bool) -> None:
        """Before the first start, so that nothing ever leaves loopback. Of two that dial each other at the same moment
        both hang up, and wait for long: one alone shall do it."""
        path = self.home / "config.xml"
        tree = ET.parse(path)  # our own file
        root = tree.getroot()
        options = root.find("options")
        gui = root.find("gui")
        assert options is not None
        assert gui is not None
        listen = f"tcp://127.0.0.1:{self.sync_port}"
        for name, value in {**dict.fromkeys(_OFF, "false"), **_OPTIONS, "listenAddress": listen}.items():
            for old in options.findall(name):
                options.remove(old)
            ET.SubElement(options, name).text = value
        for name, value in (("address", f"127.0.0.1:{self.gui_port}"), ("apikey", KEY)):
            for old in gui.findall(name):
                gui.remove(old)
            ET.SubElement(gui, name).text = value
        device = ET.SubElement(root, "device", id=peer.device, name=peer.name, compression="never")
        ET.SubElement(device, "address").text = f"tcp://127.0.0.1:{peer.sync_port}" if dials else "dynamic"
        folder = ET.SubElement(
            root, "folder", id=FOLDER, label=FOLDER, path=str(self.folder), type="sendreceive", rescanIntervalS="3600",
            fsWatcherEnabled="true", fsWatcherDelayS="1",
        )  # fmt: skip
        for each in (self.device, peer.device):
            ET.SubElement(folder, "device", id=each)
        ET.SubElement(folder, "maxConflicts").text = "10"  # left out, it would be 0: the loser is gone
        ET.SubElement(folder, "markerName").text = ".stfolder"
        tree.write(path)
        (self.folder / ".stfolder").mkdir(exist_ok=True)

    def start(self) -> None:
        """Start, and wait until it answers. One that was killed may hold its database for a moment yet: once more."""
        wait_for(self._answers, f"Syncthing of {self.name} answers; see {self.log}", PATIENCE)

    def kill(self) -> None:
        """SIGKILL to all of it: the monitor and the process that works."""
        if self._process is None:
            return
        working: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            working = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for each in working:  # it lives in a group of its own
            with suppress(psutil.NoSuchProcess):
                each.kill()
        wait_for(lambda: all(map(_is_dead, working)), "it dies", PATIENCE)
        self._process = None

    def scan(self, sub: str = "") -> None:
        """Have it look at the folder now; returns when it has."""
        self.call("POST", f"db/scan?folder={FOLDER}" + (f"&sub={sub}" if sub else ""))

    def connected(self, peer: Node) -> bool:
        found = self.call("GET", "system/connections")["connections"].get(peer.device)
        return bool(found and found["connected"])

    def idle(self) -> bool:
        """True if it needs nothing and does nothing."""
        status = self.call("GET", f"db/status?folder={FOLDER}")
        return status["state"] == "idle" and not status["needTotalItems"]

    def call(self, method: str, path: str) -> Any:
        """Ask its REST interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.gui_port}/rest/{path}", method=method, headers={"X-API-Key": KEY}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = opener.open(request, timeout=PATIENCE)
        except ConnectionResetError:  # an answer that a change of its settings cut off
            answer = opener.open(request, timeout=PATIENCE)
        with answer:
            body = answer.read()
        return json.loads(body) if body else None

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            words = ["syncthing", "serve", f"--home={self.home}", "--no-browser", "--no-restart", "--no-upgrade"]
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), start_new_session=True
                )
        try:
            return bool(self.call("GET", "system/ping"))
        except OSError:
            return False


class Pair:
    """Two nodes, connected."""

    def __init__(self, base: Path, one: str, two: str) -> None:
        self.one, self.two = Node(base, one), Node(base, two)
        self.nodes = (self.one, self.two)

    def start(self) -> None:
        self.one.configure(self.two, dials=True)
        self.two.configure(self.one, dials=False)
        for node in self.nodes:
            node.start()
        self.join()

    def join(self) -> None:
        """Wait until they are connected."""
        wait_for(lambda: self.one.connected(self.two) and self.two.connected(self.one), "the nodes connect", PATIENCE)

    def part(self) -> None:
        """A partition: nothing passes between them until ``heal``."""
        self.one.call("POST", f"system/pause?device={self.two.device}")
        self.two.call("POST", f"system/pause?device={self.one.device}")
        wait_for(lambda: not self.one.connected(self.two), "the nodes part", PATIENCE)

    def heal(self) -> None:
        """Both look at what changed meanwhile, and meet again."""
        for node in self.nodes:
            node.scan()
        self.two.call("POST", f"system/resume?device={self.one.device}")  # first who is called, then who calls
        self.one.call("POST", f"system/resume?device={self.two.device}")
        self.join()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _free_port() -> int:
    """A port below those that the system gives away by itself, so that nobody takes it before Syncthing does."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000)))
            return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "STNOUPGRADE": "1", "STNODEFAULTFOLDER": "1", "HOME": os.environ.get("HOME", "/")}
