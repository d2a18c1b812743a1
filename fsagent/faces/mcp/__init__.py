"""The MCP face: the agent's tools and files for programs that speak the Model Context Protocol.

::

    table.py      what a tool is: arguments and results as structs, their schemas, faults in words
    shapes.py     what the tools return, as data and as words
    waiting.py    the state of a run, and waiting for its end
    tools.py      the tools, and THE TABLE of them
    resources.py  soul.md, status.md, tasks and results as resources
    changes.py    telling clients that a resource changed
    server.py     one server for all of it; ``fsagent mcp`` on stdin and stdout
    http.py       the same over streamable HTTP

The first five know nothing of the protocol's library.
"""
