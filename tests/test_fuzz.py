"""Any bytes give a command, a task, settings … or a diagnosis of one line per fault; never a crash, a hang, a flood.

``CASES`` mutated files (over 100,000) are read with the long tests, a fifth of them in every run, and twenty times as
many with ``FSAGENT_FUZZ=20``; besides them what hypothesis makes of YAML's grammar, and giants made to cost the most.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsagent.config import load_settings
from fsagent.engines.model.prompt import _without_comments
from fsagent.errors import DocumentError
from fsagent.facts import add_fact, clean_fact, read_facts, remove_facts
from fsagent.files.documents import decode
from fsagent.files.names import conflict_of, fold, is_command_name
from fsagent.model import MAX_DOCUMENT, MAX_FAULT, Question
from fsagent.timetext import rule_from_text
from fsagent.workspace import ballot
from fsagent.workspace.commands import peek, read_command, steps_of
from fsagent.workspace.journal import end_of, read_after
from fsagent.workspace.runs import Envelope, RunFolder
from fsagent.workspace.taskfile import read_task
from fsagent.workspace.taskstates import StateLog, read_states
from fsagent.workspace.usage import read_spent_file

CASES = {"command": 36_000, "task": 42_000, "conf": 4_000, "soul": 8_000, "approval": 4_000, "log": 8_000}
"""How many mutated files of each kind are read, in ``_CHUNKS`` parts, of which every run reads one: over 100,000."""
_TIMES = int(os.environ.get("FSAGENT_FUZZ", "1"))
_CHUNKS = 5
_MOST_PER_BYTE = 60e-6
"""Seconds of a processor per byte, beyond the first ten. Honest files need far less, anything quadratic far more."""

SAMPLE = Path(__file__).parent.parent / "sample-workspace"
NOW = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
ENVELOPE = Envelope(run="20261122-174512-h7qk3f9q", name="x.md", trigger="inbox", time=NOW, path="inbox/x.md")
QUESTION = Question(hash="0" * 64, call=0, tool="shell", args={"command": "ls"}, subject="ls", why="y", effect="once")
ASKS = Question(hash="1" * 64, call=1, tool="ask_person", args={"question": "Red?"}, subject="Red?", why="y",
                effect="once", kind="answer", choices=("red", "blue"))  # fmt: skip
ASKED = ballot.Asked(id="abc123", run=ENVELOPE.run, who="inbox/x.md", words="Tidy up.", expires=NOW)


def command(raw: bytes, _: Path) -> None:
    peek(raw, "x.md")
    steps_of(raw)
    read_command(raw, ENVELOPE, timeout=60, retries=1, engine="offline")


def task(raw: bytes, _: Path) -> None:
    found = read_task(raw, "x", "tasks/x.md")
    msgspec.msgpack.encode(found)  # as the cache of tasks does


def conf(raw: bytes, folder: Path) -> None:
    path = folder / "fsagent.yaml"
    path.write_bytes(raw)
    load_settings(path)


def soul(raw: bytes, _: Path) -> None:
    text, encoding = decode(raw, "soul.md")
    facts = read_facts(text)
    more = add_fact(text, "The kettle is red.")
    assert remove_facts(more, facts[:1]).encode(encoding) is not None
    _without_comments(text)
    if len(text) < 5_000:
        clean_fact(text)
        with suppress(ValueError):
            rule_from_text(text)


def approval(raw: bytes, _: Path) -> None:
    ballot.id_in(raw)
    for questions in ((QUESTION,), (ASKS,), (QUESTION, ASKS)):
        reading = ballot.read(raw, "abc123", questions)
        assert len(reading.marks) == len(questions)
        assert not any("\n" in fault or len(fault) > 3 * MAX_FAULT for fault in reading.faults)


def log(raw: bytes, folder: Path) -> None:
    """The state logs: the tasks', the journal, a run's steps, what was used. A bad line costs itself."""
    path = folder / "2026-11.jsonl"
    path.write_bytes(raw)
    read_after(folder, "2026-11:0", 50)
    read_after(folder, end_of(folder), 50)
    read_states(path)
    list(read_spent_file(path))
    for name in ("states.jsonl", "steps.jsonl"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(path)
    StateLog(folder, keeps=False).get("x")
    run = RunFolder(folder)
    run.summary()
    run.ended()
    run.settled()


READERS: dict[str, Callable[[bytes, Path], None]] = {
    each.__name__: each for each in (command, task, conf, soul, approval, log)
}


def diagnose(reader: Callable[[bytes, Path], None], raw: bytes, folder: Path) -> tuple[str, ...]:
    """What is said of a file: one line per fault, each names the file and hides nothing; nothing of a good one."""
    began = time.thread_time()
    said: DocumentError | None = None
    try:
        reader(raw, folder)
    except DocumentError as error:
        said = error
    faults = tuple(map(str, said.faults)) if said else ()
    assert said is None or (faults and str(said) == "\n".join(faults))
    took = time.thread_time() - began
    assert took < 10 + len(raw) * _MOST_PER_BYTE, f"{took:.1f} s for {len(raw):,} bytes"
    names = ("inbox/x.md", "tasks/x.md", "fsagent.yaml", "soul.md")
    for fault in faults:
        assert fault.startswith(names), fault
        assert fault.isprintable(), fault
        assert len(fault) < 3 * MAX_FAULT
    return faults


# volume: files as people write them, damaged

LINES = (
    b'{"time":"2026-11-22T17:45:00Z","event":"started","run":"r","command":"x.md"}\n'
    b'{"event":"claimed","run":"r","name":"x.md","trigger":"inbox","time":"2026-11-22T17:45:00Z"}\n'
    b'{"event":"attempt","n":1}\n{"event":"finished","status":"done","answer":"a","error":"","finished":null}\n'
    b'{"task":"x","state":{"watermark":"2026-11-22T17:45:00Z","seen":{"a":"b"},"paused":"why"}}\n'
    b'{"time":"2026-11-22T17:45:00Z","run":"r","task":"","model":"m","usage":{"input":10,"cost":0.5}}\n'
)
SEEDS = {
    "command": [
        *(path.read_bytes() for path in sorted(SAMPLE.glob("inbox/**/*.md"))),
        (b"---\nid: a\nthread: t\nengine: offline\ntimeout: 1h30m\nretries: 3\nbackoff: 2s\nnot_before: 18:00\n"
        b"attachments: [a.pdf, b.png]\nbudget: {steps: 20, cost: 0.5}\nexpects: {file: r.md, newer: true}\n"
         b"tools: {shell: deny}\n---\nDo it.\n"),
        b"---\nsteps:\n  - append: {path: log.txt, text: '{{ now }}'}\n    on_error: continue\n  - read: a.md\n---\n",
    ],
    "task": [
        *(path.read_bytes() for path in sorted(SAMPLE.glob("tasks/*.md"))),
        (b"---\non: [mon, fri]\nat: 09:00, 12:30\nactive: 07:00-22:00\nfrom: 2026-01-01\nuntil: 2027-01-01\n"
        b"timezone: Europe/Berlin\nmissed: all\nwithin: 2h\noverlap: queue\njitter: 5m\nwhen: {changed: 'data/*.csv'}\n"
         b"pause_after: off\nreport: changes\n---\nLook.\n"),
        (b"---\ncron: '*/5 9-17 * jan-mar mon-fri'\nwhen:\n  - http: https://example.org/a\n    changed: true\n"
         b"  - shell: test -e a\n---\nDo it.\n"),
        b"---\nonce: 2027-01-05 14:00+02:00\n---\nNow.\n",
    ],
    "conf": [
        (SAMPLE / "fsagent.yaml").read_bytes(),
        (b"engine: offline\ntimeout: 10m\nmax_runs: 4\ntimezone: Europe/Berlin\n"
         b"tools:\n  shell: {ask: ['ls *'], deny: ['*']}\n"
        b"  http: ask\ntriggers:\n  http: {shell: deny}\nbudget: {day: {tokens: 300k, cost: 1}}\n"
        b"api: {listen: 127.0.0.1:8080, allowed_hosts: [ha.local, 10.0.0.0/8]}\nsecrets: {key: env:KEY}\n"
        b"model: {name: 'ollama:qwen3', base_url: http://localhost:11434/v1}\n"
        b"mcp_servers: {ha: {url: https://ha.local/mcp, headers: {Authorization: 'Bearer x'}}}\n"),
    ],
    "soul": [
        (SAMPLE / "soul.md").read_bytes(),
        (b"---\ntitle: x\n---\n# Facts\n\n- My name is Alice.\n- The router's address is 10.0.0.1\n  in the hall\n\n"
        b"<!-- hidden\n- no fact\n-->\n```\n- neither\n```\nI live in Lisbon.\nName: Alice\n\nNotes\n---\n> quote\n"),
    ],
    "approval": [ballot.render(ASKED, each) for each in ((QUESTION,), (ASKS,), (QUESTION, ASKS))],
    "log": [LINES],
}  # fmt: skip
TOKENS = [
    b"---", b"---\n", b"\n---\n", b"...\n", b"--- !!python/object:os.system\n", b": ", b":", b"- ", b"? ", b"&a ",
    b"*a", b"<<: *a\n", b"!!binary ", b"!<tag:x>", b"%YAML 1.1\n", b"%TAG ! x\n", b"|\n", b">-\n", b"'", b'"', b"\\",
    b"[", b"]", b"{", b"}", b"[[[[", b"{{", b"}}", b",", b"#", b" #", b"\t", b"\r", b"\r\n", b"\n\n", b"\0", b"\x0b",
    b"\x1b[31m", b"\x85", b"\xff\xfe", b"\xef\xbb\xbf", b"\xfe\xff", b"\xed\xa0\x80", b"\xc0\x80",
    b"\xf4\x90\x80\x80", "\u202e".encode(), "\u2028".encode(), "٣".encode(), "²".encode(), "İ".encode(), "ß".encode(),
    "\U0001f600".encode(), b'"\\ud800"', b'"\\0"', b"9" * 5_000, b"-1", b"1e999", b"nan", b"inf", b"0x7f", b"1_000",
    b"~", b"null", b"true", b"yes", b"9999-12-31 23:59", b"0000-00-00", b"25:61", b"1h1h", b"every: 0s\n",
    b"every: 1e9d\n", b"cron: 0 0 31 2 *\n", b"cron: '@reboot'\n", b"cron: '*/0 * * * *'\n", b"at: 24:00\n",
    b"on: mon-\n", b"timezone: ../../etc/passwd\n", b"active: 22:00-22:00\n", b"draft: true\n", b"steps: []\n",
    b"steps: {a: b}\n", b"steps:\n- {}\n", b"attachments: ['../x', 'a/b', '.', '']\n", b"tools: {shell: [deny]}\n",
    b"tools: []\n", b"budget: {cost: off}\n", b"expects: {}\n", b"secrets: {a: file:/etc/shadow}\n",
    b"- [x] approve once", b"- [X] refuse", b"[x]", b"## Question 1", b"Answer:", b"Comment:", b"```", b"````yaml\n",
    b"~~~", b"<!--", b"-->", b"# Facts\n", b"- ", b"> ", b"1. ", b"===\n", b"My name is ", b"{", b"}", b'":',
    b'{"event":', b"null", b'"watermark":1', b'"time":"9999-99"', b'"n":1e400', b'{"event":["claimed"]}\n',
    b"[" * 300, b'{"a":' * 300,
]  # fmt: skip


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    """A seed after one to six changes, of the kinds that editors, clients, disks and attackers make."""
    raw = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(raw))
        to = min(len(raw), at + int(dice.expovariate(1 / 8)))
        match dice.randint(0, 9):
            case 0:
                raw[at:to] = b""
            case 1:
                raw[at:at] = bytes(dice.getrandbits(8) for _ in range(dice.randint(1, 4)))
            case 2 if at < len(raw):
                raw[at] ^= 1 << dice.randint(0, 7)
            case 3:
                raw[at:at] = raw[at : at + dice.randint(1, 200)] * dice.randint(1, 4)
            case 4:
                other = dice.choice(seeds)
                cut = dice.randint(0, len(other))
                raw[at:] = other[cut:]
            case 5:
                lines = raw.split(b"\n")
                dice.shuffle(lines)
                raw = bytearray(b"\n".join(lines))
            case 6 if not dice.randint(0, 3):
                raw = bytearray(
                    raw.decode("utf-8", "replace").encode(dice.choice(("utf-16", "utf-16-be", "latin-1")), "replace")
                )
            case 7 if not dice.randint(0, 3):
                raw = bytearray(raw.replace(b"\n", dice.choice((b"\r\n", b"\r", b"\n\n", b"\0"))))
            case _:
                raw[at:to] = dice.choice(TOKENS)
    return bytes(raw[:20_000])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, _CHUNKS))])
@pytest.mark.parametrize("kind", READERS)
def test_every_damaged_file_is_read_or_diagnosed(kind: str, chunk: int, tmp_path: Path) -> None:
    dice = random.Random(f"{kind} {chunk}")
    count = CASES[kind] * _TIMES // _CHUNKS
    good = 0
    for _ in range(count):
        raw = mutated(dice, SEEDS[kind])
        try:
            good += not diagnose(READERS[kind], raw, tmp_path)
        except Exception as error:
            error.add_note(f"read as {kind}: {raw!r}")
            raise
    # both ways were taken, so the mutations reach deep; approvals and logs are never refused as a whole
    assert count // 100 < good <= count
    if kind in ("command", "task", "conf"):
        assert good < count


def test_that_is_more_than_a_hundred_thousand_files() -> None:
    assert sum(CASES.values()) > 100_000
    assert CASES.keys() == READERS.keys() == SEEDS.keys()


# depth: YAML's own grammar, and markdown around it

_names = st.sampled_from([
    "id", "thread", "timeout", "retries", "not_before", "attachments", "steps", "tools", "budget", "expects", "every",
    "cron", "at", "on", "when", "active", "from", "timezone", "engine", "model", "secrets", "api", "mcp_servers", "x",
])  # fmt: skip
_scalars = st.one_of(
    st.sampled_from([token.decode("utf-8", "replace") for token in TOKENS]),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(str),
)
_marks = st.sampled_from(["", "", "", "&a ", "*a", "!!str ", "! ", "!!python/object:os.system "])
_flow = st.recursive(
    st.tuples(_marks, _scalars).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(_names, inner), max_size=4).map(
            lambda items: "{" + ", ".join(f"{name}: {value}" for name, value in items) + "}"
        ),
    ),
    max_leaves=25,
)


def _block(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return _flow
    inner = _block(depth - 1)
    pad = st.sampled_from(["  ", " ", "    ", "\t", ""])
    deeper = st.tuples(pad, inner).map(lambda each: "\n" + "\n".join(each[0] + line for line in each[1].split("\n")))
    value = st.one_of(_flow, deeper, _scalars.map(lambda text: "|\n  " + text), st.just(""))
    maps = st.lists(st.tuples(_names, value), max_size=4).map(lambda all_: "\n".join(f"{n}: {v}" for n, v in all_))
    return st.one_of(maps, st.lists(value, max_size=4).map(lambda all_: "\n".join(f"- {each}" for each in all_)))


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    ruler = st.sampled_from(["---\n", "---\n", "---\n", "--- \n", "----\n", "...\n", "", "---\n---\n", "\ufeff---\n"])
    text = draw(ruler) + draw(_block(3)) + "\n" + draw(ruler) + draw(st.one_of(_scalars, _block(1)))
    text = text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be"])), "surrogatepass")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["command", "task", "conf"])
def test_whatever_yaml_can_say_is_read_or_diagnosed(kind: str, tmp_path: Path) -> None:
    @given(documents())
    @settings(max_examples=250 * _TIMES, deadline=None, suppress_health_check=list(HealthCheck))
    def whatever(raw: bytes) -> None:
        if kind == "conf":
            raw = raw.replace(b"---", b"")
        diagnose(READERS[kind], raw, tmp_path)

    whatever()


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ('id: "\\ud800"', "halves of a character"),
        ("\n".join(f"k{n}: v" for n in range(300)), "has more faults"),
        ("timeout: '" + "9" * 50_000 + "x'", "is no duration"),
        ("? a: b\n", "a name before ':' must be plain text"),
        ("[a, b]: c", "a name before ':' must be plain text"),
        ("thing\x1b[31m: a", "control character"),
        ("'evil\u202eeman': a", "evil\\u202eeman"),
        ('"two\\nlines": a', "two\\nlines"),
    ],
)
def test_a_diagnosis_is_one_short_line_in_which_nothing_hides(header: str, says: str, tmp_path: Path) -> None:
    faults = diagnose(command, f"---\n{header}\n---\nDo it.\n".encode(), tmp_path)
    assert says in "".join(faults), faults
    assert len(faults) <= 101


# giants: what would cost the most


def _filled(unit: str, size: int, before: str = "", after: str = "") -> bytes:
    return (before + unit * (size // len(unit.encode())) + after).encode("utf-8", "surrogatepass")


HEADER = 60_000
GIANTS = {
    "values that need quotes": _filled("k: v\n", 0) + b"---\n" + b"".join(b"k%d: v\n" % n for n in range(1500))
    + b"".join(b"x%d: *a\n" % n for n in range(49)) + b"---\nx",
    "braces never closed": _filled("{{", HEADER, "---\nid: [", "]\n---\nx"),
    "a value and then spaces": _filled(" ", HEADER, "---\nid: *b", "c\n---\nx"),
    "a rule of spaces": _filled(" ", HEADER, "---\non: 'mon", "x'\n---\nx"),
    "a rule of dashes": _filled("- ", HEADER, "---\nactive: '1", "x'\n---\nx"),
    "deep lists": _filled("[", HEADER, "---\na: ", "\n---\nx"),
    "many names": b"---\n" + b"".join(b"name%d: v\n" % n for n in range(4000)) + b"---\nx",
    "one name": _filled("a", HEADER, "---\n", ": b\n---\nx"),
    "digits": _filled("9", HEADER, "---\nretries: ", "\n---\nx"),
    "rulers": _filled("---\n", 80_000),
    "comments on a line": _filled("<!---->", 80_000),
    "comments never closed": _filled("<!--", 1_000_000),
    "comments never closed, in lines": _filled("<!--\n", 80_000),
    "fences": _filled("```\n", 80_000),
    "bullets": _filled("-\n", 80_000),
    "quotes": _filled("'a", 1_000_000),
    "boxes": _filled("- [x] approve once\n", 80_000, "---\nid: abc123\n---\n"),
    "a box of spaces": _filled(" ", 1_000_000, "---\nid: abc123\n---\n", "- [ ] refuse"),
    "records": b'{"event":' * 100_000,
    "too large": b"x" * (MAX_DOCUMENT + 1),
    "utf-16": ("a\n" * 80_000).encode("utf-16"),
}  # fmt: skip
_BOUNDED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_fuzz
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
for name, raw in test_fuzz.GIANTS.items():
    for reader in test_fuzz.READERS.values():
        try:
            test_fuzz.diagnose(reader, raw, Path(sys.argv[2]))
        except BaseException as error:
            sys.exit(f"{name}: {reader.__name__}: {error!r}")
"""


@pytest.mark.long
@pytest.mark.timeout(400)
def test_giants_are_read_or_refused_within_a_gigabyte_and_in_time_by_their_size(tmp_path: Path) -> None:
    """Each in time in proportion to its size: a pattern that goes back and forth would take minutes."""
    words = [sys.executable, "-c", _BOUNDED, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "unit", [" ", "a", ".", "-", "(", " (", "_", "_conflict", "[", ".tmp", "\n", "\u202e", "ﷺ", "1"]
)
def test_no_name_of_a_file_costs_time(unit: str) -> None:
    """A name has at most 255 bytes; a folder of thousands of such names must not hold the scan up."""
    name = (unit * 255).encode()[:251].decode("utf-8", "ignore") + ".md"
    began = time.thread_time()
    for _ in range(20):
        is_command_name(name)
        conflict_of(name)
        fold(name)
    assert (time.thread_time() - began) / 20 < 0.01
