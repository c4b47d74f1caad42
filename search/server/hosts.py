"""Which names are this machine's own: a server for it alone is asked by no other.

A web page may let its own name lead to 127.0.0.1 (DNS rebinding). The browser then takes what the server answers for
the page's own, and the page reads it. No page can make the browser send another Host header than its name.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_local(host: bytes) -> bool:
    """Whether a Host header is an address or a name of `localhost`, which no web page of elsewhere can have; every
    browser sends one.
    """
    name = _without_port(host.decode("latin-1").lower()).rstrip(".")
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
