"""The tools of MCP servers, as tools of the agent.

``tool`` has the tools and where they come from, ``client`` the thread on which all servers are spoken to, ``link`` one
session, ``wire`` the way to one server. The last two load the MCP library, asyncio and an HTTP client: only ``client``
imports them, on its first use, in a process that is not the idle daemon.
"""
