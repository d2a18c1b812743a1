"""fsagent: your agent is a folder.

A daemon watches a workspace. A markdown file dropped into ``inbox/`` is a command, one in ``tasks/`` a heartbeat task;
results land in ``outbox/``; ``soul.md`` is the memory. The house has two wings that never import each other:

- the left wing is the disk: ``files`` (how we touch it), ``workspace`` (each module alone writes its place);
- the right wing is the work: ``engines`` (who decides), ``tools`` (what may be used), ``policy``, ``runner``.

They meet in ``pipeline`` (one command, from claim to settle) and ``home`` (what tools may ask of the workspace).
``daemon`` puts everything together; ``faces`` drop files and read files, and know no engine.
"""

__version__ = "0.1.0"
