"""Mails (RFC 5322 with MIME) and mailboxes: the headers that a person reads, the body, and what is attached."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import BinaryIO, cast

from crystalline.corpus.decoding import is_text_encoding
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

HEADERS = ("From", "To", "Cc", "Date", "Subject")
Left = tuple[str, str, str]

_ENVELOPE = re.compile(rb"From \S+.*\d{4}\r?\n")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)


def parts(item: Item, settings: Extract, count: Callable[[], None]) -> Iterator[Item | Left]:
    """The mail itself, to be read by `read`, then its attachments. count: is called for each."""
    message = _message(item, settings)
    count()
    item.file.seek(0)
    yield Item(item.source, item.file, format="mail")
    body = _body(message)
    for number, part in enumerate(_leaves(message), 1):
        if part is body or (not part.get_filename() and part.get_content_maintype() in ("text", "multipart")):
            continue
        count()
        name = part.get_filename() or f"part {number}"
        if part.get_content_type() == "message/rfc822":
            (inner,) = cast(list[EmailMessage], part.get_payload()) or [EmailMessage()]
            yield Item(f"{item.source}!{_plain(name)}", BytesIO(inner.as_bytes()), format="eml")
            continue
        data = part.get_payload(decode=True)
        if isinstance(data, bytes) and data:
            charset = part.get_content_charset("")
            yield Item(f"{item.source}!{_plain(name)}", BytesIO(data), part.get_content_type(), charset)


def messages(item: Item, count: Callable[[], None]) -> Iterator[Item | Left]:
    """The mails of a mailbox in mbox format, in their order. Memory: a mail."""
    item.file.seek(0)
    number = 0
    for data in _split(item.file):
        count()
        number += 1
        yield Item(f"{item.source}!{number}", BytesIO(data), format="eml")
    if number == 0:
        raise Unreadable("broken", "no mail begins in it")


def read(item: Item, settings: Extract) -> Text:
    """Headers and body of a mail, without attachments. Of a body in several formats the plain one."""
    message = _message(item, settings)
    told = {name: _header(message, name) for name in HEADERS}
    head = "".join(f"{name}: {value}\n" for name, value in told.items() if value)
    body = _body(message)
    text = _text_of(body, settings) if body is not None else ""
    if not text.strip() and not told["Subject"]:
        raise Unreadable("no text")
    metadata = {"title": told["Subject"], "author": told["From"], "date": _date(message)}
    kept = {name: value for name, value in metadata.items() if value}
    return Text("prose", [f"{head}\n{text.strip()}\n" if text.strip() else head], kept)


def _message(item: Item, settings: Extract) -> EmailMessage:
    message = message_from_bytes(item.whole(settings.max_file_mb), policy=policy.default)
    if not message.keys():
        raise Unreadable("broken", "no headers of a mail")
    return message


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """All parts that hold no further ones; a mail inside of a mail is one."""
    if message.is_multipart() and message.get_content_type() != "message/rfc822":
        for part in cast(list[EmailMessage], message.get_payload()):
            yield from _leaves(part)
    else:
        yield message


def _body(message: EmailMessage) -> EmailMessage | None:
    try:
        return cast(EmailMessage | None, message.get_body(("plain", "html")))
    except (MessageError, KeyError, ValueError, AttributeError):  # a structure that contradicts itself
        return next((part for part in _leaves(message) if part.get_content_maintype() == "text"), None)


def _text_of(part: EmailMessage, settings: Extract) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    charset = part.get_content_charset("") or "utf-8"
    if part.get_content_subtype() == "html":
        from crystalline.corpus.extract import html

        everything = settings.model_copy(update={"everything": True})  # a mail has no menus
        text = html.read(Item("", BytesIO(data), "text/html", charset), everything)
        return "".join(text.pieces)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(charset if is_text_encoding(charset) else "latin-1", "replace")


def _header(message: EmailMessage, name: str) -> str:
    try:
        return _plain(str(message.get(name, "")))
    except Exception:  # the parser of headers fails on some that are broken, in many ways
        return ""


def _date(message: EmailMessage) -> str:
    try:
        return parsedate_to_datetime(_header(message, "Date")).date().isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text.encode("utf-8", "replace").decode()).split())


def _split(file: BinaryIO) -> Iterator[bytes]:
    """The mails between lines that begin with "From " after a blank line."""
    lines: list[bytes] | None = None
    blank = True
    for line in file:
        if blank and _ENVELOPE.match(line):
            if lines:
                yield _unquoted(lines)
            lines = []
        elif lines is not None:
            lines.append(line)
        blank = not line.strip()
    if lines:
        yield _unquoted(lines)


def _unquoted(lines: list[bytes]) -> bytes:
    return _QUOTED_FROM.sub(rb"\1", b"".join(lines))
