"""fsagent.yaml: what the template says, what holds without it, and how each mistake is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsagent.config import SETTINGS_TEMPLATE, ApiSettings, Settings, load_settings
from fsagent.errors import SettingsError
from fsagent.extensions import unknown_names
from fsagent.files.fields import Amount, Duration
from fsagent.files.yamltext import load_mapping, plain
from fsagent.home import resolved
from fsagent.keepsettings import DAY, KeepSettings, Kept
from fsagent.mcpsettings import filled
from fsagent.modelsettings import BudgetSettings

EXAMPLES = {
    "timezone",
    "tools",
    "triggers",
    "trust",
    "secrets",
    "mcp_servers",
    "model",
    "api",
}  # shown as examples; their default is to say nothing
COMMENTED = re.compile(r"^# (?=[a-z_]+:|  [a-z_]+:)", re.MULTILINE)


def load(tmp_path: Path, text: str | bytes) -> Settings:
    path = tmp_path / "fsagent.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(path)


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 12
    return [str(fault) for fault in caught.value.faults]


def uncommented() -> dict[str, Any]:
    """The template with every commented-out setting taken in."""
    return dict(plain(load_mapping(COMMENTED.sub("", SETTINGS_TEMPLATE), "template")))


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "fsagent.yaml") == Settings()
    for text in ("", "\n\n", "# nothing\n", b"\xef\xbb\xbf", "timeout:\n"):
        assert load(tmp_path, text) == Settings()


def test_the_template_as_it_is_written_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, SETTINGS_TEMPLATE) == Settings()


def test_the_template_names_every_setting_with_its_default(tmp_path: Path) -> None:
    shown = uncommented()
    assert set(shown) == set(Settings.__struct_fields__)
    text = "".join(f"{name}: {value!r}\n" for name, value in shown.items() if name not in EXAMPLES)
    assert load(tmp_path, text) == Settings()
    everything = load(tmp_path, COMMENTED.sub("", SETTINGS_TEMPLATE))
    assert everything.timezone == "Europe/Berlin"
    assert set(everything.tools) == {"shell", "http", "write"}
    assert set(everything.triggers) == {"http"}
    assert set(everything.trust) == {"read"}
    assert everything.model.name
    assert list(shown["budget"]) == list(BudgetSettings.__struct_fields__)
    for name, part in shown["budget"].items():
        assert list(part) == list(getattr(everything.budget, name).__struct_fields__)
    assert everything.budget == BudgetSettings()
    assert list(shown["keep"]) == list(KeepSettings.__struct_fields__)
    for name, part in shown["keep"].items():
        assert name == "unread" or list(part) == list(Kept.__struct_fields__)
    assert everything.keep == KeepSettings()
    assert set(everything.secrets) == {"github"}
    assert list(shown["api"]) == list(ApiSettings.__struct_fields__)
    assert everything.api == ApiSettings()


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    text = """\
heartbeat_interval: 5m
timezone: Europe/Berlin
time_format: "%d.%m.%Y %H:%M"
engine: mine
timeout: 1h30m
retries: 3
retry_wait: 1s
max_runs: 2
settle: 0s
settle_renamed: 0s
scan_interval: 0.5s
watch: poll
attachment_wait: 1d
shutdown_wait: 2s
approval_timeout: 2d
take_over_after: 1h
notify: "http://127.0.0.1:8080/hook?key=1"
notify_on: [failure]
tools:
  shell: {"df *": allow, "*": ask}
  write: deny
triggers:
  http: {shell: deny}
trust: {read: ["notes/*"]}
model: {name: "ollama:qwen3", temperature: 0.5}
budget: {run: {steps: 5}, task: {runs: off}, day: {tokens: 1.5M}, month: {cost: 0.50}}
keep: {unread: 2w, archive: {age: off, size: 500MB}, failed: {age: 3y}, journal: {size: off}, usage: {age: 400d}}
sandbox: off
sandbox_network: true
sandbox_read: ~/.local
sandbox_write: [/srv/data]
http_private: [ha.local, "*.lan", 192.168.1.0/24, "fd00::/8", "::1"]
secrets: {pass: {file: ~/.config/pass}}
mcp_servers: {files: {command: npx, args: [-y, x], env: {A: 1}, timeout: 5s, read_only: trust}}
api: {listen: "[::1]:0", allowed_hosts: ha.local, allowed_origins: ["https://home.example.org"], rate: 7}
"""
    settings = load(tmp_path, text)
    default = msgspec.structs.asdict(Settings())
    assert [name for name, value in msgspec.structs.asdict(settings).items() if value == default[name]] == []
    assert (settings.heartbeat_interval, settings.timeout, settings.attachment_wait) == (300, 5400, 86400)
    assert isinstance(settings.scan_interval, Duration)
    assert settings.budget.task.runs == Amount.off()
    assert (settings.budget.run.steps, settings.budget.day.tokens, settings.budget.month.cost) == (5, 1_500_000, 0.5)
    keep, never = settings.keep, float("inf")
    assert (keep.unread, keep.archive.age, keep.archive.size, keep.failed.age) == (14 * DAY, never, 5e8, 3 * 365 * DAY)
    assert (keep.failed.size, keep.journal.age, keep.journal.size, keep.runs.age) == (1e9, 730 * DAY, never, 90 * DAY)
    files = settings.servers["files"]
    assert (files.args, files.env, files.timeout, files.read_only) == (("-y", "x"), {"A": "1"}, 5, "trust")
    assert list(settings.tools["shell"]) == ["df *", "*"], "the order of patterns is the order of the file"
    assert settings.api == ApiSettings(
        listen="[::1]:0", allowed_hosts=("ha.local",), allowed_origins=("https://home.example.org",), rate=7
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("heartbeat_interval: 15", "did you mean 15s?"),
        ("heartbeat_interval: 0.5s", "must be at least 1s"),
        ("heartbeat_interval: 0s", "must be at least 1s"),
        ("notify: ntfy.sh/topic", "is no address for a push; write for instance https://ntfy.sh/topic"),
        ('notify: "https://a b/"', "is no address for a push"),
        ('notify: "http://host:99999/x"', "is no address for a push"),
        ("notify_on: [everything]", "everything"),
        ("timezone: Mars/Olympus", "is no time zone; write for instance Europe/Berlin"),
        ("timezone: ../../etc/passwd", "is no time zone"),
        ("timezone: /etc/localtime", "is no time zone"),
        ("engine: [auto]", "must be text"),
        ("timeout: 0s", "must be at least"),
        ("timeout: forever", "is no duration"),
        ("retries: -1", "must be between 0 and 20"),
        ("retries: 21", "must be between 0 and 20"),
        ("retries: some", "must be a whole number"),
        ("max_runs: 0", "must be between 1 and 64"),
        ("max_runs: 65", "must be between 1 and 64"),
        ("scan_interval: 0s", "must be at least"),
        ("shutdown_wait: -1s", "is no duration"),
        ("approval_timeout: 0.5s", "must be at least 1s"),
        ("keep: {unread: 6d}", "keep.unread: must be at least 7d"),
        ("keep: {unread: off}", "keep.unread: must be at least 7d, and not off"),
        ("keep: {archive: {age: soon}}", "keep.archive.age: 'soon' is no age; write for instance 90d or 2y, or off"),
        ("keep: {archive: {size: 5 apples}}", "'5 apples' is no size; write for instance 500MB or 2GB, or off"),
        ("keep: {inbox: {age: 1d}}", "keep.inbox: is not known here"),
        ("keep: {runs: 90d}", "keep.runs: "),
        ("take_over_after: 59s", "must be at least 60s, or 0s for never"),
        ("sandbox: maybe", "sandbox: cannot be 'maybe'"),
        ("sandbox_network: some", "must be true or false"),
        ("sandbox_read: [relative]", "write a path from / or ~/ on, such as ~/.local"),
        ("sandbox_read: /", "is no place"),
        ("sandbox_write: [~/]", "is no place"),
        ("sandbox_write: [/srv/../etc]", "is no place"),
        ("http_private: [192.168.1.0/33]", "is no host; write a name (ha.local"),
        ("http_private: [ha.local:8123]", "without a port"),
        ("http_private: http://ha.local", "is no host"),
        ("http_private: 192.168.1.300", "is no host"),
        ("http_private: '*'", "is no host"),
        ("tools: allow", "must be a map"),
        ("tools: [shell]", "must be a map"),
        ("tools: {shell: maybe}", "must be allow, ask or deny"),
        ('tools: {shell: {"*": sometimes}}', "must be allow, ask or deny"),
        ("tools: {shell: [allow]}", "must be allow, ask or deny"),
        ("heartbeat_intervall: 15m", "did you mean 'heartbeat_interval'?"),
        ("engine: auto\nengine: offline", "stands twice"),
        ("timeout: [1]", "must be"),
    ],
)
def test_each_mistake_is_told_with_file_line_and_words(tmp_path: Path, line: str, says: str) -> None:
    (fault,) = faults(tmp_path, f"# one\n\n{line}\nsettle: 1s\n")
    where = 4 if "\n" in line else 3
    assert fault.startswith(f"fsagent.yaml:{where}:"), fault
    assert f" {line.split(chr(10), maxsplit=1)[0].split(':', maxsplit=1)[0]}" in fault
    assert says in fault


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert [each.split(":")[1] for each in faults(tmp_path, "timeout: x\nretrys: 3\nmax_runs: y\n")] == ["1", "2", "3"]
    found = faults(tmp_path, "heartbeat_interval: 0s\nmax_runs: 0\nretries: 99\ntimezone: X\ntools: {a: b}\n")
    assert sorted(each.split(":")[1] for each in found) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("raw", [b"caf\xe9: 1", b"a: [", b"- a", b"words", b"\0\1\2", b"a: &x [*x]\n  b: 1"])
def test_what_is_no_settings_file_is_a_settings_error(tmp_path: Path, raw: bytes) -> None:
    (fault,) = faults(tmp_path, raw)
    assert fault.startswith("fsagent.yaml:")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "fsagent.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"fsagent\.yaml: cannot be read: Is a directory"):
        load_settings(tmp_path / "fsagent.yaml")


def test_shell_and_http_are_denied_until_somebody_allows_them(tmp_path: Path) -> None:
    settings = load(tmp_path, "tools: {write: ask}")
    assert [settings.rules("inbox", tool) for tool in ("shell", "http", "write", "read", "unheard_of")] == [
        [("tools: shell", "deny")], [("tools: http", "deny")], [("tools: write", "ask")], [("tools: read", "allow")],
        [("tools: unheard_of", "allow")],
    ]  # fmt: skip


def test_a_trigger_adds_a_rule_for_the_tools_that_it_names(tmp_path: Path) -> None:
    settings = load(tmp_path, "tools: {write: ask}\ntriggers: {http: {write: {'a*': allow}, shell: allow}, task: {}}\n")
    assert settings.rules("http", "write") == [("tools: write", "ask"), ("triggers: http: write", {"a*": "allow"})]
    assert settings.rules("http", "shell") == [("tools: shell", "deny"), ("triggers: http: shell", "allow")]
    for trigger in ("inbox", "task", "mcp", "cli"):
        assert settings.rules(trigger, "write") == [("tools: write", "ask")]
    assert settings.rules("http", "read") == [("tools: read", "allow")]


def test_an_api_that_says_nothing_has_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "timeout: 1m").api is None
    for text in ("api:", "api: {}", "api:\n  # listen: 0.0.0.0:1\ntimeout: 10m", "api: {listen: , rate: ''}"):
        api = load(tmp_path, text).api
        assert api == ApiSettings(), text
        assert api.address == ("127.0.0.1", 8765)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:8765", ("::1", 8765)),
        ("[::]:8765", ("::", 8765)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_where_the_api_listens(tmp_path: Path, listen: str, address: tuple[str, int]) -> None:
    api = load(tmp_path, f"api:\n  listen: '{listen}'").api
    assert api is not None
    assert api.address == address


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("8765", "misses the address; write 127.0.0.1:8765"),
        (":80", "misses the address; write 127.0.0.1:80"),
        ("127.0.0.1", "needs an address and a port"),
        ("127.0.0.1:", "needs an address and a port"),
        ("127.0.0.1:65536", "needs an address and a port from 0 to 65535"),
        ("127.0.0.1:-1", "needs an address and a port"),
        ("127.0.0.1:http", "needs an address and a port"),
        ("127.0.0.1:\u0661", "needs an address and a port"),
        ("ha.local:8765", "'ha.local' is no address to listen on; write an IP address"),
        ("*:8765", "is no address to listen on"),
        ("::1:8765", '"[::1]:8765" (with the quotes)'),
        ("[127.0.0.1]:1", "is no address to listen on"),
        ("[]:1", "is no address to listen on"),
        ("[:1", "is no address to listen on"),
        ("127.0.0.256:1", "is no address to listen on"),
        ("http://127.0.0.1:80", "is no address to listen on"),
    ],
)
def test_what_is_no_place_to_listen_says_what_to_write(tmp_path: Path, listen: str, says: str) -> None:
    (fault,) = faults(tmp_path, f"timeout: 1m\napi:\n  rate: 1\n  listen: '{listen}'\n")
    assert fault.startswith("fsagent.yaml:4:3: api.listen: "), fault
    assert says in fault


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("api: 8765", "1:1: api: ", "must be a map of names and values, not text"),
        ("api: [a]", "1:1: api: ", "must be a map of names and values, not a list"),
        ("api:\n  lisen: x", "2:3: api.lisen: ", "did you mean 'listen'?"),
        ("api:\n  rate: many", "2:3: api.rate: ", "must be a whole number"),
        ("api:\n  rate: 0", "2:3: api.rate: ", "must be between 1 and 10000"),
        ("api:\n  rate: 10001", "2:3: api.rate: ", "must be between 1 and 10000"),
        ("api:\n  allowed_hosts: ha.local:80", "2:3: api.allowed_hosts: ", "'ha.local:80' is no host"),
        ("api:\n  allowed_hosts:\n    - ha.local\n    - '*'", "4:7: api.allowed_hosts: ", "'*' is no host"),
        ("api:\n  allowed_hosts: [a, [b]]", "2:22: api.allowed_hosts: ", "must be text"),
        ("api:\n  allowed_hosts: https://a", "2:3: api.allowed_hosts: ", "is no host; write a name such as ha.local"),
        ("api:\n  allowed_origins: [https://a.b/]", "2:21: api.allowed_origins: ", "without a path"),
        ("api:\n  allowed_origins: [ha.local]", "2:21: api.allowed_origins: ", "'ha.local' is no origin"),
        ("api:\n  allowed_origins: ['null']", "2:21: api.allowed_origins: ", "'null' is no origin"),
        ("triggers: deny", "1:1: triggers: ", "must be a map"),
        ("triggers:\n  http: deny", "2:3: triggers.http: ", "must be a map of tools and rules"),
        ("triggers:\n  http:", "2:3: triggers.http: ", "must be a map of tools and rules"),
        ("triggers:\n  htpp: {}", "2:3: triggers.htpp: ", "is no trigger (did you mean 'http'?); there are: inbox,"),
        ("triggers:\n  http:\n    shell: never", "3:5: triggers.http.shell: ", "must be allow, ask or deny"),
        ("tools:\n  read: allow\n  shell: never", "3:3: tools.shell: ", "must be allow, ask or deny"),
    ],
)
def test_a_mistake_inside_a_setting_is_told_with_its_own_line(tmp_path: Path, text: str, place: str, says: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"fsagent.yaml:{place}"), fault
    assert says in fault


def test_hosts_and_origins_as_people_have_them(tmp_path: Path) -> None:
    text = """\
api:
  allowed_hosts: [ha.local, homeassistant, 192.168.1.5, "[fd00::1]", "fd00::1", my_box.lan]
  allowed_origins: [https://home.example.org, http://192.168.1.5:8123, "http://[fd00::1]:80"]
"""
    api = load(tmp_path, text).api
    assert api is not None
    assert (len(api.allowed_hosts), len(api.allowed_origins)) == (6, 3)


def test_tools_and_engines_that_nobody_installed_are_told_with_their_lines(tmp_path: Path) -> None:
    text = "engine: modle\ntools:\n  read: allow\n  shel: deny\ntriggers:\n  http:\n    wirte: deny\n    read: deny\n"
    settings = load(tmp_path, text)
    found = [str(fault) for fault in unknown_names(settings, tmp_path / "fsagent.yaml")]
    assert [fault.split(";")[0] for fault in found] == [
        "fsagent.yaml:4:3: tools: there is no 'shel' (did you mean 'shell'?)",
        "fsagent.yaml:7:5: triggers.http: there is no 'wirte' (did you mean 'write'?)",
        "fsagent.yaml:1:1: engine: there is no 'modle' (did you mean 'model'?)",
    ]
    assert [fault.line for fault in unknown_names(settings)] == [0, 0, 0]
    assert [fault.line for fault in unknown_names(settings, tmp_path / "gone.yaml")] == [0, 0, 0]


GOOD = "mcp_servers:\n  home: {url: 'http://ha.local:8123/api/mcp'}\n"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("mcp_servers: npx", "1:1: mcp_servers: ", "must be a map"),
        ("mcpServers: {}", "1:1: mcpServers: ", "did you mean 'mcp_servers'?"),
        (f"{GOOD}  a b: {{command: x}}", "3:3: mcp_servers.a b: ", "is no name for a server"),
        (f"{GOOD}  a__b: {{command: x}}", "3:3: mcp_servers.a__b: ", "is no name for a server"),
        (f"{GOOD}  _: {{command: x}}", "3:3: mcp_servers._: ", "is no name for a server"),
        (f"{GOOD}  a: npx", "3:3: mcp_servers.a: ", "must be a map, such as {command: npx"),
        (f"{GOOD}  a: {{}}", "3:3: mcp_servers.a: ", "needs either a command (a program to start) or a url"),
        (f"{GOOD}  a: {{command: x, url: 'http://a/'}}", "3:3: mcp_servers.a: ", "needs either a command"),
        (f"{GOOD}  a:\n    comand: x", "4:5: mcp_servers.a.comand: ", "did you mean 'command'?"),
        (f"{GOOD}  a:\n    command: [x, y]", "4:5: mcp_servers.a.command: ", "Expected `str`"),
        (f"{GOOD}  a:\n    command: x\n    args: {{a: b}}", "5:5: mcp_servers.a.args: ", "must be a list of texts"),
        (f"{GOOD}  a:\n    command: x\n    env: [A]", "5:5: mcp_servers.a.env: ", "must be a map from names to texts"),
        (f"{GOOD}  a:\n    command: x\n    headers: {{A: b}}", "5:5: mcp_servers.a.headers: ", "goes with url only"),
        (f"{GOOD}  a:\n    command: x\n    timeout: 0s", "5:5: mcp_servers.a.timeout: ", "must be between 0.1s and 1h"),
        (f"{GOOD}  a:\n    command: x\n    timeout: 5", "5:5: mcp_servers.a.timeout: ", "did you mean 5s?"),
        (f"{GOOD}  a:\n    command: x\n    enabled: perhaps", "5:5: mcp_servers.a.enabled: ", "must be true or false"),
        (
            f"{GOOD}  a:\n    command: x\n    read_only: yes",
            "5:5: mcp_servers.a.read_only: ",
            "must be ignore or trust",
        ),
        (f"{GOOD}  a:\n    command: x\n    type: http", "5:5: mcp_servers.a.type: ", "must be stdio for a command"),
        (f"{GOOD}  a:\n    url: ha.local", "4:5: mcp_servers.a.url: ", "is no address"),
        (
            f"{GOOD}  a:\n    url: http://a/\n    headers: {{'A B': c}}",
            "5:15: mcp_servers.a.headers.A B: ",
            "no name of a",
        ),
        (
            f"{GOOD}  a:\n    command: x\n    env:\n      T: ${{env:T}}",
            "6:7: mcp_servers.a.env.T: ",
            "write for instance $",
        ),
    ],
)
def test_a_mistake_in_a_server_is_told_with_its_own_line(tmp_path: Path, text: str, place: str, says: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"fsagent.yaml:{place}"), fault
    assert says in fault


def test_the_environment_fills_in_what_a_server_needs_and_nothing_is_ever_empty(tmp_path: Path) -> None:
    text = """\
mcp_servers:
  a: {command: npx, args: ["${WHERE}/x", "${NONE:-/data}"], env: {TOKEN: "${TOKEN}", LITERAL: $HOME, OFF: ""}}
  b: {url: "${URL}", headers: {Authorization: "Bearer ${TOKEN}"}, type: sse}
"""
    known = load(tmp_path, text).servers
    a = filled("a", known["a"], {"TOKEN": "t0ken!", "WHERE": "/srv"})
    assert (a.command, a.args, a.env) == (
        "npx",
        ("/srv/x", "/data"),
        {"TOKEN": "t0ken!", "LITERAL": "$HOME", "OFF": ""},
    )
    assert (a.trouble, a.without_secrets("it said t0ken!")) == ("", "it said …")
    for environment in ({}, {"TOKEN": "", "URL": "http://a/"}):
        b = filled("b", known["b"], environment)
        assert "TOKEN; set it where fsagent is started" in b.trouble
        assert (b.url, b.headers) == ("", {}), "nothing half filled in"
    b = filled("b", known["b"], {"TOKEN": "x\ny", "URL": "http://a/"})
    assert b.trouble == "the header Authorization is no plain ASCII text on one line"
    assert filled("b", known["b"], {"TOKEN": "x", "URL": "http://a/"}).sse


def test_servers_may_be_named_by_rules_and_must_not_be_named_as_a_tool(tmp_path: Path) -> None:
    text = "tools: {home: allow, hom: ask}\nmcp_servers:\n  home: {command: x}\n  shell: {command: y}\n"
    settings = load(tmp_path, text)
    found = [str(fault).split(";")[0] for fault in unknown_names(settings, tmp_path / "fsagent.yaml")]
    assert found == [
        "fsagent.yaml:1:22: tools: there is no 'hom' (did you mean 'home'?)",
        "fsagent.yaml:4:3: mcp_servers: 'shell' is the name of a tool, so this server is not used",
    ]
    assert [server.name for server in resolved(settings)] == ["home"]
    assert settings.rules("inbox", "home") == [("tools: home", "allow")]
    assert load(tmp_path, GOOD).rules("inbox", "home") == [("tools: home", "ask")]


def test_times_are_shown_in_the_zone_of_the_settings(tmp_path: Path) -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert load(tmp_path, "timezone: Asia/Kolkata").local(moment).isoformat() == "2026-07-01T17:30:00+05:30"
    assert Settings().local(moment) == moment
    assert Settings().local(moment).tzinfo is not None
