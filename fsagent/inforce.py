"""The settings in force: read again when the file changes; a file with faults leaves the ones before in force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fsagent.config import Settings, load_settings
from fsagent.errors import SettingsError
from fsagent.extensions import unknown_names
from fsagent.workspace.journal import Journal


class SettingsInForce:
    """Call it for the settings. Raises ``SettingsError`` when it is made on a file with faults; never later."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self._path, self._journal = path, journal
        self._settings = load_settings(path)
        self._fault: SettingsError | None = None

    def __call__(self) -> Settings:
        return self._settings

    @property
    def fault(self) -> str:
        """What is wrong with the file as it is now, or ""."""
        return str(self._fault or "")

    def look(self, changed: Callable[[], None]) -> None:
        """Read the file again; ``changed`` is called if other settings are in force."""
        try:
            settings = load_settings(self._path)
        except SettingsError as error:
            if str(error) != self.fault:
                self._journal.append("settings refused", error=str(error))
            self._fault = error
            return
        if settings != self._settings or self._fault:
            self._settings, self._fault = settings, None
            changed()
            self._journal.append("settings read")
            self.check()

    def check(self) -> None:
        """Journal the names in the settings that nothing installed answers to."""
        for fault in unknown_names(self._settings, self._path):
            self._journal.append("settings", error=str(fault))
