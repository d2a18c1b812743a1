"""fsagent.yaml: what the template says, what holds without it, and how each mistake is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsagent.config import SETTINGS_TEMPLATE, Settings, load_settings
from fsagent.errors import SettingsError
from fsagent.files.fields import Duration
from fsagent.files.yamltext import load_mapping, plain

EXAMPLES = {"timezone", "tools"}  # shown as examples; their default is to say nothing


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
    text = re.sub(r"^# (?=[a-z_]+:|  [a-z]+:)", "", SETTINGS_TEMPLATE, flags=re.MULTILINE)
    return dict(plain(load_mapping(text, "template")))


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
    everything = load(tmp_path, re.sub(r"^# (?=[a-z_]+:|  [a-z]+:)", "", SETTINGS_TEMPLATE, flags=re.MULTILINE))
    assert everything.timezone == "Europe/Berlin"
    assert set(everything.tools) == {"shell", "http", "write"}


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
attachment_wait: 1d
shutdown_wait: 2s
tools:
  shell: {"df *": allow, "*": ask}
  write: deny
"""
    settings = load(tmp_path, text)
    default = msgspec.structs.asdict(Settings())
    assert [name for name, value in msgspec.structs.asdict(settings).items() if value == default[name]] == []
    assert (settings.heartbeat_interval, settings.timeout, settings.attachment_wait) == (300, 5400, 86400)
    assert isinstance(settings.scan_interval, Duration)
    assert list(settings.rule("shell")) == ["df *", "*"], "the order of patterns is the order of the file"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("heartbeat_interval: 15", "did you mean 15s?"),
        ("heartbeat_interval: 0.5s", "must be at least 1s"),
        ("heartbeat_interval: 0s", "must be at least 1s"),
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
    assert [settings.rule(tool) for tool in ("shell", "http", "write", "read", "unheard_of")] == [
        "deny", "deny", "ask", "allow", "allow",
    ]  # fmt: skip


def test_times_are_shown_in_the_zone_of_the_settings(tmp_path: Path) -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert load(tmp_path, "timezone: Asia/Kolkata").local(moment).isoformat() == "2026-07-01T17:30:00+05:30"
    assert Settings().local(moment) == moment
    assert Settings().local(moment).tzinfo is not None
