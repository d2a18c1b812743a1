"""The image: built from the Dockerfile, and run as a careful owner would run it.

Docker is not needed: buildah builds and podman runs, each in a storage of its own that is removed afterwards. The base
image is made here from Debian's packages and stands in for ``python:…-slim`` (an older Python, with its bytecode):
sizes and start-up times of the official base are not proven by this.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

ROOT = Path(__file__).parent.parent
PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CAREFUL = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
    # Podman's defaults are above what a machine that is itself a container may set.
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def why_not() -> str:
    """Return why no image can be built and run here, or ""."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root: it makes a Debian root and mounts images"
    return ""


def wait_until(happened: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Return once ``happened()`` is true; fail, naming ``what``, if that takes longer than ``seconds``."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


class Containers:
    """Buildah and podman over a storage of our own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.storage = [f"--root={home}/store", f"--runroot={home}/run"]

    def call(self, *command: str | Path, good: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL)
        if done.returncode not in good:
            pytest.fail(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def buildah(self, *arguments: str | Path) -> str:
        return self.call("buildah", *self.storage, *arguments).stdout.strip()

    def podman(self, *arguments: str | Path, good: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        return self.call(*self.podman_words(*arguments), good=good)

    def podman_words(self, *arguments: str | Path) -> list[str]:
        own = ("--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file", f"--tmpdir={self.home}/tmp")
        return [str(word) for word in ("podman", *self.storage, *own, *arguments)]

    def make_base(self, name: str) -> None:
        """Make an image ``name`` that has what ``python:…-slim`` has: a small Debian, and ``python3`` on its path.

        Skips the test where Debian's packages cannot be had: that says nothing about our image.
        """
        suite = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
        ).get("VERSION_CODENAME", "bookworm")
        leave_out = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "locale", "man")]
        made = subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                "--include=python3,python3-venv,ca-certificates,tzdata",
                *leave_out,
                suite.strip('"'),
                self.home / "base.tar",
            ],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if made.returncode != 0:
            pytest.skip(f"no base image could be made: {made.stderr.strip()[-500:]}")
        self.podman("import", self.home / "base.tar", name)

    def build(self, context: Path, python: str, name: str) -> None:
        """Build the Dockerfile in ``context``, with this machine's certificates and package index, as ``name``."""
        settings = self.home / "pip.conf"
        settings.write_text(f"[global]\ncert = {CERTIFICATES}\n")
        if index := os.environ.get("PIP_INDEX_URL"):
            settings.write_text(settings.read_text() + f"index-url = {index}\n")
        self.buildah(
            "build",
            "--isolation=chroot",
            "--network=host",
            "--format=docker",
            "--pull-never",
            f"--build-arg=PY={python}",
            f"--volume={settings}:/etc/pip.conf:ro",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",
            f"--tag={name}",
            context,
        )

    def state(self, container: str, field: str) -> str:
        return self.podman("inspect", f"--format={{{{.State.{field}}}}}", container).stdout.strip()

    def is_healthy(self, container: str) -> bool:
        return self.podman("healthcheck", "run", container, good=(0, 1, 125)).returncode == 0

    def remove(self) -> None:
        self.podman("rm", "--all", "--force", "--time=0", good=(0, 1, 125))
        self.podman("rmi", "--all", "--force", good=(0, 1, 125))
        subprocess.run(["umount", "--recursive", "--lazy", self.home / "store/overlay"], capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    """Give a storage that holds the image ``localhost/fsagent:test``, built from this tree."""
    if reason := why_not():
        pytest.skip(reason)
    containers = Containers(Path(tempfile.mkdtemp(prefix="fsagent-containers-")))
    try:
        containers.make_base("localhost/python:fsagent-test-slim")
        containers.build(ROOT, "fsagent-test", "localhost/fsagent:test")
        yield containers
    finally:
        containers.remove()


def folder_of(uid: int, path: Path) -> Path:
    """Make a folder that belongs to ``uid``, reachable from a container."""
    path.mkdir(parents=True)
    os.chown(path, uid, uid)
    return path


def drop(workspace: Path, name: str, text: str) -> Path:
    """Drop a command as an editor of this machine does, and return where its result will be."""
    (workspace / "inbox" / name).write_text(text)
    return workspace / "outbox" / name


def test_a_locked_down_container_answers_and_survives_kill(containers: Containers, tmp_path: Path) -> None:
    workspace = folder_of(10001, tmp_path / "my-agent")
    run = ("run", "--detach", "--name=agent", *CAREFUL, f"--volume={workspace}:/workspace", "localhost/fsagent:test")
    containers.podman(*run)
    try:
        wait_until(lambda: containers.is_healthy("agent"), "healthy after the first start")

        # Nothing more than it needs: not root, no capability, none to be had.
        process = Path("/proc", containers.state("agent", "Pid"), "status").read_text().split("\n")
        status = {line.partition(":")[0]: line.partition(":")[2].split() for line in process}
        assert status["Uid"] == ["10001"] * 4
        assert int(status["CapEff"][0], 16) == 0
        assert status["NoNewPrivs"] == ["1"]
        readonly = containers.podman("exec", "agent", "python3", "-c", "open('/tmp/x', 'w')", good=(1,))
        assert "Read-only file system" in readonly.stderr

        answer = drop(workspace, "name.md", "My name is Alice.\n")
        wait_until(answer.exists, "a result for a file dropped into the volume")
        assert "status: done" in answer.read_text()

        containers.podman("kill", "--signal=KILL", "agent")
        wait_until(lambda: containers.state("agent", "Running") == "false", "killed")
        containers.podman("start", "agent")
        wait_until(lambda: containers.is_healthy("agent"), "healthy after kill -9 and a new start")
        answer = drop(workspace, "who.md", "What is my name?\n")
        wait_until(answer.exists, "a result after kill -9 and a new start")
        assert "Alice" in answer.read_text()

        asked = containers.podman("exec", "agent", "fsagent", "ask", "Who am I?")
        assert "Alice" in asked.stdout

        containers.podman("stop", "--time=40", "agent")
        assert containers.state("agent", "ExitCode") == "0", containers.podman("logs", "agent").stdout
    except BaseException:
        shown = containers.podman("logs", "agent", good=(0, 125))
        print(shown.stdout, shown.stderr)
        raise


TALK = """
import asyncio, sys, urllib.request
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

token, api = sys.argv[1], "http://127.0.0.1:8765"
headers = {"Authorization": f"Bearer {token}"}

def post(text):
    marked = headers | {"Content-Type": "text/markdown"}
    request = urllib.request.Request(f"{api}/v1/commands?wait=30", text.encode(), marked)
    return urllib.request.urlopen(request, timeout=40).read().decode()

async def send(text):
    async with httpx2.AsyncClient(headers=headers, timeout=40) as http:
        async with Client(streamable_http_client(f"{api}/mcp", http_client=http), mode="legacy") as client:
            result = await client.call_tool("send_command", {"text": text, "wait": 30})
            return result.content[0].text

print(post("My name is Alice."))
print(asyncio.run(send("What is my name?")))
"""


def test_headless_it_takes_commands_by_http_and_by_mcp(containers: Containers, tmp_path: Path) -> None:
    """No display, no terminal, no network but its own loopback: by HTTP, by MCP over HTTP, and by MCP on stdio."""
    workspace = folder_of(10001, tmp_path / "my-agent")
    containers.podman(
        "run", "--detach", "--name=faces", *CAREFUL, f"--volume={workspace}:/workspace", "localhost/fsagent:test",
        "run", "--init", "--api",
    )  # fmt: skip
    try:
        wait_until(lambda: containers.is_healthy("faces"), "healthy")
        wait_until(lambda: "api started" in containers.podman("logs", "faces").stdout, "the API listens")
        token = containers.podman("exec", "faces", "fsagent", "token").stdout.strip()
        told = containers.podman("exec", "faces", "python3", "-c", TALK, token).stdout
        assert "Remembered: Your name is Alice." in told
        assert "Your name is Alice." in told.splitlines()[-1]

        async def on_stdio() -> str:
            words = containers.podman_words("exec", "--interactive", "faces", "fsagent", "mcp")
            async with Client(StdioServerParameters(command="podman", args=words[1:]), mode="legacy") as client:
                result = await client.call_tool("send_command", {"text": "Call me Al", "wait": 30})
                return result.content[0].text

        assert "Al" in asyncio.run(asyncio.wait_for(on_stdio(), 60))
        logs = containers.podman("logs", "faces").stdout
        for trigger, count in (("http", 1), ("mcp", 2)):
            results = list((workspace / "outbox" / trigger).glob("*.md"))
            assert len(results) == count
            for result in results:
                assert f"trigger: {trigger}" in result.read_text()
                assert f"done        {trigger}/{result.name}" in logs
    except BaseException:
        shown = containers.podman("logs", "faces", good=(0, 125))
        print(shown.stdout, shown.stderr)
        raise


def test_runs_as_whoever_owns_the_folder(containers: Containers, tmp_path: Path) -> None:
    """A uid that the image does not know, with no home."""
    workspace = folder_of(12345, tmp_path / "my-agent")
    volume = f"--volume={workspace}:/workspace"
    containers.podman(
        "run", "--rm", "--user=12345:12345", *CAREFUL, volume, "localhost/fsagent:test", "run", "--init", "--once"
    )
    assert (workspace / "soul.md").stat().st_uid == 12345


def test_a_named_volume_belongs_to_the_agent(containers: Containers) -> None:
    """`-v my-agent:/workspace` needs no preparation: the volume takes its owner from the image."""
    volume = "--volume=fsagent-test-volume:/workspace"
    containers.podman("run", "--rm", *CAREFUL, volume, "localhost/fsagent:test", "run", "--init", "--once")
    listed = containers.podman(
        "run", "--rm", *CAREFUL, volume, "--entrypoint=ls", "localhost/fsagent:test", "/workspace"
    )
    assert "soul.md" in listed.stdout.split()
