"""The traffic of runs: from the intake through the pipeline onto a lane, and from there to its end or back to wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from fsagent.completion import Ended
from fsagent.config import Settings
from fsagent.heartbeat import Heartbeat
from fsagent.host import source_of
from fsagent.intake import Intake
from fsagent.lanes import Lanes
from fsagent.parking import Parking
from fsagent.pipeline import Admitted, Again, Parked, Pipeline
from fsagent.trouble import REFUSALS, Trouble
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, take_cancels


class Traffic:
    """Used by the daemon's thread; the lanes call it on theirs. ``heartbeat`` is told which runs begin and end."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        intake: Intake,
        pipeline: Pipeline,
        heartbeat: Heartbeat,
        wake: Callable[[str], None],
        now: Callable[[], datetime],
        trouble: Trouble,
    ) -> None:
        self._trouble = trouble
        self._refused: set[str] = set()  # runs that this daemon could not go on with
        self._layout, self._settings, self._journal = layout, settings, journal
        self._intake, self._pipeline, self._heartbeat = intake, pipeline, heartbeat
        self._wake, self._now = wake, now
        self.lanes = Lanes(self._work, lambda: settings().max_runs, lambda: wake(""))
        self.parking = Parking(
            layout, settings, journal, Allowances(layout), pipeline.revise, self.resume, now, trouble
        )
        self._wishes: set[str] = set()  # runs that somebody wants to end
        self._draining = False  # nothing new is begun
        self._stopping = False  # what runs is to end

    def admit(self, *, fresh: bool) -> bool:
        """Claim and understand what waits, a little ahead of what can run; True if there was anything. Unless ``fresh``
        only what was begun already."""
        found, now = False, self._now()
        while not self._draining and not self.lanes.full():
            folder = self._intake.take(now, fresh=fresh)
            if folder is None:
                break
            found = True
            self._take_up(folder)
        return found

    def cancel(self) -> bool:
        """End what somebody wants to end: at once where it only waits, else by telling the run. True if any waited.

        One that is under way stays a wish, for it may come to wait again: for another try.
        """
        found = False
        for run in take_cancels(self._layout):
            self._wishes.add(run)
            self._journal.tell("cancel", run=run)
        for run in sorted(self._wishes):
            folder = self.lanes.let_go(run) or self.parking.let_go(run)
            if folder is None and self.lanes.cancel(run):
                continue
            folder = folder or self._intake.reach(run)
            self._wishes.discard(run)
            if folder:
                found = True
                self._take_up(folder)
        return found

    def resume(self, folder: RunFolder) -> None:
        """Go on with a run that an earlier daemon left, or whose questions are answered, before anything new."""
        self._intake.again(folder, datetime.fromtimestamp(0, UTC))

    def is_to_end(self, run: str) -> bool:
        """True for a run under way that has to end. From any thread."""
        return self._stopping or self.lanes.cancelled(run)

    def under_way(self) -> bool:
        """True while anything runs, waits for its turn, or may have to be looked at soon."""
        waiting = self.lanes.waiting() or self.lanes.running() or self._intake.waiting()
        return bool(waiting or self._intake.settling or self.parking.settling)

    def drain(self) -> None:
        """Begin nothing new from now on."""
        self._draining = True

    def close(self) -> list[str]:
        """Finish what runs, for ``shutdown_wait`` at most, and put back the rest; gives what is cut short."""
        self.drain()
        left = self.lanes.close(self._settings().shutdown_wait)
        self._stopping = True
        for run in left:
            self._pipeline.put_back(run)
        self.lanes.close(5.0)
        return [run.folder.run for run in self.lanes.running()]

    def _take_up(self, folder: RunFolder) -> None:
        try:
            self._heartbeat.take_up(folder)
            admitted = self._pipeline.admit(folder, anew=folder.run in self._refused)
            if isinstance(admitted, Parked):
                self.parking.park(folder)
        except REFUSALS as error:
            if folder.path.is_dir() or not self._layout.runs.is_dir():  # the whole workspace may be away for a while
                self._in_trouble(folder, error)
                return
            admitted = None  # somebody removed it
        if isinstance(admitted, Admitted):
            self.lanes.put(admitted)
            return
        self._done(folder)
        if isinstance(admitted, Again):
            self._intake.again(folder, admitted.at)
        elif admitted is None:
            self._heartbeat.ended(folder.run)

    def _work(self, runs: Sequence[Admitted]) -> None:
        """Called by the lanes on their own threads."""
        ended: list[Ended] = []
        try:
            self._pipeline.begin(runs)
        except Exception as error:  # noqa: BLE001  # around a thread's loop: a full disk, a damaged index …
            for run in runs:
                self._in_trouble(run.folder, error, run.command.name)
            return
        for run in runs:
            self._execute(run, ended)
        try:
            troubled = {trouble.folder.run: error for trouble, error in self._pipeline.complete(ended)}
        except Exception as error:  # noqa: BLE001  # as above
            troubled = {each.folder.run: error for each in ended}
        for each in ended:
            if each.folder.run in troubled:
                self._in_trouble(each.folder, troubled[each.folder.run], each.envelope.name)
            else:
                self._done(each.folder)
                self._heartbeat.ended(each.folder.run)

    def _execute(self, run: Admitted, ended: list[Ended]) -> None:
        if self._draining and ended:  # of several that began together, only the first need be finished
            self._pipeline.put_back(run)
            return
        try:
            outcome = self._pipeline.execute(run)
            if isinstance(outcome, Parked):
                self.parking.park(outcome.folder)
        except Exception as error:  # noqa: BLE001  # around a thread's loop, as above
            self._in_trouble(run.folder, error, run.command.name)
            return
        if not isinstance(outcome, Ended):
            self._done(run.folder)
        if isinstance(outcome, Again):
            self._intake.again(outcome.folder, outcome.at)
        if isinstance(outcome, Ended):
            ended.append(outcome)
        elif outcome is not None:
            self._wake("cancel")

    def _in_trouble(self, folder: RunFolder, error: Exception, name: str = "") -> None:
        """The disk did not take it: the run stays as it is and is gone on with later."""
        folder.close()
        self._refused.add(folder.run)
        wait = self._trouble.failed(source_of(folder), error, name)
        self._intake.again(folder, self._now() + timedelta(seconds=wait))
        self._wake("")

    def _done(self, folder: RunFolder) -> None:
        """Whatever the disk refused to this run, it takes it now."""
        if folder.run in self._refused:
            self._refused.discard(folder.run)
            self._trouble.worked(source_of(folder))
