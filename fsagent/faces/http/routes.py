"""The table of the API: one row for each operation. What a later version adds is one handler and one row."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from fsagent.errors import NotFoundError
from fsagent.faces import approvals, door, views
from fsagent.faces.approvals import ApprovalView, Decided, Decision
from fsagent.faces.http import commands
from fsagent.faces.http.commands import CommandView
from fsagent.faces.http.events import SSE, EventsQuery, events
from fsagent.faces.http.forms import FORM, MAX_UPLOAD, CommandIn, FormIn, incoming
from fsagent.faces.http.metrics import PROMETHEUS, metrics_text
from fsagent.faces.http.problems import ProblemError
from fsagent.faces.http.table import JSON, MARKDOWN, Call, Row
from fsagent.faces.http.tasks import Tasks, get_task, get_tasks, pause_task, resume_task, run_task
from fsagent.faces.http.usage import UsageQuery, get_usage
from fsagent.faces.tasks import TaskLine
from fsagent.faces.usage import UsageView
from fsagent.faces.views import Hit, RunView, StatusView
from fsagent.files.paths import SafeRoot
from fsagent.model import MAX_DOCUMENT, Run, Trigger
from fsagent.workspace.asking import MAX_ANSWER
from fsagent.workspace.ballot import MAX_COMMENT
from fsagent.workspace.soul import Soul

MAX_WAIT = 300
MAX_KEY = 200
MAX_PAGE = 500
MAX_RESULT = 16 * 1024 * 1024

RunId = Annotated[str, Meta(max_length=100)]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="how many")]
Before = Annotated[str, Meta(max_length=100, description="a run: the page begins after it; see `next`")]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT, description="seconds to wait for the result")]


class WaitQuery(Struct, frozen=True):
    wait: Wait = 0


class RunsQuery(Struct, frozen=True):
    limit: Limit = 50
    before: Before = ""
    task: Annotated[str, Meta(max_length=1000, description="only runs of this task")] = ""
    status: Annotated[str, Meta(max_length=50, description="only runs with this status")] = ""
    thread: Annotated[str, Meta(max_length=1000, description="only runs of this thread")] = ""
    trigger: Annotated[Trigger | Literal[""], Meta(description="only runs that this asked for")] = ""


class PageQuery(Struct, frozen=True):
    limit: Limit = 50
    before: Before = ""


class SearchQuery(Struct, frozen=True):
    q: Annotated[str, Meta(min_length=1, max_length=500, description='words, or "a phrase"')]
    limit: Limit = 20
    before: Before = ""


class Runs(Struct, frozen=True):
    """A page of runs, newest first. ``next`` is the ``before`` of the next page; empty on the last one."""

    runs: list[Run]
    next: str = ""


class Hits(Struct, frozen=True):
    """A page of what was found, newest first."""

    hits: list[Hit]
    next: str = ""


class Approvals(Struct, frozen=True):
    """What waits for a person's answer, oldest first."""

    approvals: list[ApprovalView]


class DecisionIn(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer. ``question`` is the number of one question of several in a file; 0 answers all of them.

    The decision ``answer`` is for a question that asks for words (``kind`` is ``answer``); ``answer`` is what is said.
    """

    decision: Decision
    comment: Annotated[
        str, Meta(max_length=MAX_COMMENT, description="kept with the answer; a refused agent is told")
    ] = ""
    question: Annotated[int, Meta(ge=0, le=9999)] = 0
    answer: Annotated[str, Meta(max_length=MAX_ANSWER, description="the answer in words, or one of the choices")] = ""


class Accepted(Struct, frozen=True):
    """It was asked for; the run shows what comes of it."""

    run: str
    status: str


class Health(Struct, frozen=True):
    """``wrong`` says in words what is wrong; nothing is where it is empty."""

    ok: bool
    wrong: list[str] = []


# commands


async def post_command(call: Call) -> Response:
    """Hand a command in. With `wait`, the answer holds the result if it is there in time.

    The same `Idempotency-Key` (or `id`) with the same command gives the first run again, for a week.
    """
    async with incoming(call) as given:
        key = call.request.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY:
            raise ProblemError(422, f"the Idempotency-Key is longer than {MAX_KEY} characters")
        key = f"key:{key}" if key else commands.key_of(given.id)
        handed = await call.off(
            door.hand_in, call.layout, given.raw, call.caller, key=key, attachments=given.attachments
        )
    return await commands.handed_in(call, handed, call.query.wait)


async def get_command(call: Call) -> Response:
    """A command by its `id` or its run: its text, where it is, and its result if there is one."""
    return await call.give(await call.off(commands.read, call.layout, call.part("id"), call.caller))


# runs


async def get_runs(call: Call) -> Response:
    """The list of runs, newest first."""
    q = call.query
    runs = await call.off(
        views.read_runs, call.layout, q.limit + 1, task=q.task, status=q.status, thread=q.thread, trigger=q.trigger,
        before=q.before,
    )  # fmt: skip
    return await _page(call, runs, q.limit)


async def get_run(call: Call) -> Response:
    """One run, whole: its command, its steps, what it used and changed, its result."""
    return await call.give(await call.off(views.read_run, call.layout, call.part("id")))


async def cancel_run(call: Call) -> Response:
    """End a run that waits or is under way. It ends as `interrupted`, with all that it did until then."""
    await call.off(door.cancel, call.layout, call.part("id"), call.caller)
    if call.query.wait:
        await call.hub.published(call.part("id"), call.query.wait)
    found = await call.off(commands.read, call.layout, call.part("id"), call.caller)
    return await call.give(Accepted(found.run, found.status), 202)


async def retry_run(call: Call) -> Response:
    """Run a command again that failed, was refused or interrupted. Asked twice, it is done once."""
    handed = await call.off(door.retry, call.layout, call.part("id"), call.caller)
    return await commands.handed_in(call, handed, call.query.wait)


# results


async def get_results(call: Call) -> Response:
    """The runs that published a result, newest first."""
    q = call.query
    runs = await call.off(views.read_results, call.layout, q.limit + 1, before=q.before)
    return await _page(call, runs, q.limit)


async def get_result(call: Call) -> Response:
    """One result as it lies in outbox/, by its path there."""
    name = call.part("name")
    raw = await call.off(_read_result, call, name)
    return await call.give_bytes(raw, f"{MARKDOWN}; charset=utf-8")


def _read_result(call: Call, name: str) -> bytes:
    outbox = SafeRoot(call.layout.outbox)
    for path in dict.fromkeys((name, name.removeprefix("outbox/"))):  # a run names its result from the root on
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return outbox.read(path, MAX_RESULT)
    raise NotFoundError(f"there is no result {name!r}")


async def search(call: Call) -> Response:
    """Search commands and results for words, newest first. The last word may be the beginning of one."""
    q = call.query
    hits = await call.off(views.search_runs, call.layout, q.q, q.limit + 1, before=q.before)
    more = hits[q.limit - 1].run.run if len(hits) > q.limit else ""
    return await call.give(Hits(hits[: q.limit], more), headers=_next_link(call, more))


# approvals


async def get_approvals(call: Call) -> Response:
    """What waits for a person's answer: exactly what would be done, why it is asked, and who asked for it."""
    return await call.give(Approvals(await call.off(approvals.list_approvals, call.layout)))


async def decide_approval(call: Call) -> Response:
    """Answer a question, by its short id or its file's name: the box in its file is ticked, as a person would."""
    given = await call.json(DecisionIn)
    done = await call.off(
        approvals.decide, call.layout, call.part("id"), given.decision, call.caller, given.comment, given.question,
        given.answer,
    )  # fmt: skip
    return await call.give(done)


# memory


async def get_soul(call: Call) -> Response:
    """The memory, as it stands in soul.md. Its ETag is needed to change it."""
    raw, tag = await call.off(_soul(call).tagged)
    if not tag and not call.layout.soul.exists():
        raise NotFoundError("soul.md is missing; put one with 'If-None-Match: *', or let the agent make it")
    sent = {"ETag": f'"{tag}"'}
    if tag in _tags(call.request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=sent)
    return await call.give_bytes(raw, f"{MARKDOWN}; charset=utf-8", headers=sent)


async def put_soul(call: Call) -> Response:
    """Replace the memory as a whole, as an editor does. `If-Match` holds the ETag of the text that was read.

    Has somebody else changed it since, nothing is written, and the answer holds the text as it is.
    """
    matching, none = _tags(call.request.headers.get("if-match", "")), call.request.headers.get("if-none-match", "")
    if not matching and none != "*":
        how = "say in If-Match which text you replace (the ETag of GET /v1/soul), or 'If-None-Match: *'"
        raise ProblemError(428, how)
    new = await call.off(_replace_soul, _soul(call), await call.request.body(), matching)
    return Response(status_code=204, headers={"ETag": f'"{new}"'})


def _replace_soul(soul: Soul, raw: bytes, matching: list[str]) -> str:
    """Replace one of the texts with these tags; without tags, none at all."""
    now = soul.tagged()[1]
    if "*" in matching:
        expected = now or "any"
    else:
        expected = now if now in matching else (matching or [""])[0]
    return soul.replace(raw, expected)


def _soul(call: Call) -> Soul:
    return Soul(call.layout.soul, call.layout.locks / "soul.lock")


def _tags(header: str) -> list[str]:
    return [each.strip().removeprefix("W/").strip('"') for each in header.split(",") if each.strip()]


# how things are


async def get_status(call: Call) -> Response:
    """How things are: what runs, what waits, what comes next, what needs a person."""
    return await call.give(await call.off(views.read_status, call.layout))


async def get_healthz(call: Call) -> Response:
    """Does this server answer?"""
    return await call.give(Health(True))


async def get_readyz(call: Call) -> Response:
    """Is the daemon alive and keeping up? Says in words what is wrong."""
    wrong = await call.off(views.read_health, call.layout)
    return await call.give(Health(not wrong, wrong), 503 if wrong else 200)


async def get_metrics(call: Call) -> Response:
    """Numbers for Prometheus."""
    return await call.give_bytes((await call.off(metrics_text, call.layout)).encode(), PROMETHEUS)


async def get_openapi(call: Call) -> Response:
    """This document."""
    from fsagent.faces.http.openapi import document

    return await call.give_bytes(msgspec.json.encode(document(TABLE)), JSON)


async def _page(call: Call, runs: list[Run], limit: int) -> Response:
    more = runs[limit - 1].run if len(runs) > limit else ""
    return await call.give(Runs(runs[:limit], more), headers=_next_link(call, more))


def _next_link(call: Call, more: str) -> dict[str, str]:
    if not more:
        return {}
    url = call.request.url.include_query_params(before=more)
    return {"Link": f'<{url.path}?{url.query}>; rel="next"'}


_HANDED = {200: CommandView, 202: CommandView}
_PLACE = {"Location": "where the command is found"}
_NEXT = {"Link": 'the next page, as rel="next"; not on the last one'}
_TAG = "the name of exactly this text"

TABLE: tuple[Row, ...] = (
    Row(method="POST", path="/v1/commands", scope="command", handler=post_command, replies=_HANDED, query=WaitQuery,
        takes={JSON: CommandIn, MARKDOWN: str, "text/plain": str, FORM: FormIn}, max_body=MAX_UPLOAD,
        needs={"Idempotency-Key": "the same key and command give the first run again"}, problems=(409,),
        gives=_PLACE),
    Row(method="GET", path="/v1/commands/{id}", scope="read", handler=get_command, replies={200: CommandView},
        problems=(404,)),
    Row(method="GET", path="/v1/runs", scope="read", handler=get_runs, replies={200: Runs}, query=RunsQuery,
        problems=(404,), gives=_NEXT),
    Row(method="GET", path="/v1/runs/{id}", scope="read", handler=get_run, replies={200: RunView},
        problems=(404, 409)),
    Row(method="POST", path="/v1/runs/{id}/cancel", scope="command", handler=cancel_run, replies={202: Accepted},
        query=WaitQuery, problems=(404, 409)),
    Row(method="POST", path="/v1/runs/{id}/retry", scope="command", handler=retry_run, replies=_HANDED,
        query=WaitQuery, problems=(404, 409), gives=_PLACE),
    Row(method="GET", path="/v1/results", scope="read", handler=get_results, replies={200: Runs}, query=PageQuery,
        problems=(404,), gives=_NEXT),
    Row(method="GET", path="/v1/results/{name:path}", scope="read", handler=get_result, replies={200: MARKDOWN},
        problems=(404,)),
    Row(method="GET", path="/v1/search", scope="read", handler=search, replies={200: Hits}, query=SearchQuery,
        problems=(404,), gives=_NEXT),
    Row(method="GET", path="/v1/tasks", scope="read", handler=get_tasks, replies={200: Tasks}),
    Row(method="POST", path="/v1/tasks/{name:path}/run", scope="command", handler=run_task, replies=_HANDED,
        query=WaitQuery, problems=(404, 409), gives=_PLACE),
    Row(method="POST", path="/v1/tasks/{name:path}/pause", scope="command", handler=pause_task, replies=_HANDED,
        query=WaitQuery, problems=(404, 409), gives=_PLACE),
    Row(method="POST", path="/v1/tasks/{name:path}/resume", scope="command", handler=resume_task, replies=_HANDED,
        query=WaitQuery, problems=(404, 409), gives=_PLACE),
    Row(method="GET", path="/v1/tasks/{name:path}", scope="read", handler=get_task, replies={200: TaskLine},
        problems=(404,)),
    Row(method="GET", path="/v1/approvals", scope="read", handler=get_approvals, replies={200: Approvals}),
    Row(method="POST", path="/v1/approvals/{id}", scope="approve", handler=decide_approval, replies={200: Decided},
        takes={JSON: DecisionIn}, problems=(404, 409)),
    Row(method="GET", path="/v1/soul", scope="read", handler=get_soul, replies={200: MARKDOWN, 304: None},
        needs={"If-None-Match": "an ETag: nothing is sent if the text is still that one"}, problems=(404,),
        gives={"ETag": _TAG}),
    Row(method="PUT", path="/v1/soul", scope="admin", handler=put_soul, replies={204: None},
        takes={MARKDOWN: str, "text/plain": str}, problems=(412, 428), max_body=MAX_DOCUMENT, gives={"ETag": _TAG},
        needs={"If-Match": "the ETag of the text that is replaced", "If-None-Match": "`*` where there is none yet"}),
    Row(method="GET", path="/v1/events", scope="read", handler=events, replies={200: SSE}, query=EventsQuery,
        needs={"Last-Event-ID": "the id of the last event that was seen; what came after it is sent first"},
        problems=(400,)),
    Row(method="GET", path="/v1/status", scope="read", handler=get_status, replies={200: StatusView}),
    Row(method="GET", path="/v1/usage", scope="read", handler=get_usage, replies={200: UsageView}, query=UsageQuery),
    Row(method="GET", path="/v1/openapi.json", scope="read", handler=get_openapi, replies={200: JSON}),
    Row(method="GET", path="/healthz", scope="read", handler=get_healthz, replies={200: Health}),
    Row(method="GET", path="/readyz", scope="read", handler=get_readyz, replies={200: Health, 503: Health}),
    Row(method="GET", path="/metrics", scope="read", handler=get_metrics, replies={200: PROMETHEUS}),
)  # fmt: skip
