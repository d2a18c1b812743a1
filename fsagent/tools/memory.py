"""The memory tools: ``remember``, ``forget`` and ``recall``. They see the workspace through ``context.home`` only.

``data`` of their results holds JSON values for whoever phrases an answer:

- remember: ``{"fact", "key", "known", "replaced": [texts]}``
- forget: ``{"about", "removed": [texts]}``
- recall of the soul: ``{"about", "facts": [{"text", "key", "exact"}]}``; ``exact`` is False where only the words match
- recall of runs: ``{"since", "runs": [{"run", "command", "task", "status", "started", "answer", "error",
  "untrusted"}]}``
- recall of the status: ``{"status"}``

The ``diff`` of remember and forget shows the statements that came and went, without their bullets, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from fsagent.errors import ToolError
from fsagent.facts import clean_fact, exact_facts, fact_key, find_facts, same_fact
from fsagent.model import Fact, Run, ToolResult
from fsagent.statements import MAX_STATEMENT, fold, has_one_value, plain, sentence, subject_key, third_person
from fsagent.tools.base import Context, Reach, Tool
from fsagent.tools.diff import statements
from fsagent.vocabulary import OWNER_WORDS

MAX_RUNS = 200
SOUL = "soul.md"


class RememberArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``fact`` is one statement; ``key`` names what it is about, where it shall take the place of an older fact."""

    fact: str
    key: str = ""


class Remember(Tool[RememberArgs]):
    """Keeps one fact in the soul, in the third person.

    A fact about something that has one value (a name, a home, a password) takes the place of the older one. Any other
    fact is added, unless ``key`` says what it replaces; if several facts have that key, none is chosen: ``ToolError``.
    """

    name = "remember"
    hint = "Keep one fact for good, as a short statement."
    args = RememberArgs
    main = "fact"
    effect = "repeatable"
    slow = False

    def reach(self, args: RememberArgs, context: Context) -> Reach:
        """Every later run reads the soul."""
        return "memory"

    def foreign(self, args: RememberArgs, result: ToolResult) -> bool:
        """What it tells is ours, or stands in the soul."""
        return False

    def run(self, args: RememberArgs, context: Context) -> ToolResult:
        """Remember it; remembering the same fact again changes nothing."""
        fact = clean_fact(sentence(third_person(clean_fact(args.fact))))
        if not fact:
            raise ToolError("remember: there is no text in this fact; say what to remember")
        if len(fact) > MAX_STATEMENT:
            raise ToolError(
                f"remember: a fact is one line of at most {MAX_STATEMENT} characters; write longer text to a file"
            )
        facts = context.home.facts()
        fact = next((known.text for known in facts if same_fact(third_person(known.text), fact)), fact)
        key, older = _replaceable(fact, args.key, facts)
        done = context.home.remember(fact, key)
        rest = [old for old in older if old.text not in (done.fact, done.replaced)] if key else []
        replaced = [*([done.replaced] if done.replaced else []), *(context.home.forget(rest) if rest else [])]
        data = {"fact": done.fact, "key": key or fact_key(fact), "known": done.known, "replaced": replaced}
        if done.known and not replaced:
            return ToolResult(f"Known already: {done.fact}", data=data)
        before = f" (before: {' / '.join(replaced)})" if replaced else ""
        stood = any(known.text == done.fact for known in facts)
        shown = statements(SOUL, replaced, () if stood else [done.fact])
        return ToolResult(f"Remembered: {done.fact}{before}", remembered=(done.fact,), data=data, diff=shown)


def _replaceable(fact: str, key: str, facts: Sequence[Fact]) -> tuple[str, list[Fact]]:
    """The key under which ``fact`` takes the place of older ones ("" to add it), and those older ones."""
    wanted = subject_key(key) or fact_key(fact)
    older = [old for old in facts if wanted and old.key == wanted]
    if has_one_value(wanted):
        return wanted, older
    older = [old for old in older if not same_fact(old.text, fact)]
    if not key or not older:
        return "", []
    if len(older) > 1:
        raise ToolError(f"remember: which one is no longer true? Forget it first, word for word:\n{_bullets(older)}")
    return wanted, older


class ForgetArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``about``: the statement itself, or what it is about (``my name``, ``the router``)."""

    about: str


class Forget(Tool[ForgetArgs]):
    """Takes facts out of the soul: the very statement, or all facts with exactly that subject.

    A subject that only shares words with facts removes the one it can mean; if it can mean several, it removes nothing
    and says which ones there are.
    """

    name = "forget"
    hint = "Take facts out of the memory, by what they are about."
    args = ForgetArgs
    main = "about"
    effect = "repeatable"
    slow = False

    def reach(self, args: ForgetArgs, context: Context) -> Reach:
        """Every later run reads the soul."""
        return "memory"

    def foreign(self, args: ForgetArgs, result: ToolResult) -> bool:
        """What it tells is ours, or stands in the soul."""
        return False

    def run(self, args: ForgetArgs, context: Context) -> ToolResult:
        """Forget it; there is nothing wrong with not having known it."""
        about = clean_fact(args.about)
        if not plain(about):
            raise ToolError("forget: say what to forget, for example: forget: my name")
        facts = context.home.facts()
        found = exact_facts(facts, about)
        if not found:
            found = find_facts(facts, about)
            if len(found) > 1 or (found and subject_key(about) in OWNER_WORDS):
                raise ToolError(f"forget: be exact, nothing was forgotten. {about!r} could mean:\n{_bullets(found)}")
        removed = list(context.home.forget(found)) if found else []
        data = {"about": about, "removed": removed}
        if not removed:
            return ToolResult(f"Nothing is known about {about!r}.", data=data)
        return ToolResult("Forgotten: " + " / ".join(removed), data=data, diff=statements(SOUL, removed, ()))


class RecallArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look up. ``about`` and the soul go together, ``since`` and the runs.

    ``since``: "" for all, ``today``, ``yesterday`` (that day alone), or an ISO date (from that day on).
    """

    about: str = ""
    source: Literal["soul", "runs", "status"] = "soul"
    since: str = ""


class Recall(Tool[RecallArgs]):
    """Looks up facts, past runs (at most 200, newest first, never the run that asks) or the status."""

    name = "recall"
    hint = "Look up facts (source soul), past runs (runs; since: today, yesterday, a date) or the present status."
    args = RecallArgs
    main = "about"
    effect = "read"
    slow = False

    def reach(self, args: RecallArgs, context: Context) -> Reach:
        """It only looks."""
        return "inside"

    def foreign(self, args: RecallArgs, result: ToolResult) -> bool:
        """The soul is the owner's word. Answers of runs that read something else are not; nor is the status, which
        quotes errors and open questions."""
        rows = (result.data or {}).get("runs", ())
        return args.source == "status" or (args.source == "runs" and any(row["untrusted"] for row in rows))

    def run(self, args: RecallArgs, context: Context) -> ToolResult:
        """Look it up; to find nothing is a result, not an error."""
        if args.source == "runs":
            return _recall_runs(args.since, context)
        if args.source == "status":
            status = context.home.status()
            return ToolResult(status, data={"status": status})
        facts = context.home.facts()
        found = find_facts(facts, args.about)
        whole = not args.about.strip() or subject_key(args.about) in OWNER_WORDS
        exact = found if whole else exact_facts(facts, args.about)
        rows = [{"text": fact.text, "key": fact.key, "exact": fact in exact} for fact in found]
        nothing = f"Nothing is known about {args.about!r}." if args.about.strip() else "Nothing is known."
        return ToolResult(_bullets(found) or nothing, data={"about": args.about, "facts": rows})


def _recall_runs(since: str, context: Context) -> ToolResult:
    now = context.now()
    start, end = _period(since, now)
    runs = [
        run
        for run in context.home.runs(start, MAX_RUNS)
        if run.run != context.run and (end is None or (run.started is not None and run.started < end))
    ]
    lines = [_line(run, now) for run in runs]
    return ToolResult("\n".join(lines) or "No runs.", data={"since": since, "runs": [_row(run, now) for run in runs]})


def _period(since: str, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From when, and before when; days begin at midnight in the workspace's time zone."""
    word = since.strip().casefold()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if not word:
        return None, None
    if word == "today":
        return midnight, None
    if word == "yesterday":
        day = (midnight - timedelta(hours=12)).replace(hour=0)
        return day, midnight
    try:
        day = datetime.combine(date.fromisoformat(word), datetime.min.time(), tzinfo=now.tzinfo)
    except ValueError:
        raise ToolError(
            f"recall: since: {since!r} is no day; write today, yesterday or a date like 2026-11-30"
        ) from None
    return day, None


def _row(run: Run, now: datetime) -> dict[str, Any]:
    started = run.started.astimezone(now.tzinfo).isoformat(timespec="seconds") if run.started else ""
    return {
        "run": run.run,
        "command": run.command,
        "task": run.task,
        "status": run.status,
        "started": started,
        "answer": run.answer,
        "error": run.error,
        "untrusted": run.untrusted,
    }


def _line(run: Run, now: datetime) -> str:
    moment = f"{run.started.astimezone(now.tzinfo):%Y-%m-%d %H:%M}" if run.started else "not started"
    told = " ".join(fold(run.error or run.answer).split())[:120]
    return f"- {moment} {run.status}: {run.task or run.command}" + (f" ({told})" if told else "")


def _bullets(facts: Sequence[Fact]) -> str:
    return "\n".join(f"- {fact.text}" for fact in facts)
