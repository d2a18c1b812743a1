"""The HTTP API in use: commands, runs, results, tasks and the soul, with a real daemon and real sockets."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import API, SETTINGS, Api, complaints, open_api, says
from fsagent.faces.views import read_health
from fsagent.model import Usage
from fsagent.workspace.usage import Spent, UsageBook
from harness import FSAGENT, Agent, wait_for

SLEEP = "---\nsteps:\n  - shell: sleep 300\n---\n"
UMLAUTS = "Grüße (1) für Zoë – \N{GRINNING FACE}.txt"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS + API)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A daemon that several tests share; each looks at its own runs only."""
    agent = Agent(tmp_path_factory.mktemp("api") / "ws", SETTINGS + API).start()
    with Api(agent) as api:
        yield api
    agent.close()
    assert not complaints(agent)


@pytest.fixture
def asleep(agent: Agent) -> Iterator[Api]:
    """The API without a daemon: what is handed in stays where it is."""
    log = agent.log.open("w")
    process = subprocess.Popen([*FSAGENT, "api", "-w", str(agent.root)], stdout=log, stderr=subprocess.STDOUT)
    with Api(agent) as api:
        yield api
    process.terminate()
    assert process.wait(30) == 0
    log.close()
    assert not complaints(agent)


def post(api: Api, **options: Any) -> httpx.Response:
    return api.client.post("/v1/commands", **options)


def journal(agent: Agent) -> str:
    return "".join(path.read_text() for path in sorted(agent.layout.journal.glob("*.jsonl")))


def dropped(api: Api) -> list[str]:
    return sorted(os.listdir(api.agent.layout.drop))


def nothing_left(api: Api) -> None:
    """Nothing was handed in, and nothing lies about."""
    assert not dropped(api)
    assert not os.listdir(api.agent.layout.tmp)


# the mission's proof


def test_headless_a_command_by_http_is_run_and_seen(agent: Agent) -> None:
    """No terminal, no display, no home, a plain user: in the journal, in outbox/, and in the answer."""
    before: list[str] = []
    if os.geteuid() == 0:
        for path in (agent.root, *agent.root.rglob("*")):
            os.chown(path, 65534, 65534)
        for path in agent.root.parents:
            if not path.stat().st_mode & 0o001:
                path.chmod(0o755)
        before = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=-all,+dac_read_search",
        ]
    options = {"env": {"PATH": os.environ["PATH"]}, "stdin": subprocess.DEVNULL, "start_new_session": True}
    agent.start(before, **options)
    with Api(agent) as api:
        found = api.command("My name is Alice.")
        assert (found["status"], found["trigger"], found["by"]) == ("done", "http", "owner")
        assert "Alice" in found["result"]["text"]
        assert "Alice" in agent.result(found["result"]["path"].removeprefix("outbox/")).content
        wait_for(lambda: '"event":"finished"' in journal(agent), "it is in the journal")
        started = next(line for line in journal(agent).splitlines() if '"event":"started"' in line)
        assert '"trigger":"http"' in started
        assert found["run"] in started
        agent.kill()
        agent.start(before, **options)
    with Api(agent) as api:
        assert "Alice" in api.command("What is my name?")["result"]["text"]
    assert agent.stop() == 0
    assert not complaints(agent)


def test_a_kill_loses_nothing_that_was_accepted(agent: Agent) -> None:
    with open_api(agent) as api:
        agent.layout.stop.touch()
        runs = [api.command(f"Log {number} to log.txt", wait=0)["run"] for number in range(30)]
        agent.layout.stop.unlink()
        wait_for((agent.root / "log.txt").exists, "the first one is run")
        agent.kill()
    with open_api(agent) as api:
        for run in runs:
            api.ends(run)
    assert sorted(map(int, (agent.root / "log.txt").read_text().split())) == list(range(30))


# handing in


@pytest.mark.parametrize(
    "kind", ["text/markdown", "text/plain; charset=utf-8", "TEXT/Markdown;x=y", "application/json", "multipart"]
)
def test_a_command_comes_in_every_way(live: Api, kind: str) -> None:
    text = f"---\nthread: ways\n---\nLog grüß-{len(kind)} to ways.txt"
    if kind == "application/json":
        answer = post(live, params={"wait": 20}, json={"text": text})
    elif kind == "multipart":
        answer = post(live, params={"wait": 20}, files={"text": (None, text)})
    else:
        answer = post(live, params={"wait": 20}, content=text.encode(), headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert answer.headers["location"] == f"/v1/commands/{found['run']}"
    assert (found["status"], found["thread"]) == ("done", "ways")
    assert f"grüß-{len(kind)}" in (live.agent.root / "ways.txt").read_text()


def test_what_stands_beside_the_text_counts(live: Api) -> None:
    text = "---\nthread: a\nengine: nonsense\n---\nLog x to beside.txt"
    found = live.command(text, thread="b", engine="offline", retries=2)
    assert (found["status"], found["thread"]) == ("done", "b")
    found = live.command("", steps=[{"write": {"path": "steps.txt", "text": "x"}}, {"read": "steps.txt"}])
    assert found["status"] == "done"
    assert "steps.txt" in found["result"]["changed"]
    form = {"text": "Log 1 to form.txt", "retries": "2", "timeout": "30s", "thread": "form"}
    answer = post(live, params={"wait": 20}, files={name: (None, value) for name, value in form.items()})
    assert answer.json()["thread"] == "form", answer.text


def test_attachments_by_form_and_as_base64(live: Api) -> None:
    data = os.urandom(3_000_000)
    files = [("files", (UMLAUTS, data)), ("files", ("b.bin", b"")), ("more", ("text", b"x"))]
    answer = post(live, params={"wait": 20}, data={"text": "Log x to files.txt"}, files=files)
    assert answer.status_code == 200, answer.text
    run = answer.json()["run"]
    assert sorted(answer.json()["attachments"]) == sorted([UMLAUTS, "b.bin", "text"])
    live.ends(run)
    assert (live.agent.layout.runs / run / "attachments" / UMLAUTS).read_bytes() == data
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nLog x to files.txt\r\n'
    body += b'--b\r\nContent-Disposition: form-data; name="none"; filename=""\r\n\r\n\r\n--b--\r\n'
    empty = post(live, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert empty.json()["attachments"] == [], "what a browser sends where no file was chosen"
    encoded = [{"name": UMLAUTS, "content": base64.b64encode(data).decode()}]
    found = live.command("Log x to files.txt", attachments=encoded)
    assert found["attachments"] == [UMLAUTS]
    assert (live.agent.layout.runs / found["run"] / "attachments" / UMLAUTS).read_bytes() == data
    assert not [name for name in os.listdir(live.agent.layout.tmp) if name.startswith("upload")]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", ".hidden", " x", "x\x01", "x" * 201, "ä" * 101, "..", ".", "", "\u202ex"]
)
def test_hostile_names_of_attachments_are_refused(asleep: Api, name: str) -> None:
    says(post(asleep, json={"text": "x", "attachments": [{"name": name, "content": "eA=="}]}), 422)
    quoted = name.encode().replace(b"\\", b"\\\\")
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; '
    body += b'name="f"; filename="' + quoted + b'"\r\n\r\ndata\r\n--b--\r\n'
    answer = post(asleep, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    if name == "a\\b" and answer.status_code == 202:  # a browser of old that sends the whole path: its end counts
        assert answer.json()["attachments"] == ["b"]
    elif "\x01" in name and answer.status_code == 400:
        says(answer, 400)
        nothing_left(asleep)
    else:
        says(answer, 422)
        nothing_left(asleep)


BAD_JSON: list[tuple[Any, int, str]] = [
    (b"", 400, "no JSON"),
    (b"{", 400, "no JSON"),
    (b"\xff", 400, "no JSON"),
    (b'{"text": "\xff"}', 400, "no JSON"),
    (b'{"text": "\\ud800"}', 400, "no JSON"),
    (b"[]", 422, "object"),
    (b"null", 422, "object"),
    (b"{}", 422, "text"),
    (b'{"text": 1}', 422, "text: must be"),
    (b'{"text": "x", "thred": "y"}', 422, "there is no field 'thred'"),
    (b'{"text": "x", "steps": [{"x": ' + b"[" * 100_000, 400, "nested"),
    (b'{"text": "x", "steps": [{"x": ' + b"[" * 500 + b"]" * 500 + b"}]}", 422, ""),
    (b'{"text": "x", "steps": "y"}', 422, "steps"),
    (b'{"text": "x", "steps": [{}]}', 422, "steps"),
    (b'{"text": "x", "retries": -1}', 422, "retries"),
    (b'{"text": "x", "retries": 1e9}', 422, "retries"),
    (b'{"text": "x", "timeout": "soon"}', 422, "timeout"),
    (b'{"text": "x", "not_before": "never"}', 422, "not_before"),
    (b'{"text": "x", "attachments": [{"name": "a"}]}', 422, "content"),
    (b'{"text": "x", "attachments": [{"name": "a", "content": "%%%"}]}', 422, "content"),
    (b'{"text": "x", "attachments": [{"name": "a", "content": ""}, {"name": "a", "content": ""}]}', 422, "twice"),
    (b'{"text": "   "}', 422, "no request"),
    (b'{"text": "---\\nid: [\\n---\\nx"}', 422, "command:"),
    (b'{"text": "---\\nthred: x\\n---\\nx"}', 422, "command:2:1: thred"),
    (b'{"text": "---\\nattachments: [x.pdf]\\n---\\nx"}', 422, "x.pdf"),
    (b'{"text": "---\\ndraft: true\\n---\\nx"}', 422, "draft"),
    (b'{"text": "' + b"x" * 1_048_577 + b'"}', 422, "text"),
    (b'{"text": "' + "ä".encode() * 600_000 + b'"}', 422, ""),
    (b'{"text": "x", "id": "' + b"i" * 201 + b'"}', 422, "id"),
]


def test_bad_json_is_refused_in_words_and_leaves_nothing(asleep: Api) -> None:
    for body, status, words in BAD_JSON:
        answer = post(asleep, content=body, headers={"Content-Type": "application/json"})
        try:
            says(answer, status, words)
            nothing_left(asleep)
        except AssertionError as error:
            raise AssertionError(body[:100]) from error


def test_bad_forms_texts_and_queries_are_refused_in_words_and_leave_nothing(asleep: Api) -> None:
    text = {"text": (None, "x")}
    many = [("f", (f"{number}.txt", b"x")) for number in range(21)]
    says(post(asleep, files=[*many, ("text", (None, "x"))]), 400, "Too many files")
    says(post(asleep, files=[("text", (None, "x")), *many]), 400, "Too many files")
    says(post(asleep, files={**text, "f": ("a.txt", b"x"), "g": ("a.txt", b"x")}), 422, "'a.txt' came twice")
    says(post(asleep, files={**text, "f": (None, b"content")}), 422, "there is no field 'f'")
    says(post(asleep, files={**text, "thred": (None, "x")}), 422, "there is no field 'thred'")
    says(post(asleep, files=[("text", (None, "x")), ("text", (None, "y"))]), 422, "'text' came twice")
    says(post(asleep, files={**text, "retries": (None, "many")}), 422, "retries")
    says(post(asleep, files={"f": ("a.txt", b"x")}), 422, "misses the field 'text'")
    says(post(asleep, files={"text": (None, "x" * 1_100_000)}), 400, "exceeded")
    form = "multipart/form-data"
    for kind, body in ((form, b"x"), (f"{form}; boundary=b", b"x"), (f"{form}; boundary=b", b"--b\r\n\r\nx\r\n--b--")):
        says(post(asleep, content=body, headers={"Content-Type": kind}), 400)
    markdown = {"Content-Type": "text/markdown"}
    says(post(asleep, content=b"gr\xfc\xdfe", headers=markdown), 422)
    says(post(asleep, content=b"", headers=markdown), 422, "no request")
    says(post(asleep, content=b"x" * 1_100_000, headers=markdown), 422)
    for wait in ("-1", "301", "nan", "inf", "x", ""):
        says(post(asleep, json={"text": "x"}, params={"wait": wait}), 422, "wait")
    says(post(asleep, json={"text": "x"}, params={"wiat": "1"}), 422, "there is no parameter 'wiat'", "did you mean")
    says(post(asleep, json={"text": "x"}, headers={"Idempotency-Key": "k" * 201}), 422, "Idempotency-Key")
    for kind in ("application/x-www-form-urlencoded", "application/xml", "text/html"):
        answer = post(asleep, content=b"text=x", headers={"Content-Type": kind})
        says(answer, 415, kind)
        assert "application/json" in answer.headers["accept-post"]
    nothing_left(asleep)


def test_a_result_that_was_waited_for_is_whole(live: Api) -> None:
    for number in range(40):
        found = live.command(f"Log {number} to whole.txt")
        assert found["status"] == "done"
        assert found["result"]["path"] == f"outbox/http/{found['run']}.md"
        assert found["result"]["finished"]


def test_wait_gives_the_result_or_says_that_it_goes_on(live: Api) -> None:
    answer = post(live, params={"wait": 0.1}, json={"text": SLEEP})
    assert answer.status_code == 202
    assert answer.json()["result"] is None
    run = answer.json()["run"]
    assert live.get(f"/v1/commands/{run}")["result"] is None
    assert live.client.post(f"/v1/runs/{run}/cancel", params={"wait": 20}).json()["status"] == "interrupted"
    assert live.command("Log 5 to five.txt")["status"] == "done"


def test_a_command_is_found_by_run_and_by_id_wherever_it_is(asleep: Api) -> None:
    made = asleep.command("---\nid: from-text\nthread: t\n---\nMy name is Alice.", wait=0)
    assert made["id"] == "from-text"
    for wanted in (made["run"], "from-text"):
        found = asleep.get(f"/v1/commands/{wanted}")
        assert (found["run"], found["status"], found["thread"]) == (made["run"], "waiting", "t")
        assert "My name is Alice." in found["text"]
    with Api(asleep.agent, "read") as other:
        assert other.get("/v1/commands/from-text")["run"] == made["run"], "also by who did not hand it in"
        says(other.client.get("/v1/commands/nothing"), 404, "'nothing'")
    run = asleep.get(f"/v1/runs/{made['run']}")
    assert (run["run"]["status"], run["result"], run["diff"]) == ("waiting", "", "")
    asleep.agent.once()
    for wanted in (made["run"], "from-text"):
        found = asleep.get(f"/v1/commands/{wanted}")
        assert (found["run"], found["status"], found["id"]) == (made["run"], "done", "from-text")
        assert found["settled"].startswith("archive/")
        assert "Alice" in found["result"]["text"]


def test_a_command_is_never_lost_from_sight_while_the_daemon_takes_it(live: Api) -> None:
    for number in range(40):
        found = live.command(f"Log {number} to sight.txt", wait=0)
        assert live.get(f"/v1/commands/{found['run']}")["run"] == found["run"]
        assert live.get(f"/v1/runs/{found['run']}")["run"]["run"] == found["run"]


def test_the_same_key_gives_the_same_run(live: Api) -> None:
    key = {"Idempotency-Key": "ä key".encode()}

    def hand_in(number: int) -> httpx.Response:
        with Api(live.agent) as api:
            text = {"text": "Log once to once.txt"}
            return post(api, params={"wait": 20}, json=text, headers=key)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(hand_in, range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["run"] for answer in answers}) == 1
    assert sum(not answer.json()["known"] for answer in answers) == 1
    assert (live.agent.root / "once.txt").read_text().split() == ["once"]
    says(
        post(live, json={"text": "other"}, headers=key),
        409,
        "another command",
        "new key",
    )
    with Api(live.agent, "read", "command", name="other") as other:
        assert post(other, json={"text": "x"}, headers=key).json()["known"] is False
    first = live.command("---\nid: mine\n---\nLog x to id.txt")
    assert live.command("---\nid: mine\n---\nLog x to id.txt")["run"] == first["run"]
    says(post(live, json={"text": "Log y to id.txt", "id": "mine"}), 409)


def test_without_a_daemon_a_command_waits_for_one(asleep: Api) -> None:
    made = asleep.command("Log later to log.txt", wait=0.05)
    assert (made["status"], made["result"]) == ("waiting", None)
    says_why = asleep.client.get("/readyz")
    assert says_why.status_code == 503
    assert f"no daemon runs on {asleep.agent.root}" in says_why.json()["wrong"][0]
    assert asleep.get("/healthz") == {"ok": True, "wrong": []}
    assert asleep.get("/v1/status")["waiting"] == 1
    assert asleep.agent.once().returncode == 0
    assert asleep.get(f"/v1/commands/{made['run']}")["status"] == "done"


def test_stop_holds_commands_back(agent: Agent) -> None:
    with open_api(agent) as api:
        agent.layout.stop.touch()
        wait_for(lambda: api.get("/v1/status")["paused"], "it pauses")
        made = api.command("Log x to log.txt", wait=0.2)
        assert made["result"] is None
        agent.layout.stop.unlink()
        assert api.ends(made["run"])["run"]["status"] == "done"


def test_a_full_disk_refuses_and_nothing_is_lost(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(mount)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    agent = Agent(mount / "ws", SETTINGS + API)
    agent.log = tmp_path / "log"
    try:
        with open_api(agent) as api:
            big = {"f": ("big.bin", bytes(4_000_000))}
            says(post(api, data={"text": "x"}, files=big), 507, "No space left")
            content = base64.b64encode(bytes(4_000_000)).decode()
            says(post(api, json={"text": "x", "attachments": [{"name": "b", "content": content}]}), 507)
            assert not dropped(api)
            assert not os.listdir(agent.layout.tmp)
            assert api.command("Log x to log.txt")["status"] == "done"
        agent.stop()
        assert not complaints(agent)
    finally:
        agent.close()
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_door_that_cannot_be_used_is_told(asleep: Api) -> None:
    layout = asleep.agent.layout
    shutil.rmtree(layout.drop)
    layout.drop.write_text("in the way")
    says(post(asleep, json={"text": "x"}), 503, "the disk says")
    assert not os.listdir(layout.tmp)


# runs


def test_a_run_shows_its_steps_what_it_used_and_what_it_changed(live: Api) -> None:
    steps = [{"write": {"path": "diff.txt", "text": "one\n"}}, {"append": {"path": "diff.txt", "text": "two\n"}}]
    found = live.ends(live.command("", steps=steps)["run"])
    assert found["run"]["status"] == "done"
    assert set(found["run"]["usage"].values()) == {0}
    assert {"claimed", "step", "call", "result", "finished", "settled"} <= {step["event"] for step in found["steps"]}
    assert found["diff"].count("+++ b/diff.txt") == 2
    assert "+one" in found["diff"]
    assert "+two" in found["diff"]
    assert found["result"].startswith("---\nrun: ")
    short = found["run"]["run"][:-2]
    assert live.get(f"/v1/runs/{short}")["run"]["run"] == found["run"]["run"]
    says(live.client.get("/v1/runs/nothing"), 404)


def test_a_part_that_fits_several_runs_is_a_conflict(live: Api) -> None:
    live.ends(live.command("Log 1 to x.txt")["run"])
    run = live.ends(live.command("Log 2 to x.txt")["run"])["run"]["run"]
    says(live.client.get(f"/v1/runs/{run[:2]}"), 409, "fits")


def test_pages_walk_over_all_runs_once(agent: Agent) -> None:
    with open_api(agent) as api:
        runs = [
            api.command(f"Log {number} to log.txt", thread="odd" if number % 2 else "even")["run"]
            for number in range(12)
        ]
        runs.append(api.command("---\nsteps: [{read: missing.md}]\n---\n")["run"])
        for run in runs:
            api.ends(run)
        wait_for(lambda: {run["status"] for run in api.get("/v1/runs")["runs"]} == {"done", "failed"}, "all are listed")

        def walk(path: str) -> list[str]:
            seen, pages = [], 0
            while path:
                answer = api.client.get(path)
                seen += [
                    each["run"]["run"] if "hits" in answer.json() else each["run"]
                    for each in answer.json().get("runs", answer.json().get("hits"))
                ]
                link = answer.headers.get("link", "")
                assert bool(link) == bool(answer.json()["next"])
                path, pages = (re.fullmatch(r'<(.*)>; rel="next"', link)[1] if link else ""), pages + 1
            assert pages > 1
            return seen

        assert walk("/v1/runs?limit=5") == walk("/v1/results?limit=4") == sorted(runs, reverse=True)
        assert walk("/v1/runs?limit=2&thread=odd") == sorted(runs[1:12:2], reverse=True)
        assert walk("/v1/search?q=log&limit=5") == sorted(runs[:12], reverse=True)
        assert [run["run"] for run in api.get("/v1/runs?status=failed")["runs"]] == runs[-1:]
        assert len(api.get("/v1/runs?trigger=http")["runs"]) == 13
        assert api.get("/v1/runs?trigger=mcp") == {"runs": [], "next": ""}
        says(api.client.get("/v1/runs?trigger=fax"), 422, "trigger")
        says(api.client.get("/v1/runs?before=nothing"), 404)
        for path in ("/v1/runs?limit=0", "/v1/runs?limit=501", "/v1/search?q=", "/v1/search", "/v1/results?task=x"):
            says(api.client.get(path), 422)


def test_results_are_read_by_their_path_and_nothing_else_is(live: Api) -> None:
    found = live.command("My name is Alice.")
    path = found["result"]["path"].removeprefix("outbox/")
    for name in (path, f"outbox/{path}"):
        answer = live.client.get(f"/v1/results/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.content == (live.agent.layout.outbox / path).read_bytes()
    secret = live.agent.layout.tokens
    (live.agent.layout.outbox / "link.md").symlink_to(secret)
    (live.agent.layout.outbox / "folder").symlink_to(live.agent.layout.machine)
    hostile = [
        "..%2f.fsagent%2ftokens.json",
        "%2e%2e/soul.md",
        "http/..%2f..%2fsoul.md",
        "link.md",
        "folder/tokens.json",
        "%2Fetc%2Fpasswd",
        str(secret),
        "http",
        "http/",
        "nothing.md",
        f"{path}/x",
        "%00",
        "x%00.md",
        "~/x",
        "%ff",
        "x" * 5000,
        "a/" * 1000,
    ]
    for name in hostile:
        answer = live.client.get(f"/v1/results/{name}")
        assert answer.status_code in (404, 422), (name, answer.text)
        says(answer, answer.status_code)
        assert live.token not in answer.text


def test_cancel_and_retry(live: Api) -> None:
    made = live.command("---\nsteps: [{shell: 'test -e there.txt'}]\n---\n")
    assert live.ends(made["run"])["run"]["status"] == "failed"
    says(live.client.post(f"/v1/runs/{made['run']}/cancel"), 409, "has ended already")
    (live.agent.root / "there.txt").touch()
    again = live.client.post(f"/v1/runs/{made['run']}/retry", params={"wait": 20})
    assert again.status_code == 200
    assert again.json()["status"] == "done"
    assert again.json()["run"] != made["run"]
    twice = live.client.post(f"/v1/runs/{made['run']}/retry")
    assert (twice.json()["run"], twice.json()["known"]) == (again.json()["run"], True)
    live.ends(again.json()["run"])
    says(live.client.post(f"/v1/runs/{again.json()['run']}/retry"), 409, "was done")
    for verb in ("cancel", "retry"):
        says(live.client.post(f"/v1/runs/20261122-120000-nothing1/{verb}"), 404)


def test_a_run_at_the_side_door_can_be_cancelled(asleep: Api) -> None:
    run = asleep.command("Log x to log.txt", wait=0)["run"]
    assert asleep.client.post(f"/v1/runs/{run}/cancel").status_code == 202
    asleep.agent.once()
    assert asleep.get(f"/v1/commands/{run}")["status"] == "interrupted"
    assert not (asleep.agent.root / "log.txt").exists()


# tasks


def test_tasks_are_listed_run_paused_and_resumed(live: Api) -> None:
    folder = live.agent.layout.tasks / "büro"
    folder.mkdir()
    (folder / "run.md").write_text("---\nevery: 1h\nreport: always\n---\nLog the timestamp to task.txt\n")
    (folder / "bad.md").write_text("---\nevry: 1h\n---\nLog the timestamp to x.txt\n")
    task = "/v1/tasks/b%C3%BCro/run"

    def state() -> str:
        return next(each["state"] for each in live.get("/v1/tasks")["tasks"] if each["task"] == "büro/run")

    wait_for(lambda: state() == "on", "it is known")
    answer = live.client.post(f"{task}/run", params={"wait": 20})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "done"
    assert len((live.agent.root / "task.txt").read_text().splitlines()) == 1
    assert live.client.post(f"{task}/pause", params={"wait": 20}).json()["status"] == "done"
    wait_for(lambda: state() == "paused", "it is paused")
    assert live.client.post(f"{task}/resume", params={"wait": 20}).json()["status"] == "done"
    wait_for(lambda: state() == "on", "it is on again")
    (folder / "one.md").write_text("---\nevery: 1h\n---\nLog the timestamp to task.txt\n")
    one = live.get("/v1/tasks/b%C3%BCro/one")
    assert (one["task"], one["rule"], len(one["slots"]), one["runs"]) == ("büro/one", "every 1h", 5, [])
    says(live.client.get("/v1/tasks/b%C3%BCro/onee"), 404, "did you mean 'büro/one'")
    for verb in ("run", "pause", "resume"):
        says(live.client.post(f"/v1/tasks/none/{verb}"), 404, "none")
        problem = says(live.client.post(f"/v1/tasks/b%C3%BCro/bad/{verb}"), 422, "evry", "did you mean 'every'")
        assert problem["faults"][0]["line"] == 2
    says(live.client.get(f"{task}/run"), 405)
    says(live.client.post("/v1/tasks/..%2f..%2fsoul/run"), 404)


# the soul

SOUL = "/v1/soul"
MARKDOWN = {"Content-Type": "text/markdown"}


def put(api: Api, text: bytes | str, **headers: str) -> httpx.Response:
    names = {"match": "If-Match", "none": "If-None-Match"}
    return api.client.put(SOUL, content=text, headers=MARKDOWN | {names[key]: value for key, value in headers.items()})


def test_the_soul_is_read_and_replaced_by_its_tag(asleep: Api) -> None:
    file = asleep.agent.layout.soul
    answer = asleep.client.get(SOUL, headers={"Accept-Encoding": "gzip"})
    tag = answer.headers["etag"]
    assert answer.content == file.read_bytes()
    assert "content-encoding" not in answer.headers
    for sent in (tag, f"W/{tag}", f'"x", {tag}'):
        not_changed = asleep.client.get(SOUL, headers={"If-None-Match": sent})
        assert (not_changed.status_code, not_changed.content, not_changed.headers["etag"]) == (304, b"", tag)
    assert asleep.client.get(SOUL, headers={"If-None-Match": '"x"'}).status_code == 200
    done = put(asleep, "# Grüße\n", match=f'"other", {tag}')
    assert done.status_code == 204
    assert file.read_text() == "# Grüße\n"
    assert asleep.client.get(SOUL).headers["etag"] == done.headers["etag"] != tag
    stale = put(asleep, "# Lost\n", match=tag)
    problem = says(stale, 412, "nothing was written")
    assert problem["current"] == "# Grüße\n"
    assert f'"{problem["etag"]}"' == stale.headers["etag"] == done.headers["etag"]
    assert put(asleep, "# Any\n", match="*").status_code == 204
    says(put(asleep, "# Lost\n"), 428, "If-Match")
    says(put(asleep, "# Lost\n", match=",,"), 428)
    says(put(asleep, "# Lost\n", none="*"), 412)
    says(put(asleep, "# Lost\n", none=tag), 428)
    now = asleep.client.get(SOUL).headers["etag"]
    says(put(asleep, b"# \xff\xfe\xff", match=now), 422)
    says(put(asleep, b"x" * (1024 * 1024 + 1), match=now), 413)
    html = asleep.client.put(SOUL, content="x", headers={"Content-Type": "text/html", "If-Match": now})
    says(html, 415)
    assert file.read_text() == "# Any\n"


def test_a_soul_that_is_missing_can_be_made(asleep: Api) -> None:
    file = asleep.agent.layout.soul
    file.unlink()
    says(asleep.client.get(SOUL), 404, "If-None-Match")
    says(put(asleep, "# New\n", match="*"), 412)
    says(put(asleep, "# New\n", match='"x"'), 412)
    assert not file.exists()
    assert put(asleep, "# New\n", none="*").status_code == 204
    assert file.read_text() == "# New\n"


def test_of_writers_at_the_same_time_one_wins_and_a_person_always_does(asleep: Api) -> None:
    file = asleep.agent.layout.soul
    tag = asleep.client.get(SOUL).headers["etag"]

    def write(number: int) -> int:
        with Api(asleep.agent) as api:
            return put(api, f"# {number}\n", match=tag).status_code

    with ThreadPoolExecutor(8) as threads:
        found = sorted(threads.map(write, range(16)))
    assert found == [204] + [412] * 15
    for number in range(10):
        tag = asleep.client.get(SOUL).headers["etag"]
        file.write_text(f"# A person {number}\n")
        assert put(asleep, "# Lost\n", match=tag).status_code == 412
        assert file.read_text() == f"# A person {number}\n"


# how things are

METRIC = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"\\]*",?)*)\})? (-?[0-9.e+-]+|NaN)')


def metrics(api: Api) -> dict[str, float]:
    """A strict reader of Prometheus' text format."""
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("\n")
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    current = ""
    for line in answer.text.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in kinds, "each metric comes once, in one piece"
        elif line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name == current
            assert kind in ("counter", "gauge")
            assert (kind == "counter") == name.endswith("_total")
            kinds[name] = kind
        else:
            match = METRIC.fullmatch(line)
            assert match, line
            assert match[1] == current in kinds
            key = f"{match[1]}{{{match[2]}}}" if match[2] else match[1]
            assert key not in found
            found[key] = float(match[3])
    return found


def test_metrics_count_what_ran(agent: Agent) -> None:
    (agent.layout.tasks / "stamp.md").write_text("---\nevery: 1s\n---\nLog the timestamp to log.txt\n")
    with open_api(agent) as api:
        for number in range(3):
            api.ends(api.command(f"Log {number} to x.txt")["run"])
        api.ends(api.command("---\nsteps: [{read: missing.md}]\n---\n")["run"])
        wait_for(lambda: metrics(api).get('fsagent_runs_total{trigger="http",status="done"}') == 3, "three are done")
        wait_for(lambda: 'fsagent_lateness_seconds{of="newest"}' in metrics(api), "a task has run")
        wait_for(lambda: metrics(api).get("fsagent_beat_age_seconds", 99) < 99, "the daemon beats")
        found = metrics(api)
        assert found['fsagent_runs_total{trigger="http",status="failed"}'] == 1
        assert found["fsagent_up"] == 1
        assert found["fsagent_memory_bytes"] > 1e6
        assert found["fsagent_queue"] >= 0
        agent.layout.stop.touch()
        wait_for(lambda: api.get("/v1/status")["snapshot"]["paused"], "it pauses")
        api.command("Log later to x.txt", wait=0)
        wait_for(lambda: metrics(api)["fsagent_queue"] >= 1, "one waits")


def test_usage_by_day_task_or_model(asleep: Api) -> None:
    found = asleep.get("/v1/usage")
    assert (found["rows"], found["total"]["runs"], found["by"]) == ([], 0, "day")
    assert [(each["setting"], each["limit"]) for each in found["month"]] == [
        ("budget.month.runs", 10_000), ("budget.month.tokens", 30_000_000), ("budget.month.cost", 50),
    ]  # fmt: skip
    now = datetime.now(UTC)
    used = Spent(time=now, run="r", trigger="task", task="water", model="m:a", usage=Usage(90, 10, 0.5, 0, 1))
    UsageBook(asleep.agent.layout, lambda moment: moment).add(used)
    (row,) = asleep.get("/v1/usage", params={"days": 1, "by": "task"})["rows"]
    assert (row["task"], row["day"], row["runs"], row["usage"]["tokens_in"]) == ("water", None, 1, 90)
    assert asleep.get("/v1/usage?by=model")["rows"][0]["model"] == "m:a"
    assert [each["used"] for each in asleep.get("/v1/usage")["today"]] == [1, 100, 0.5]
    says(asleep.client.get("/v1/usage?by=hour"), 422, "by")
    says(asleep.client.get("/v1/usage?days=0"), 422, "days")


def test_metrics_and_status_without_a_daemon(asleep: Api) -> None:
    found = metrics(asleep)
    assert (found["fsagent_up"], found["fsagent_queue"]) == (0, 0)
    asleep.command("Log x to x.txt", wait=0)
    assert metrics(asleep)["fsagent_queue"] == 1
    asleep.agent.once()
    found = metrics(asleep)
    assert (found["fsagent_up"], found['fsagent_runs_total{trigger="http",status="done"}']) == (0, 1)
    status = asleep.get("/v1/status")
    assert (status["alive"], status["waiting"]) == (False, 0)


def test_ready_while_the_daemon_lives(live: Api) -> None:
    wait_for(lambda: not read_health(live.agent.layout), "it is healthy")
    assert live.get("/readyz") == {"ok": True, "wrong": []}


def test_large_answers_are_squeezed_for_who_takes_that(live: Api) -> None:
    path = "/v1/openapi.json"
    plain = live.client.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    small = live.client.get(path, headers={"Accept-Encoding": "br, GZIP;q=0.5"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(plain.content) / 4
    assert small.content == plain.content
    refused = live.client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


# approvals


def test_a_question_is_answered_by_http(agent: Agent) -> None:
    agent.layout.settings.write_text(SETTINGS.replace("shell: allow", "append: ask") + API)
    with open_api(agent) as api:
        first, second = (api.command(f"Add {word} to log.txt", wait=0)["run"] for word in ("milk", "eggs"))
        waiting = wait_for(lambda: len(found := api.get("/v1/approvals")["approvals"]) == 2 and found, "both are asked")
        assert [view["run"] for view in waiting] == [first, second]
        assert (waiting[0]["trigger"], waiting[0]["by"]) == ("http", "owner")
        question = waiting[0]["questions"][0]
        assert (question["tool"], question["subject"], question["what"]) == ("append", "log.txt", "add to `log.txt`")
        assert question["args"] == {"path": "log.txt", "text": "milk"}
        assert "+milk" in question["preview"]
        assert api.get(f"/v1/runs/{first}")["run"]["status"] == "waiting"
        where = [f"/v1/approvals/{view['id']}" for view in waiting]
        says(api.client.post(where[0], json={"decision": "yes"}), 422, "decision")
        says(api.client.post(where[0], json={"decision": "once", "question": 2}), 404, "there is no question 2")
        says(api.client.post("/v1/approvals/zzz", json={"decision": "once"}), 404, "there is no open question 'zzz'")
        with Api(agent, "command", "read", name="ha") as other:
            says(other.client.post(where[0], json={"decision": "once"}), 403, "the scope 'approve'")
        with Api(agent, "approve", name="phone") as phone:
            answer = phone.client.post(where[0], json={"decision": "once"})
            assert (answer.status_code, answer.json()["open"]) == (200, [])
        done = api.ends(first)
        assert done["run"]["status"] == "done"
        answered = next(step for step in done["steps"] if step["event"] == "answered")
        assert answered["answers"][0]["by"] == "http phone"
        assert api.client.post(where[1], json={"decision": "refuse", "comment": "no eggs"}).status_code == 200
        assert "a person refused append: no eggs" in api.ends(second)["result"]
        assert (agent.root / "log.txt").read_text() == "milk\n"
        says(api.client.post(where[0], json={"decision": "once"}), 404)
