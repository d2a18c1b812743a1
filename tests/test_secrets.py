"""Secrets: what the settings may say of them, where they may be sent, and that no text shows a value."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fsagent.config import Settings, load_settings
from fsagent.errors import SettingsError
from fsagent.model import Step, ToolCall, ToolResult
from fsagent.secrets import MAX_BYTES, Redactor, SecretSource, load_secrets
from fsagent.workspace.journal import Journal
from harness import Agent, wait_for

TOKEN = "ghp_aB3/x+9=Zq~k"
REDACTOR = Redactor({"github": TOKEN})
MASK = "[secret github]"

values = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=30)
around = st.binary(max_size=8)

# every way to write a value that is promised, as it is done by the libraries that do it


def hex_case(text: str) -> str:
    """Percent escapes in small letters."""
    return "".join(part.lower() if number % 2 else part for number, part in enumerate(_split_escapes(text)))


def _split_escapes(text: str) -> list[str]:
    parts, rest = [], text
    while rest:
        before, sign, rest = rest.partition("%")
        parts += [before, sign + rest[:2]]
        rest = rest[2:]
    return parts


def based(value: bytes, before: bytes, after: bytes, *, url: bool, padded: bool) -> str:
    encoded = (base64.urlsafe_b64encode if url else base64.b64encode)(before + value + after).decode()
    return encoded if padded else encoded.rstrip("=")


WAYS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "percent": quote,
    "percent, all of it": lambda value: quote(value, safe=""),
    "percent, every byte": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
    "percent, small letters": lambda value: hex_case(quote(value, safe="")),
    "percent, a form": quote_plus,
    "json": lambda value: json.dumps(value)[1:-1],
    "json, not only ASCII": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "json, slashes too": lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
    "html": html.escape,
    "html, as PHP does it": lambda value: html.escape(value).replace("&#x27;", "&#039;"),
    "html, numbers": lambda value: "".join(f"&#{ord(char)};" for char in value),
    "html, hex numbers": lambda value: "".join(f"&#x{ord(char):x};" for char in value),
}


@pytest.mark.parametrize("way", WAYS)
@given(value=values, before=st.text(max_size=5), after=st.text(max_size=5))
def test_no_way_to_write_a_value_survives(way: str, value: str, before: str, after: str) -> None:
    written = WAYS[way](value)
    found = Redactor({"x": value}).text(f"{before}{written}{after}")
    assert "[secret x]" in found
    if len(set(value)) > 1 and value not in "[secret x]":
        assert written not in found.replace("[secret x]", "")


@given(value=values, before=around, after=around, url=st.booleans(), padded=st.booleans())
def test_no_base64_of_a_value_survives(value: str, before: bytes, after: bytes, url: bool, padded: bool) -> None:
    """At every alignment; what stands around it keeps all characters that hold nothing of it."""
    data = value.encode()
    text = based(data, before, after, url=url, padded=padded)
    first, last = len(before) * 8 // 6, -(-(len(before) + len(data)) * 8 // 6)
    assert Redactor({"x": value}).text(text) == f"{text[:first]}[secret x]{text[last:]}"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode(),
        "https://example.org/?t=" + quote(base64.b64encode(TOKEN.encode()).decode(), safe=""),
        json.dumps({"t": base64.b64encode(TOKEN.encode()).decode()}).replace("/", "\\/"),
    ],
)
def test_masks_say_which_secret_it_is(text: str) -> None:
    assert MASK in REDACTOR.text(text)
    assert REDACTOR.mask_in({"a": [REDACTOR.text(text)]}) == "github"


@given(st.text(alphabet="0123456789 .,{}[]\"'\n%&\\+=éß🎈", max_size=300))
def test_text_without_secrets_stays_the_same_object(text: str) -> None:
    redactor = Redactor({"a": "correct-horse", "b": "Grüße & Küsse", "c": 'a"b\\c/d'})
    assert redactor.text(text) is text
    data = {"k": [text, 1, None, (text,)], text: True}
    assert redactor.value(data) is data
    assert redactor.mask_in(data) == ""
    stream = redactor.stream()
    assert stream.feed(text) + stream.end() == text


pieces = st.lists(
    st.sampled_from(
        ["aaaaab", "aaaaaa", "ab%20cd", "b+cde", "&", "%", "\\", "&#x6", "1;", "\\u00", "61", "YWFhYW", "Fi"]
    )
    | st.text(alphabet="ab+ cd&%\\", max_size=4),
    max_size=12,
)
overlapping = {"one": "aaaaab", "two": "ab cde", "three": "aaaaaa", "four": "b+cdef&%\\ab"}


@given(pieces=pieces, value=st.none() | values, way=st.sampled_from(list(WAYS)), data=st.data())
def test_a_stream_gives_what_the_whole_text_gives(
    pieces: list[str], value: str | None, way: str, data: st.DataObject
) -> None:
    redactor = Redactor(overlapping | ({"own": value} if value else {}))
    whole = "".join([*pieces, WAYS[way](value or "ab cde"), *pieces])
    stream, given_out, at = redactor.stream(), "", 0
    while at < len(whole):
        step = data.draw(st.integers(1, 9))
        given_out += stream.feed(whole[at : at + step])
        at += step
    assert given_out + stream.end() == redactor.text(whole)


def test_a_stream_keeps_back_no_more_than_may_begin_a_secret() -> None:
    stream = REDACTOR.stream()
    assert stream.feed("Hello wor") == "Hello wor"
    assert stream.feed("ld, g") == "ld, "
    assert stream.feed("hp_no") == "ghp_no"
    assert stream.feed(f"! {TOKEN[:-1]}") == "! "
    assert stream.feed(TOKEN[-1] + ".") == MASK + "."
    assert stream.feed(TOKEN) == MASK, "nothing can follow that would belong to it"
    assert stream.end() == ""


def test_what_overlaps_is_masked_whole_under_the_longest() -> None:
    redactor = Redactor({"short": "abcdef", "long": "cdefghij", "inner": "defghi"})
    assert redactor.text("-abcdefghij-") == "-[secret long]-"
    assert redactor.text("-abcdefabcdef-") == "-[secret short][secret short]-"
    assert Redactor({"a": "aaaaaa"}).text("aaaaaaaa") == "[secret a]", "no rest of it stays"


def test_values_in_values_are_masked_and_the_rest_is_kept() -> None:
    result = ToolResult(text=f"is {TOKEN}", data={TOKEN: [1, f"{TOKEN}"], "b": None})
    clean = REDACTOR.value({"result": result, "more": (TOKEN, 2), "same": [1, "x"]})
    assert clean["result"] == ToolResult(text=f"is {MASK}", data={MASK: [1, MASK], "b": None})
    assert clean["more"] == (MASK, 2)
    step = Step(calls=(ToolCall("read", {"path": "a"}),))
    assert REDACTOR.value(step) is step
    assert REDACTOR.mask_in({"text": ["x", f"y {MASK}"]}) == "github"
    assert REDACTOR.mask_in({"text": "[secret other]"}) == ""


def test_no_secrets_cost_nothing_and_short_ones_are_refused() -> None:
    none = Redactor({})
    text, data = f"{TOKEN} {MASK}", {"a": TOKEN}
    assert not none
    assert none.text(text) is text
    assert none.value(data) is data
    assert none.mask_in(text) == ""
    assert none.stream().feed(text) is text
    assert REDACTOR
    with pytest.raises(ValueError, match="6 characters"):
        Redactor({"x": "12345"})


# the settings


def load(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "fsagent.yaml").write_text(text)
    return load_settings(tmp_path / "fsagent.yaml")


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    (one,) = caught.value.faults
    return str(one)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("secrets: ghp_hidden", "1:1: secrets: ", "must be a map"),
        ("secrets:\n  x: ghp_hidden", "2:3: secrets.x: ", "the value itself never stands in fsagent.yaml"),
        ("secrets:\n  x: [ghp_hidden]", "2:3: secrets.x: ", "must be a map, such as {env: GITHUB_TOKEN}"),
        ("secrets:\n  x: {env: A, value: ghp_hidden}", "2:15: secrets.x.value: ", "the value itself never stands in"),
        ("secrets:\n  x:\n    env: A\n    fro: []", "4:5: secrets.x.fro: ", "did you mean 'for'?"),
        ("secrets:\n  x: {}", "2:3: secrets.x: ", "needs one of env"),
        ("secrets:\n  x: {for: []}", "2:3: secrets.x: ", "needs one of env"),
        ("secrets:\n  x: {env: A, file: ~/a}", "2:3: secrets.x: ", "needs one of env"),
        ("secrets:\n  x: {env: }", "2:7: secrets.x.env: ", "no name of an environment variable"),
        ("secrets:\n  x: {env: ghp-hidden}", "2:7: secrets.x.env: ", "no name of an environment variable"),
        ("secrets:\n  x: {file: token.txt}", "2:7: secrets.x.file: ", "write it from / or ~/ on"),
        ("secrets:\n  x: {file: [/a]}", "2:7: secrets.x.file: ", "is no path"),
        ("secrets:\n  a.b: {env: A}", "2:3: secrets.a.b: ", "is no name for a secret"),
        ("secrets:\n  x: {env: A, for: '*'}", "2:15: secrets.x.for: ", "is no pattern of addresses"),
        ("secrets:\n  x:\n    env: A\n    for:\n      - https://*/a\n", "5:9: secrets.x.for: ", "no pattern"),
        ("secrets:\n  x: {env: A, for: ['https://a.example*']}", "2:21: secrets.x.for: ", "and a path"),
        ("secrets:\n  x: {env: A, for: ['https://A.example/*']}", "2:21: secrets.x.for: ", "small letters"),
    ],
)
def test_each_mistake_is_told_with_its_place_and_without_a_value(
    tmp_path: Path, text: str, where: str, says: str
) -> None:
    told = fault(tmp_path, text)
    assert told.startswith(f"fsagent.yaml:{where}"), told
    assert says in told
    assert "hidden" not in told


def test_a_file_in_the_workspace_is_no_place_for_a_secret(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    assert "lies in the workspace" in fault(root, f"secrets:\n  x: {{file: {root}/token}}\n")
    link = tmp_path / "link"
    link.symlink_to(root / "token")
    assert fault(root, f"secrets:\n  x: {{file: {link}}}\n").startswith("fsagent.yaml:2:7: secrets.x.file: lies in")
    link.unlink()
    link.write_text("long enough")
    settings = load(root, f"secrets:\n  x: {{file: {link}}}\n")
    assert load_secrets(settings, root) == ({"x": "long enough"}, [])
    (root / "token").write_text("long enough")
    link.unlink()
    link.symlink_to(root / "token")
    values, trouble = load_secrets(settings, root)
    assert values == {}
    assert "lies in the workspace" in trouble[0]


def test_values_come_from_the_environment_and_from_files_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "secrets:\n  github: {env: GH_TOKEN, for: https://api.example.org/*}\n  pass: {file: ~/pass}\n"
    settings = load(root, text)
    monkeypatch.delenv("GH_TOKEN", raising=False)
    assert load_secrets(settings, root) == (
        {},
        [
            "the secret github is not there: set GH_TOKEN",
            "the secret pass is not there: ~/pass cannot be read (No such file or directory)",
        ],
    )
    monkeypatch.setenv("GH_TOKEN", f" {TOKEN}\n")
    (tmp_path / "pass").write_text("\n hunter2-hunter2\r\n")
    assert load_secrets(settings, root) == ({"github": TOKEN, "pass": "hunter2-hunter2"}, [])
    monkeypatch.setenv("GH_TOKEN", "12345")
    (tmp_path / "pass").write_text(" \n")
    assert load_secrets(settings, root) == (
        {},
        [
            "the secret github is not used: a value of less than 6 characters is found everywhere",
            "the secret pass is not there: write it into ~/pass",
        ],
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\xfdabcdef", "holds no text"),
        (b"x" * (MAX_BYTES + 1), "at most 8,192 characters"),
        (None, "is no regular file"),
    ],
)
def test_what_is_no_secret_is_told(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "secret"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        SecretSource(file=str(path)).read()


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("https://api.example.org/*", "https://api.example.org/", True),
        ("https://api.example.org/*", "https://api.example.org/a/b?c=1", True),
        ("https://api.example.org/v1/*", "https://api.example.org/v2/x", False),
        ("https://api.example.org/*", "http://api.example.org/", False),
        ("https://api.example.org/*", "https://api.example.org:8443/", False),
        ("https://api.example.org:8443/*", "https://api.example.org:8443/", True),
        ("https://api.example.org/*", "https://api.example.org.evil.example/", False),
        ("https://*.example.org/*", "https://api.example.org/x", True),
        ("https://*.example.org/*", "https://example.org/x", False),
        ("https://*.example.org/*", "https://evil.example/x.example.org/y", False),
        ("https://*.example.org/*", "https://evil.example/?.example.org/", False),
        ("http://[::1]:8123/api/*", "http://[::1]:8123/api/x", True),
    ],
)
def test_a_secret_may_be_sent_where_its_patterns_say(pattern: str, url: str, fits: bool) -> None:
    assert SecretSource(env="A", urls=(pattern,)).fits(url) is fits
    assert not SecretSource(env="A").fits(url)


# where it shows


def test_the_journal_and_the_screen_show_masks(tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = []
    journal = Journal(tmp_path, lambda: datetime(2026, 11, 22, tzinfo=UTC), shown.append)
    journal.append("before", text=TOKEN)
    journal.redactor = REDACTOR
    journal.append("result", durable=True, result=ToolResult(error=f"no: {TOKEN}"), names={TOKEN: 1})
    journal.redactor = Redactor({})
    journal.append("after", text="x")
    journal.close()
    lines = (tmp_path / "2026-11.jsonl").read_text().splitlines()
    assert TOKEN in lines[0], "what was written before stays"
    assert TOKEN not in lines[1]
    assert json.loads(lines[1])["result"]["error"] == f"no: {MASK}"
    assert json.loads(lines[1])["names"] == {MASK: 1}
    assert shown[1]["result"].error == f"no: {MASK}"
    assert len(lines) == 3


def test_the_status_says_which_secret_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSAGENT_TEST_TOKEN", raising=False)
    agent = Agent(tmp_path / "ws", "secrets:\n  github: {env: FSAGENT_TEST_TOKEN}\n")
    try:
        agent.start()
        says = "the secret github is not there: set FSAGENT_TEST_TOKEN"
        status = agent.layout.status
        wait_for(lambda: status.exists() and says in status.read_text(), "the status names it")
    finally:
        agent.close()


def test_large_texts_are_searched_quickly() -> None:
    """Not a measurement: it only ends in time if nothing in it grows faster than the text."""
    redactor = Redactor({f"s{number}": f"{TOKEN}{number}" * 20 for number in range(10)})
    page = '<a href="/x?y=%20z&amp;g=g">ghp_aB3 \\"quoted\\"</a> ' * 10_000
    assert redactor.text(page) is page
    assert redactor.text(page + f"{TOKEN}3" * 20).endswith("[secret s3]")


def test_values_of_one_character_only_are_found_too() -> None:
    for value in ("\\" * 8, "%" * 8, "&" * 8, "+" * 8, "/" * 8, "=" * 8):
        redactor = Redactor({"x": value})
        for way in WAYS.values():
            assert redactor.text(f"<{way(value)}>") == "<[secret x]>", (value, way(value))


@given(st.text(max_size=40))
def test_masking_is_final(text: str) -> None:
    assume("secret" not in text)
    once = REDACTOR.text(text + TOKEN)
    assert REDACTOR.text(once) is once
