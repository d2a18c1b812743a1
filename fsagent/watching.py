"""How changes in the workspace are noticed: by events where they come, else by looking, at a bounded cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from watchdog.events import FileSystemEvent

from fsagent.config import Settings
from fsagent.files.mounts import is_far, kind_of
from fsagent.watcher import Watcher

SHARE = 1 / 100
"""The part of the time that looking may take where no events come."""
_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)


class Watching:
    """Watches by events, and says how long to wait until the next look at everything. ``check`` has to be called at
    each. Used by one thread.

    With ``watch: auto`` a place is looked at where it cannot be watched, where its canary is not heard, where the kind
    of its file system lets others write unheard, and where others were seen to. A canary alone would not do: a network
    mount tells of our own writes.
    """

    def __init__(
        self,
        places: Mapping[str, tuple[Path, bool, list[type[FileSystemEvent]]]],
        wake: Callable[[str], None],
        ignore: Callable[[str], bool],
        settings: Callable[[], Settings],
    ) -> None:
        self._places, self._settings = places, settings
        self._watcher = Watcher(places, wake, ignore, canary=True)
        self._unheard: dict[str, str] = {}  # places that are looked at, and why
        self._far: dict[str, str] = {}
        self._step = _STEPS[0]

    @property
    def trouble(self) -> Mapping[str, str]:
        """Places that cannot be watched though they should be, and why."""
        return self._watcher.trouble

    def start(self) -> None:
        """Begin to watch. Never raises."""
        self._watcher.start()
        self.check()

    def stop(self) -> None:
        """End all watching."""
        self._watcher.stop()

    def check(self, *, thorough: bool = True) -> None:
        """See what is watched and what has to be looked at; where it is ``thorough``, in all folders and mounts."""
        mode = self._settings().watch
        if mode == "poll":
            self._watcher.forget()
            self._unheard = dict.fromkeys(self._places, "as the settings say")
        else:
            self._watcher.check(thorough=thorough)
            self._unheard = {name: f"not watched: {why}" for name, why in self._watcher.trouble.items()}
            if mode == "auto":
                self._unheard |= dict.fromkeys(self._watcher.misses(), "what others write there is not told")
                self._unheard |= dict.fromkeys(self._watcher.deaf(), "no events come")
                if thorough:
                    self._far = self._mounted_from_afar()
                self._unheard |= self._far

    def hears(self, place: str) -> bool:
        """True where every change in a place is told."""
        return place not in self._unheard

    def rest(self, scan_seconds: float) -> float:
        """Seconds until the next look at every place, the last of which took ``scan_seconds``."""
        most = min(float(self._settings().scan_interval), self._watcher.listening() or math.inf)
        if not self._unheard:
            return most
        needed = scan_seconds / SHARE
        if needed > self._step or needed < self._step / 4:  # else it stays, so that status.md does not flicker
            self._step = next((step for step in _STEPS if step >= needed), needed)
        return min(most, self._step)

    def words(self) -> str:
        """For people: ``by events``, or which places are looked at, how often, and why."""
        if not self._unheard:
            return "by events"
        every = min(float(self._settings().scan_interval), self._step)
        reasons: dict[str, list[str]] = {}
        for name, why in self._unheard.items():
            reasons.setdefault(why, []).append(name if name == "root" else f"{name}/")
        if len(reasons) == 1 and len(self._unheard) == len(self._places):
            reasons = {why: ["everything"] for why in reasons}
        told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
        return f"by looking every {every:g} s: {told}"

    def _mounted_from_afar(self) -> dict[str, str]:
        kinds = {name: kind_of(path) for name, (path, _, _) in self._places.items()}
        return {name: f"{kind} tells of no changes by others" for name, kind in kinds.items() if is_far(kind)}
