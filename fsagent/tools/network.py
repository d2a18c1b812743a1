"""Where a web address leads: to the world, or into the owner's own network, which only the settings may open.

What is not an address of the public internet is private: loopback, the networks of a house, link-local addresses
(169.254.169.254 among them), carriers' shared ones, multicast, whatever is reserved; and the forms of IPv6 that only
wrap such an IPv4 address. The tables are our own, for those of Python differ from version to version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fsagent.errors import ToolError

Resolve = Callable[[str, int], Sequence[str]]
"""From host and port to addresses."""

_PRIVATE_4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3",
    )
)  # fmt: skip
_GLOBAL_6 = IPv6Network("2000::/3")
_PRIVATE_6 = tuple(IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_MAPPED, _NAT64, _SIX_TO_FOUR = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
_MOST = 16


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, best first, by the system. Raises ``OSError``. May take as long as the system likes."""
    import socket

    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_global(address: IPv4Address | IPv6Address) -> bool:
    """True for an address of the public internet. See the module."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _PRIVATE_4)
    inner = wrapped(address)
    if inner is not None:
        return is_global(inner)
    return address in _GLOBAL_6 and not any(address in network for network in _PRIVATE_6)


def wrapped(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for (mapped, NAT64, 6to4)."""
    if isinstance(address, IPv4Address):
        return None
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None


def permitted(host: str, addresses: Sequence[str], private: Sequence[str]) -> list[str]:
    """Those of a host's addresses that may be called. Raises ``ToolError`` in words where none may.

    ``private`` is the setting ``http_private``: hosts as they are written in a URL, addresses and networks.
    """
    if any(_is_host(host, each) for each in private):
        return list(addresses)[:_MOST]
    networks = [network for each in private if (network := _network(each)) is not None]
    allowed: list[str] = []
    refused: list[str] = []
    for text in addresses:
        address = ip_address(text)
        same = [each for each in (address, wrapped(address)) if each is not None]
        listed = any(each in network for each in same for network in networks)
        (allowed if listed or is_global(address) else refused).append(text)
    if not allowed:
        what = f"{host} is {refused[0]}; it" if refused and refused[0] != host else f"{host}"
        raise ToolError(
            f"{what} is an address of your own network: list it in fsagent.yaml as http_private: [{host}]"
            if refused
            else f"the host {host} has no address"
        )
    return allowed[:_MOST]


def _is_host(host: str, listed: str) -> bool:
    listed = listed.lower()
    return host.endswith(listed[1:]) if listed.startswith("*.") else host == listed


def _network(listed: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(listed)
    except ValueError:
        return None
