"""The engine ``model``: a language model decides. Lives in a worker process; the daemon never loads what it needs.

``prompt`` makes a request of a run and its turns, ``providers`` knows how each provider is reached, ``failures`` what
its errors mean, ``price`` what a turn costs; ``engine`` asks, tries again, and goes on to the next model. ``trial``
asks one tiny thing, for ``fsagent model test``.
"""

from __future__ import annotations
