"""Text from anywhere, made safe to stand in HTML and SVG."""

from __future__ import annotations

import html
import re

# What XML has no sign for, and what turns the direction of the text around it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def clean(value: object) -> str:
    """The text of `value` with everything escaped; a character that cannot be shown is �. Tabs and new lines stay."""
    return html.escape(_UNPRINTABLE.sub("�", str(value)))
