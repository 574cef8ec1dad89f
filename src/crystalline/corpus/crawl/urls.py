"""Crawler: URLs in one normal form, so that a page has one name, and URLs that lead nowhere new.

RFC 3986 section 6 (case, percent-encoding, dot segments, default ports), hosts as the WHATWG URL standard has
them (UTS 46 names, numbers as IPv4 addresses); besides, parameters are sorted and those that only track are removed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
from urllib.parse import quote, urljoin, urlsplit

MOST_CHARACTERS = 2_000
MOST_SEGMENTS = 20  # of a path
_BLANK = "".join(map(chr, range(33)))  # spaces and control characters
_LINE_ENDS = dict.fromkeys(map(ord, "\t\r\n"))
_PORTS = {"http": 80, "https": 443}
_TRACKING = frozenset(
    {"gclid", "gclsrc", "dclid", "fbclid", "msclkid", "yclid", "twclid", "igshid", "mc_cid", "mc_eid", "_ga", "_gl"}
    | {"phpsessid", "jsessionid", "aspsessionid", "sessionid"}
)
_SESSION = re.compile(r";jsessionid=[^/;?]*", re.IGNORECASE)
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_IN_PATH = "/!$&'()*+,;=:@%"
_IN_QUERY = _IN_PATH + "?"
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
# The same piece of a path three times in a row: /a/b/a/b/a/b, as relative links to oneself make them.
_REPEATED = re.compile(r"(/[^/]+(?:/[^/]+)*?)\1\1(?=/|$)")


class Unusable(ValueError):
    """Not the address of a page; the text says why in a few words."""


def normal(text: str, base: str = "") -> str:
    """The normal form of a URL; a relative one belongs to `base`. Raises Unusable."""
    text = text.strip(_BLANK).translate(_LINE_ENDS)
    text = re.sub(r"^[^?#]*", lambda m: m[0].replace("\\", "/"), text)  # browsers read them so
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        port = parts.port
    except ValueError:
        raise Unusable("broken address") from None
    if parts.scheme not in _PORTS:
        raise Unusable("not a web address")
    if "@" in parts.netloc:
        raise Unusable("a login in the address")
    name = _host(parts.hostname or "")
    if port == 0:
        raise Unusable("broken address")
    place = name if port in (None, _PORTS[parts.scheme]) else f"{name}:{port}"
    path = _without_dots(_escaped(_SESSION.sub("", parts.path), _IN_PATH))
    query = _sorted(_escaped(parts.query, _IN_QUERY))
    return f"{parts.scheme}://{place}{path}{'?' if query else ''}{query}"


def host(url: str) -> str:
    """The name or number of the machine, without a port; an IPv6 address without brackets."""
    return urlsplit(url).hostname or ""


def origin(url: str) -> str:
    """Scheme, host and port: what one robots.txt is for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def stem(url: str) -> str:
    """The URL without its query."""
    return url.partition("?")[0]


def bare(url: str) -> str:
    """The URL without "https://"."""
    return url.partition("://")[2]


def segments(url: str) -> int:
    """How many names there are in the path: 0 for the root, 2 for /a/b and /a/b/."""
    return len([name for name in urlsplit(url).path.split("/") if name])


def extension(url: str) -> str:
    """Of the last name in the path, in small letters, without the dot; "" when there is none."""
    name = urlsplit(url).path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name[1:] else ""


def tie(url: str) -> int:
    """A fixed number in [0, 2⁶³), for an order among equals that nobody chose."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big") >> 1


def trap(url: str) -> str:
    """Why a URL (in normal form) looks as if a program made it up without end; "" when it does not."""
    if len(url) > MOST_CHARACTERS:
        return "long address"
    if segments(url) > MOST_SEGMENTS:
        return "deep path"
    return "repeating path" if _REPEATED.search(urlsplit(url).path) else ""


def _host(name: str) -> str:
    name = name.rstrip(".")
    if ":" in name:
        try:
            return f"[{ipaddress.IPv6Address(name).compressed}]"
        except ValueError:
            raise Unusable("broken address") from None
    if not name.isascii() or "%" in name:
        import idna

        try:
            name = idna.encode(_ESCAPED.sub(lambda m: chr(int(m[1], 16)), name), uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise Unusable("broken address") from None
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise Unusable("broken address")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            return socket.inet_ntoa(socket.inet_aton(name))  # 127.1, 0x7f000001 and 2130706433 are all 127.0.0.1
        except OSError:
            raise Unusable("broken address") from None
    return name


def _escaped(text: str, allowed: str) -> str:
    """With %XX exactly where it is needed."""
    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    plain = _ESCAPED.sub(lambda m: c if (c := chr(int(m[1], 16))) in _UNRESERVED else m[0].upper(), text)
    return quote(plain, safe=allowed + "~", errors="replace")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    names = path.split("/")[1:]
    for name in names:
        if name == "..":
            kept = kept[:-1]
        elif name != ".":
            kept.append(name)
    if names and names[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _sorted(query: str) -> str:
    found = [(part.partition("=")[0], part) for part in query.split("&") if part]
    kept = [(name, part) for name, part in found if not _tracks(name.lower())]
    return "&".join(
        part for _, part in sorted(kept, key=lambda pair: pair[0])
    )  # stable: equal names keep their order


def _tracks(name: str) -> bool:
    return name.startswith("utm_") or name in _TRACKING
