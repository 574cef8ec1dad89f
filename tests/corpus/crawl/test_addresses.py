"""Names that lead to private addresses, at once or the second time they are asked."""

import socket

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from zope.interface import implementer
from zope.interface.verify import verifyObject

from crystalline.corpus.crawl import addresses
from crystalline.corpus.crawl.addresses import Resolver, is_local, is_public, permitted


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254",
        "0.0.0.0", "100.64.0.1", "100.100.100.200", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "ff02::1", "2001:db8::1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe", "nonsense", "",
    ],
)  # fmt: skip
def test_private(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public(address):
    assert is_public(address)


def test_local_hosts(monkeypatch):
    assert is_local("localhost")
    assert is_local("a.b.localhost")
    assert is_local("192.168.3.4")
    assert is_local("::1")
    assert not is_local("8.8.8.8")
    table = {"wiki": ["10.0.0.5"], "example.org": ["93.184.216.34"], "mixed": ["10.0.0.5", "93.184.216.34"]}

    def lookup(host, *_, **__):
        if host not in table:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in table[host]]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", lookup)
    assert {host: is_local(host) for host in (*table, "unknown")} == {
        "wiki": True, "example.org": False, "mixed": False, "unknown": False,
    }  # fmt: skip


def test_permitted():
    assert permitted("a.b", ["a.b"])
    assert permitted("x.a.b", ["a.b"])
    assert not permitted("xa.b", ["a.b"])
    assert not permitted("a.b", [])


@implementer(IHostnameResolver)
class Names:
    """A name server whose answers change: each call of a name takes the next one."""

    def __init__(self, **table):
        self.table, self.asked = table, []

    def resolveHostName(self, receiver, name, port=0, *_, **__):
        self.asked.append(name)
        receiver.resolutionBegan(None)
        answers = self.table.get(name.replace(".", "_"), [[name]])
        for address in answers.pop(0) if len(answers) > 1 else answers[0]:
            receiver.addressResolved(IPv4Address("TCP", address, port))
        receiver.resolutionComplete()


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self):
        self.found, self.complete = [], False

    def resolutionBegan(self, resolution):
        pass

    def addressResolved(self, address):
        self.found.append(address.host)

    def resolutionComplete(self):
        self.complete = True


def ask(resolver, name):
    receiver = Receiver()
    resolver.resolveHostName(receiver, name, 80)
    assert receiver.complete
    return receiver.found


def test_a_name_that_turns_private_is_refused():
    """DNS rebinding: the address that is connected to is the one that was looked at."""
    refused = []
    names = Names(evil_example=[["93.184.216.34"], ["127.0.0.1"]], mixed_example=[["10.0.0.1", "8.8.8.8"]])
    resolver = Resolver(names, lambda: ["wiki.localhost"], refused.append)
    assert verifyObject(IHostnameResolver, resolver)
    assert ask(resolver, "evil.example") == ["93.184.216.34"]
    assert ask(resolver, "evil.example") == []
    assert refused == ["evil.example"]
    assert ask(resolver, "mixed.example") == ["8.8.8.8"]
    for number in ("127.0.0.1", "169.254.169.254", "10.0.0.1"):
        assert ask(resolver, number) == []
    assert ask(resolver, "a.localhost") == []


def test_hosts_that_a_local_start_named():
    resolver = Resolver(Names(), lambda: ["wiki.localhost", "192.168.0.5"], pytest.fail)
    assert ask(resolver, "wiki.localhost") == ["127.0.0.1"]
    assert ask(resolver, "a.wiki.localhost") == ["127.0.0.1"]
    assert ask(resolver, "192.168.0.5") == ["192.168.0.5"]
