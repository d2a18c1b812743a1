"""``python -m fsagent``."""

from fsagent.faces.cli import main

main()
