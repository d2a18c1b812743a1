"""Tokens: secrets that only their owner can read, that count from the moment they are made to the moment they go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fsagent.doctor import examine
from fsagent.errors import ConflictError, NotFoundError, PersonError
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import SCOPES, Token, Tokens
from harness import FSAGENT

GOOD = {"name": "a", "token": "fsa_0123456789abcdef", "scopes": ["read"], "made": "2026-01-01T00:00:00Z"}
DAMAGED = [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"tokens": null}', b'{"tokens": [{"name": "owner"}]}',
    *(
        json.dumps({"tokens": each}).encode()
        for each in (
            [GOOD | {"token": ""}], [GOOD | {"token": "fsa_0123456789"}], [GOOD | {"scopes": ["all"]}],
            [GOOD | {"made": "2026-01-01T00:00:00"}], [GOOD | {"name": "a b"}], [GOOD, GOOD | {"scopes": ["admin"]}],
        )
    ),
]  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


@pytest.fixture
def tokens(layout: Layout) -> Tokens:
    return Tokens(layout)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def fsagent(layout: Layout, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FSAGENT, "token", "-w", str(layout.root), *words], capture_output=True, text=True, timeout=50
    )


# the file


def test_a_new_workspace_has_a_token_for_its_owner(tmp_path: Path) -> None:
    layout, made = init_workspace(tmp_path / "ws")
    (token,) = Tokens(layout).list()
    assert (token.name, token.scopes) == ("owner", SCOPES)
    assert token.token.startswith("fsa_")
    assert len(token.token) >= 40
    assert token.made <= datetime.now(UTC)
    assert not [name for name in made if "token" in name]
    assert init_workspace(layout.root)[1] == []
    assert Tokens(layout).list() == [token], "a second init changes nothing"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_the_file_is_never_open_to_others_not_even_for_an_instant(tmp_path: Path, mask: int) -> None:
    """Every file that the process ever opens for writing there, as the system's own audit hook tells it."""
    init_workspace(tmp_path / "ws")
    (tmp_path / "ws" / ".fsagent" / "tokens.json").unlink()
    code = """
import os, sys
from pathlib import Path
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import Tokens
root = Path(sys.argv[1])
seen = []
def hook(event, args):
    if event == "os.rename" and str(args[1]).endswith("tokens.json"):
        seen.append(("renamed", os.stat(args[0]).st_mode & 0o077))
sys.addaudithook(hook)
real = os.open
def opened(path, flags, *rest, **more):
    fd = real(path, flags, *rest, **more)
    if flags & os.O_CREAT and "locks" not in str(path):
        seen.append(("made", os.fstat(fd).st_mode & 0o077))
    return fd
os.open = opened
os.umask(int(sys.argv[2]))
tokens = Tokens(Layout(root))
tokens.ensure(); tokens.make("a", ["read"]); tokens.rotate("a"); tokens.remove("a")
assert [what for what, _ in seen] == ["made", "renamed"] * 4, seen
assert not [bits for _, bits in seen if bits], seen
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ws"), str(mask)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert mode(tmp_path / "ws" / ".fsagent" / "tokens.json") == 0o600


def test_a_file_that_is_open_to_others_is_told_and_closed_when_next_written(layout: Layout, tokens: Tokens) -> None:
    assert tokens.trouble() == ""
    for bits in (0o640, 0o604, 0o666, 0o620):
        layout.tokens.chmod(bits)
        (fault,) = examine(layout).faults
        assert str(fault).startswith(f".fsagent/tokens.json: is open to others (mode {bits:o})")
        assert "fsagent token --rotate" in fault.message
        tokens.rotate("owner")
        assert mode(layout.tokens) == 0o600
        assert examine(layout).faults == []


@pytest.mark.parametrize("raw", DAMAGED)
def test_a_damaged_file_lets_nobody_in_and_says_how_to_mend_it(layout: Layout, tokens: Tokens, raw: bytes) -> None:
    secret = tokens.ensure().token
    assert tokens.find(secret)
    layout.tokens.write_bytes(raw)
    for attempt in (
        lambda: tokens.find(secret),
        lambda: tokens.find("fsa_0123456789abcdef"),
        lambda: tokens.find(""),
        tokens.list,
        tokens.ensure,
        lambda: tokens.get("owner"),
        lambda: tokens.make("phone", ["read"]),
        lambda: tokens.remove("owner"),
        lambda: tokens.rotate("phone"),
    ):
        for _ in range(2):
            with pytest.raises(PersonError, match=r"^\.fsagent/tokens\.json is damaged.*fsagent token --rotate owner$"):
                attempt()
    assert layout.tokens.read_bytes() == raw
    (fault,) = examine(layout).faults
    assert str(fault).startswith(".fsagent/tokens.json: is damaged")
    init_workspace(layout.root)
    assert layout.tokens.read_bytes() == raw, "a damaged file hurts only itself"
    new = tokens.rotate("owner")
    assert (new.scopes, mode(layout.tokens)) == (SCOPES, 0o600)
    assert tokens.find(secret) is None
    assert tokens.find(new.token) == new
    assert examine(layout).faults == []


def test_a_token_that_a_person_wrote_by_hand_counts(layout: Layout, tokens: Tokens) -> None:
    layout.tokens.write_text(json.dumps({"tokens": [GOOD]}))
    found = tokens.find("fsa_0123456789abcdef")
    assert found == tokens.get("a")
    assert (found.scopes, found.made) == (("read",), datetime(2026, 1, 1, tzinfo=UTC))


def test_a_file_that_cannot_be_read_says_so(layout: Layout, tokens: Tokens) -> None:
    layout.tokens.unlink()
    layout.tokens.mkdir()
    for attempt in (tokens.list, lambda: tokens.find("x"), lambda: tokens.rotate("owner"), tokens.ensure):
        with pytest.raises(PersonError, match=r"\.fsagent/tokens\.json cannot be read: Is a directory"):
            attempt()


# names and scopes


def test_a_token_is_made_found_rotated_and_removed(tokens: Tokens) -> None:
    phone = tokens.make("phone", ["command", "read", "read"])
    assert phone.scopes == ("read", "command")
    assert tokens.find(phone.token) == tokens.get("phone") == phone
    new = tokens.rotate("phone")
    assert new.token != phone.token
    assert (new.name, new.scopes) == (phone.name, phone.scopes)
    assert tokens.find(phone.token) is None
    assert [each.name for each in tokens.list()] == ["owner", "phone"], "it keeps its place"
    tokens.remove("phone")
    assert tokens.find(new.token) is None
    assert [each.name for each in tokens.list()] == ["owner"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "-a", ".", "..", "a" * 41, "a\n", "owner\0"])
def test_a_bad_name_is_refused_with_what_to_write(tokens: Tokens, name: str) -> None:
    with pytest.raises(PersonError, match="write at most 40 letters, digits"):
        tokens.make(name, ["read"])


def test_names_as_people_choose_them(tokens: Tokens) -> None:
    for name in ("a", "Phone-2", "home.assistant", "my_page", "7", "a" * 40):
        assert tokens.make(name, SCOPES).name == name


def test_a_taken_name_and_bad_scopes_are_refused(tokens: Tokens) -> None:
    before = tokens.list()
    with pytest.raises(ConflictError, match=r"there is a token 'owner' already; .*fsagent token --rotate owner"):
        tokens.make("owner", ["read"])
    with pytest.raises(PersonError, match=r"no scope 'reed' \(did you mean 'read'\?\); there are: read, command, "):
        tokens.make("a", ["reed"])
    with pytest.raises(PersonError, match="needs a scope"):
        tokens.make("a", [])
    assert tokens.list() == before


def test_a_name_that_is_not_there_names_the_nearest_and_what_exists(tokens: Tokens) -> None:
    tokens.make("phone", ["read"])
    for attempt in (tokens.get, tokens.rotate, tokens.remove):
        with pytest.raises(NotFoundError) as caught:
            attempt("phnoe")
        assert "there is no token 'phnoe' (did you mean 'phone'?); there are: owner, phone" in str(caught.value)
        assert "fsagent token phnoe --make" in str(caught.value)


def test_a_removed_owner_does_not_come_back_by_itself(layout: Layout, tokens: Tokens) -> None:
    phone = tokens.make("phone", ["read"])
    tokens.remove("owner")
    assert tokens.ensure() == phone
    init_workspace(layout.root)
    assert tokens.list() == [phone]
    tokens.remove("phone")
    assert tokens.find(phone.token) is None
    with pytest.raises(NotFoundError, match="there is no token 'owner'; there are none"):
        tokens.ensure()
    init_workspace(layout.root)
    assert tokens.list() == []


# secrets


def test_a_secret_gets_into_no_log_by_accident(tokens: Tokens) -> None:
    token = tokens.ensure()
    for shown in (repr(token), str(token), f"{token}", repr([token]), repr({"a": token}), repr(token.__rich_repr__())):
        assert token.token not in shown
        assert "owner" in shown
    assert token.token not in repr(tokens)


def test_what_is_no_secret_finds_nothing(layout: Layout, tokens: Tokens) -> None:
    secret = tokens.ensure().token
    for wrong in ("", "owner", secret[:-1], secret + "x", secret.upper(), " " + secret, "é", "\ud800", "x" * 100_000):
        assert tokens.find(wrong) is None
    layout.tokens.unlink()
    assert tokens.find(secret) is None
    assert tokens.find("") is None
    assert tokens.ensure().token != secret


def test_a_change_counts_at_once_in_a_server_that_runs(layout: Layout, tokens: Tokens) -> None:
    """Another process rotates; the one that serves takes the new secret and no longer the old one."""
    secret = tokens.ensure().token
    for _ in range(20):
        assert tokens.find(secret)
        new = Tokens(layout).rotate("owner").token
        assert tokens.find(secret) is None
        assert tokens.find(new)
        secret = new
    Tokens(layout).remove("owner")
    assert tokens.find(secret) is None


def test_the_file_is_read_again_only_when_it_has_changed(layout: Layout, tokens: Tokens) -> None:
    secret = tokens.ensure().token
    assert tokens.find(secret)
    status = os.stat(layout.tokens)
    with layout.tokens.open("r+b") as file:  # the same size, and then the same time: as if it had not changed
        file.write(b"!")
    os.utime(layout.tokens, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tokens.find(secret)
    os.utime(layout.tokens)
    with pytest.raises(PersonError, match="is damaged"):
        tokens.find(secret)


def test_many_threads_may_ask_while_tokens_change(layout: Layout, tokens: Tokens) -> None:
    owner, ended = tokens.ensure(), threading.Event()

    def ask() -> int:
        asked = 0
        while not ended.is_set():
            assert tokens.find(owner.token) == owner
            assert tokens.find("fsa_wrong") is None
            asked += 1
        return asked

    with ThreadPoolExecutor(8) as pool:
        askers = [pool.submit(ask) for _ in range(7)]
        try:
            for number in range(30):
                Tokens(layout).make(f"t{number}", ["read"])
        finally:
            ended.set()
        assert all(asker.result() for asker in askers)
    assert len(tokens.list()) == 31


# several at once


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_all_who_make_the_first_token_at_once_get_the_same(layout: Layout, crowd: ThreadPoolExecutor) -> None:
    layout.tokens.unlink()
    code = (
        "import sys; from pathlib import Path\nfrom fsagent.workspace.layout import Layout\n"
        "from fsagent.workspace.tokens import Tokens\nprint(Tokens(Layout(Path(sys.argv[1]))).ensure().token)"
    )

    def ask(number: int) -> str:
        if number % 2:
            return Tokens(layout).ensure().token
        command = [sys.executable, "-c", code, str(layout.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout.strip()

    assert len(set(crowd.map(ask, range(12)))) == 1
    assert len(Tokens(layout).list()) == 1


def test_tokens_that_are_made_at_once_are_all_kept(layout: Layout, crowd: ThreadPoolExecutor) -> None:
    made = list(crowd.map(lambda number: Tokens(layout).make(f"t{number}", ["read"]), range(16)))
    assert {token.token for token in made} <= {token.token for token in Tokens(layout).list()}


def test_of_two_with_the_same_name_one_is_made(layout: Layout, crowd: ThreadPoolExecutor) -> None:
    def make(_: int) -> bool:
        try:
            Tokens(layout).make("phone", ["read"])
        except ConflictError:
            return False
        return True

    assert sum(crowd.map(make, range(8))) == 1


# the command line


def test_the_secret_stands_alone_on_the_screen(layout: Layout, tokens: Tokens) -> None:
    owner = tokens.ensure()
    for words in ([], ["owner"]):
        done = fsagent(layout, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{owner.token}\n", "")
    assert msgspec.json.decode(fsagent(layout, "--json").stdout, type=Token) == owner


def test_a_workspace_from_before_there_were_tokens_gets_its_first(layout: Layout, tokens: Tokens) -> None:
    layout.tokens.unlink()
    assert fsagent(layout).stdout == f"{tokens.ensure().token}\n"


def test_tokens_by_hand(layout: Layout, tokens: Tokens) -> None:
    made = fsagent(layout, "phone", "--make").stdout.strip()
    assert tokens.find(made) == tokens.get("phone")
    assert tokens.get("phone").scopes == ("read", "command")
    page = fsagent(layout, "--make", "page", "--scope", "approve", "--scope", "read").stdout.strip()
    assert tokens.find(page) == tokens.get("page")
    assert tokens.get("page").scopes == ("read", "approve")
    rotated = fsagent(layout, "--rotate", "phone").stdout.strip()
    assert rotated not in (made, page)
    assert tokens.find(rotated) == tokens.get("phone")
    listed = fsagent(layout, "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "owner", "phone", "page"]
    assert "read command approve admin" in listed
    as_json = fsagent(layout, "--list", "--json").stdout
    assert [each["name"] for each in json.loads(as_json)] == ["owner", "phone", "page"]
    for token in tokens.list():
        assert token.token not in listed + as_json
    assert "removed phone" in fsagent(layout, "--remove", "phone").stdout
    assert tokens.find(rotated) is None
    assert json.loads(fsagent(layout, "--remove", "page", "--json").stdout) == {"removed": "page"}
    tokens.remove("owner")
    assert "no tokens" in fsagent(layout, "--list").stdout
    assert json.loads(fsagent(layout, "--list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "--make", "--rotate"], "--make and --rotate do not go together"),
        (["a", "--remove", "--list"], "--remove and --list do not go together"),
        (["--scope", "read"], "--scope goes with --make only"),
        (["owner", "--rotate", "--scope", "read"], "--scope goes with --make only"),
        (["--list", "owner"], "leave NAME out"),
        (["--make"], "--make needs a NAME"),
        (["--remove"], "--remove needs a NAME"),
        (["a", "b"], "unexpected extra argument"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(layout: Layout, words: list[str], says: str) -> None:
    before = layout.tokens.read_bytes()
    done = fsagent(layout, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr
    assert says in done.stderr
    assert layout.tokens.read_bytes() == before


def test_the_command_line_tells_a_mistake_in_one_line(layout: Layout) -> None:
    for words, code, says in (
        (["phnoe"], 1, "there is no token 'phnoe'; there are: owner"),
        (["--make", "a b"], 2, "cannot be the name of a token"),
        (["--make", "a", "--scope", "all"], 2, "there is no scope 'all'"),
        (["--make", "owner"], 1, "there is a token 'owner' already"),
    ):
        done = fsagent(layout, *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
        assert says in done.stderr
    layout.tokens.write_bytes(b"{")
    assert fsagent(layout).returncode == 2
    assert fsagent(layout, "--rotate").stdout == fsagent(layout).stdout != ""
