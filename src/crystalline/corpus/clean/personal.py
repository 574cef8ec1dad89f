"""Personal data in a text: e-mail addresses, telephone and account numbers, keys. Each becomes a placeholder.

A model repeats what it has read, so who gets the model gets these too. What is masked must be what it seems: numbers
are checked (Luhn's digit of a card, ISO 7064's of an IBAN, public IP addresses only), a telephone number must be
written like one or be called one. In source code only e-mail addresses and keys are masked.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("email", "phone", "iban", "card", "ip", "key")
IN_CODE = ("email", "key")

Span = tuple[int, int, str]  # start, end, kind


def masked(text: str, kinds: Iterable[str], counts: Counter[str] | None = None, places: Places | None = None) -> str:
    """The text with "<email>" instead of each e-mail address, and so on for the `kinds` that are asked for.

    counts: gets how many of each kind were masked. places: those of this text, if they were found with others.
    Masking masked text changes nothing.
    """
    places = places or find_places([text])[0]
    wanted = set(kinds)
    spans: list[Span] = []
    if "email" in wanted and "@" in text:
        spans += _emails(text)
    if "key" in wanted:
        spans += _keys(text, places)
    if wanted & {"phone", "iban", "card", "ip"}:
        spans += [span for span in _numbers(text, places.numbers) if span[2] in wanted]
    if not spans:
        return text
    parts, position = [], 0
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start < position:
            continue  # lies in the one before it
        parts += [text[position:start], f"<{kind}>"]
        position = end
        if counts is not None:
            counts[kind] += 1
    return "".join([*parts, text[position:]])


# --- where to look --------------------------------------------------------------------------------------

# Numbers and keys are longer runs of their characters than prose has. numpy finds such runs, in many texts at once,
# in a fraction of the time that looking for every pattern everywhere takes; the patterns are tried only there.


class Places(NamedTuple):
    """Where in a text seven characters begin that numbers are made of, sixteen of keys, and twelve of passwords and
    the like; `numbers` and `values` have a digit among them."""

    numbers: list[int]
    keys: list[int]
    values: list[int]


_IN_NUMBER, _IN_KEY, _IN_VALUE, _NO_DIGIT = 1, 2, 4, 8
_CLASSES = bytes(
    _IN_NUMBER * (sign in "0123456789 ()./\u00a0-")
    | _IN_KEY * (sign.isascii() and (sign.isalnum() or sign in "_-"))
    | _IN_VALUE * (sign.isascii() and (sign.isalnum() or sign in "+/_!@#$%^&*.~=-"))
    | _NO_DIGIT * (sign not in "0123456789")
    for sign in map(chr, range(256))
)


def find_places(texts: Sequence[str]) -> list[Places]:
    """Where to look in each of these texts."""
    joined = "\n".join(texts).encode("latin-1", "replace")  # other characters become "?", which is part of nothing
    signs = np.frombuffer(joined.translate(_CLASSES), np.uint8)
    seven = _runs(signs, 7)
    twelve = _runs(seven, 12 - 7 + 1)
    sixteen = _runs(twelve, 16 - 12 + 1)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    columns = []
    for runs, kind, digits in ((seven, _IN_NUMBER, True), (sixteen, _IN_KEY, False), (twelve, _IN_VALUE, True)):
        every = np.flatnonzero(runs & (kind | _NO_DIGIT * digits) == kind)
        borders = np.searchsorted(every, starts).tolist()
        columns.append(
            [(every[a:b] - start).tolist() for (a, b), start in zip(pairwise(borders), starts, strict=False)]
        )
    return list(map(Places, *columns))


def _runs(bits: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """The bits that `length` neighbours have in common, for each place where so many begin."""
    have = 1
    while have < length and len(bits):
        step = min(have, length - have)
        bits = bits[:-step] & bits[step:]
        have += step
    return bits


def _matches(pattern: re.Pattern[str], text: str, places: list[int]) -> Iterator[re.Match[str]]:
    """What `finditer` would find if all that matches began at one of these places."""
    end = 0
    for place in places:
        if place >= end and (found := pattern.match(text, place)):
            end = found.end()
            yield found


# --- e-mail addresses -----------------------------------------------------------------------------------

_AT = re.compile(
    r"@([A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?)+)"
)
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_{|}~.\u00c0-\u024f-]{1,64}\Z")
# Names that are no person's (RFC 2606), and endings that are files.
_NOBODY = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net|edu))?|invalid|test|localhost|domain\.com)$", re.I)
_NO_ENDING = frozenset(
    {
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "html",
        "htm",
        "php",
        "js",
        "css",
        "py",
        "txt",
        "xml",
        "json",
        "local",
    }
)
_LONG_ENDINGS = frozenset(
    {"com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "pro", "aero", "coop", "museum", "mobi"}
    | {"app", "dev", "online", "site", "tech", "store", "shop", "xyz", "cloud", "email", "blog", "berlin", "london"}
    | {"paris", "wien", "koeln", "hamburg", "bayern", "agency", "company", "family", "world", "life", "live", "news"}
    | {"academy", "systems", "solutions", "software", "digital", "media", "group", "team", "studio", "design", "arpa"}
)
_ROLES = frozenset({"git", "hg", "svn", "noreply", "no-reply", "donotreply"})  # machines, as in git@github.com:x/y


def _emails(text: str) -> Iterator[Span]:
    for at in _AT.finditer(text):
        local = _LOCAL.search(text, max(0, at.start() - 64), at.start())
        if local is None:
            continue
        name = local[0].lstrip(".'/=|{")
        host = at[1]
        ending = host.rpartition(".")[2]
        known = (len(ending) == 2 and ending.isalpha()) or ending.lower() in _LONG_ENDINGS
        after = text[at.end() : at.end() + 1]
        if not name or name.endswith(".") or not known or ending.lower() in _NO_ENDING or _NOBODY.search(host):
            continue
        if after in ("(", "[", "_") or name.lower() in _ROLES or "//" in name:
            continue  # a method of a matrix (a@b.to(...)), a machine, the user of a URL
        yield at.start() - len(name), at.end(), "email"


# --- keys -----------------------------------------------------------------------------------------------

_PEM = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s:,.\\-]{40,}?"
    r"-----END [A-Z0-9 ]{0,40}-----"
)
# What begins a key -> all of it. The forms are those that the services publish, so that keys can be found in time.
# All begin with at least 16 of the characters of `_LONG`.
_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (prefix, re.compile(pattern))
    for prefix, pattern in (
        ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),  # Amazon
        ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        ("ghp_", r"\bghp_[A-Za-z0-9]{36,}"),  # GitHub
        ("gho_", r"\bgho_[A-Za-z0-9]{36,}"),
        ("ghs_", r"\bghs_[A-Za-z0-9]{36,}"),
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{50,}"),
        ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),  # GitLab
        ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),  # Slack
        ("sk-", r"\bsk-(?:[a-z]{2,8}-)*[A-Za-z0-9_-]{32,}"),  # OpenAI, Anthropic
        ("_live_", r"\b[sr]k_live_[A-Za-z0-9]{16,}"),  # Stripe
        ("AIza", r"\bAIza[A-Za-z0-9_-]{35}"),  # Google
        ("hf_", r"\bhf_[A-Za-z0-9]{30,}"),  # Hugging Face
        ("eyJ", r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}"),  # JSON Web Token
    )
)  # fmt: skip
_LONG = re.compile(r"[A-Za-z0-9_-]+")
# A password or token that is called so: the value, in quotation marks or alone after the sign; and what it is called.
_NAMES = ("passw", "passphrase", "api", "secret", "token")
_CHARACTERS = re.compile(r"[A-Za-z0-9+/_!@#$%^&*.~=-]+")  # that values are made of
_VALUE = re.compile(r"[:=]\s{0,3}([\"']?)([A-Za-z0-9+/_!@#$%^&*.~=-]{12,128})\1(?![A-Za-z0-9(\[.])")
_SECRET = re.compile(
    r"(?i)(?:passw(?:or)?d|passphrase|api[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|token)[\"']?\s{0,3}$"
)


def _keys(text: str, places: Places) -> Iterator[Span]:
    if "-----BEGIN" in text:
        yield from ((*found.span(), "key") for found in _PEM.finditer(text))
    long = " ".join(found[0] for found in _matches(_LONG, text, places.keys))
    for prefix, pattern in _KEYS:
        if prefix in long:
            yield from ((*found.span(), "key") for found in pattern.finditer(text))
    # A value has digits among its 12 to 128 characters, and shortly before it what it is called.
    for run in _matches(_CHARACTERS, text, places.values):
        near = text[max(0, run.start() - 200) : run.end()].lower()
        if any(name in near for name in _NAMES):
            break
    else:
        return
    for found in _VALUE.finditer(text):
        if _random(found[2]) and _SECRET.search(text, max(0, found.start() - 30), found.start()):
            yield (*found.span(2), "key")


def _random(value: str) -> bool:
    """Whether this looks like a machine's or a careful person's secret, not like a name in a program."""
    kinds = (str.isdigit, str.isupper, str.islower)
    seen = sum(any(map(kind, value)) for kind in kinds)
    digits = sum(map(str.isdigit, value))
    return seen >= 2 and digits >= 3 and len(set(value)) >= 8 and "..." not in value


# --- numbers --------------------------------------------------------------------------------------------

# At least seven characters of digits and what may stand between them. All that follows looks only there.
_RUN = re.compile(r"[0-9][0-9 ()./\u00a0-]{5,}[0-9]")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:")

_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \u00a0]?[A-Z0-9]{4}){2,7}(?:[ \u00a0]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(
    r"(?<![0-9.,/-])(?:[0-9]{4}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|3[0-9]{3}([ -]?)[0-9]{6}\2[0-9]{4,5})"
    r"(?![0-9./-])"
)
_CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[0-9]|6(?:011|4[4-9]|5)")
_NUMBER = re.compile(r"[ \t]*[-+'\"]?[0-9]")
_CARD_LENGTHS = {"4": (13, 16, 19), "5": (16,), "2": (16,), "3": (14, 15, 16), "6": (16, 19)}
_IPV4 = re.compile(r"(?<![0-9.A-Za-z-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![0-9A-Za-z:])")
_VERSION = re.compile(r"(?i)(?:version|ver\.?|release|v|section|chapter|build)\s*$")

_DATE = re.compile(
    r"(?<![0-9])(?:[0-9]{1,2}[./-][0-9]{1,2}[./-](?:[0-9]{4}|[0-9]{2})|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2})"
    r"(?![0-9])"
)
_PHONE = re.compile(
    r"(?<![0-9A-Za-z.,/_$€£#=+-])(?:"
    r"(?P<international>(?:\+|00)[1-9][0-9]{0,2}(?:[ ./\u00a0-]?(?:\(0?[0-9]{0,5}\)[ ./-]?)?[0-9]{1,5}){2,6})"
    r"|(?P<american>(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4})"
    r"|(?P<national>\(?0[1-9][0-9]{0,4}\)?[ ./\u00a0-]{1,3}[0-9]{2,8}(?:[ .-][0-9]{1,6}){0,4})"
    r"|(?P<called>\(?[0-9][0-9 ()./\u00a0-]{4,18}[0-9])"
    r")(?![0-9A-Za-z]|[.,/-][0-9A-Za-z])"
)
# Country codes (ITU-T E.164).
_COUNTRY = re.compile(
    r"(?:\+|00)(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-689][0-9]|3[578][0-9]|42[0-3]"
    r"|5[09][0-9]|6[789][0-9]|8[05-8][0-9]|9[679][0-9])"
)
_CALLED = re.compile(
    r"(?i)\b(?:tele?(?:phone|fon|fono|fax)?|phone|fon|mobile?|mobiltelefon|cell|handy|fax|call|whatsapp|sms|puh(?:elin)?"
    r"|tél|tlf|hotline|rufnummer)\b[^0-9\n]{0,15}$|[☎☏✆📞]\s*$"
)  # fmt: skip


def _numbers(text: str, places: list[int]) -> Iterator[Span]:
    for run in _matches(_RUN, text, places):
        yield from _in_window(text, *run.span())
    for colons in _COLONS.finditer(text):
        for found in _IPV6.finditer(text, max(0, colons.start() - 5), colons.end() + 40):
            if found.start() <= colons.start() and _public(found[0]):
                yield (*found.span(), "ip")


def _in_window(text: str, start: int, end: int) -> Iterator[Span]:
    """What stands at text[start:end], a run of digits, or begins shortly before it."""
    head = text[max(0, start - 24) : start]
    if any(map(str.isupper, head)):  # "DE89 3704...", "GB29 NWBK 6016...": a country's letters come before
        for found in _IBAN.finditer(text, max(0, start - 24), min(len(text), end + 24)):
            if _good_iban(found[0]):
                yield (*found.span(), "iban")
    if end - start >= 13:
        for found in _CARD.finditer(text, start, min(len(text), end + 1)):
            if _good_card(found, text):
                yield (*found.span(), "card")
    if "." in text[start:end]:
        for found in _IPV4.finditer(text, start, min(len(text), end + 2)):
            if _public(found[0]) and not _VERSION.search(text[max(0, found.start() - 10) : found.start()]):
                yield (*found.span(), "ip")
    first = max(0, start - 2)  # "+49", "(0"
    for found in _PHONE.finditer(text, first, min(len(text), end + 1)):
        if _good_phone(found, text):
            yield (*found.span(), "phone")


def _public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if found.version == 6 and "::" not in address and all(len(group) < 3 for group in address.split(":")):
        return False  # a fingerprint or a serial number, byte by byte
    return found.is_global and not found.is_multicast


def _good_iban(text: str) -> bool:
    """ISO 13616: the country, its check digits, and 97."""
    code = text.replace(" ", "").replace("\u00a0", "")
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _good_card(found: re.Match[str], text: str) -> bool:
    digits = found[0].replace(" ", "").replace("-", "")
    if not _CARD_PREFIX.match(digits) or len(digits) not in _CARD_LENGTHS[digits[0]] or not luhn(digits):
        return False
    if len(set(digits)) < 2:
        return False
    # One long number in ten passes Luhn's check: without groups it must stand in a sentence, not among numbers.
    grouped = len(digits) < len(found[0])
    before, after = text[max(0, found.start() - 24) : found.start()].rstrip(), text[found.end() : found.end() + 12]
    return grouped or ((not before or before[-1].isalpha() or before[-1] in ":,(") and not _NUMBER.match(after))


def luhn(digits: str) -> bool:
    """Luhn's check: every second digit from the right doubled, the sum of all digits ends in 0 (ISO 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _good_phone(found: re.Match[str], text: str) -> bool:
    digits = sum(map(str.isdigit, found[0]))
    if _DATE.search(found[0]) or not 6 <= digits <= 15:
        return False
    how = found.lastgroup
    if how == "international":
        return _COUNTRY.match(found[0]) is not None and _dialled(found[0], digits)
    if how == "american":
        return True
    named = _CALLED.search(text[max(0, found.start() - 32) : found.start()]) is not None
    if how == "national":
        return named or (9 <= digits <= 12 and not _ipv4_like(found[0]))
    return named and digits <= 13


def _dialled(text: str, digits: int) -> bool:
    """Whether a number with its country is one to dial, not to calculate with."""
    separators = sum(text.count(sign) for sign in " /-(\u00a0")
    if text.startswith("00"):
        return separators >= 2 and digits >= 10
    if separators == 0 and text.count(".") < 2:
        return "." not in text and 10 <= digits <= 13 and len(set(text)) > 4
    return digits >= 8


def _ipv4_like(text: str) -> bool:
    return text.count(".") >= 3
