"""Which engine decides about a command that does not say: the offline one where it can, a model where there is one."""

from __future__ import annotations

from fsagent.config import Settings
from fsagent.engines.intents import understand
from fsagent.model import Command, Task

OFFLINE, MODEL, AUTO = "offline", "model", "auto"


def engine_for(command: Command, settings: Settings) -> str:
    """The engine for a command. Steps are done offline; so is what the offline engine understands, unless the command
    or the settings ask for a model by name."""
    if command.steps and command.engine in (AUTO, MODEL):
        return OFFLINE
    if command.engine != AUTO:
        return command.engine
    if not (settings.model.name or command.model):
        return OFFLINE
    return OFFLINE if understand(command.body, recurring=command.trigger == "task") else MODEL


def asks_a_model(task: Task, settings: Settings) -> bool:
    """True if a task's runs need a model."""
    command = Command(
        name=task.name, body=task.body, trigger="task", engine=task.engine or settings.engine, steps=task.steps,
        model=str(task.settings.get("model", "")),
    )  # fmt: skip
    return engine_for(command, settings) == MODEL
