"""Crawler: which addresses of the network may be asked.

A public page must not make the crawler read what only this machine or its network can reach. So an address that is
not public is used only for hosts that a local start URL named. It is looked at where names become addresses, and
what has been looked at is what is connected to: a name that changes its address in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(text: str) -> bool:
    """Whether an IP address can be that of a website for everybody."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(found.is_global and not found.is_multicast for found in _meant(address))


def is_local(host: str) -> bool:
    """Whether a host that a user named is this machine's or its network's own: now, as its name leads there."""
    if is_loopback_name(host):
        return True
    try:
        return not is_public(str(ipaddress.ip_address(host)))
    except ValueError:
        pass
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and not any(is_public(address) for address in found)


def is_loopback_name(host: str) -> bool:
    """RFC 6761: localhost, and every name that ends in it."""
    return host == "localhost" or host.endswith(".localhost")


def permitted(host: str, local: Iterable[str]) -> bool:
    """Whether `host` is one of the `local` ones, or below one."""
    return any(host == name or host.endswith(f".{name}") for name in local)


def _meant(address: Address) -> list[Address]:
    """The address, and the IPv4 address that an IPv6 one leads to (mapped, 6to4, Teredo, NAT64)."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return [address.ipv4_mapped]
        if address.sixtofour:
            found.append(address.sixtofour)
        if address.teredo:
            found.append(address.teredo[1])
        if address in ipaddress.IPv6Network("64:ff9b::/96"):
            return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return found


@implementer(IHostnameResolver)
class Resolver:
    """Twisted's resolver of names, without the addresses that may not be used.

    inner: the one that asks. local: tells which hosts may have any address.
    refused: is told of a host that had only addresses which may not be used.
    """

    def __init__(self, inner: Any, local: Callable[[], Sequence[str]], refused: Callable[[str], None]) -> None:
        self.inner, self.local, self.refused = inner, local, refused

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *arguments: Any, **options: Any) -> Any:
        """See IHostnameResolver."""
        host = hostName.strip("[]")
        if permitted(host, self.local()):
            asked = "127.0.0.1" if is_loopback_name(host) else hostName
            return self.inner.resolveHostName(resolutionReceiver, asked, *arguments, **options)
        receiver = _OnlyPublic(resolutionReceiver, lambda: self.refused(host))
        return self.inner.resolveHostName(receiver, hostName, *arguments, **options)


@implementer(IResolutionReceiver)
class _OnlyPublic:
    """Hands on the public addresses of a host."""

    def __init__(self, receiver: Any, refused: Callable[[], None]) -> None:
        self.receiver, self.refused = receiver, refused
        self.kept = self.dropped = 0

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        self.receiver.resolutionBegan(resolution)

    def addressResolved(self, address: Any) -> None:
        if is_public(address.host):
            self.kept += 1
            self.receiver.addressResolved(address)
        else:
            self.dropped += 1

    def resolutionComplete(self) -> None:
        if self.dropped and not self.kept:
            self.refused()
        self.receiver.resolutionComplete()
