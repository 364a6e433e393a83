"""E4: what the SPEC calls control characters and white space, by Unicode's properties."""

from __future__ import annotations

import unicodedata

# The property White_Space. `str.isspace` has U+001C to U+001F too, which have it not.
WHITE_SPACE = frozenset(
    chr(c)
    for c in (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
)


def has_control(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" for c in text)


def has_white_space(text: str) -> bool:
    return not WHITE_SPACE.isdisjoint(text)


def without_white_space(text: str) -> str:
    return "".join(c for c in text if c not in WHITE_SPACE)
