"""Somebody else's text as it may stand on a screen, a picture or a page."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"  # scripts need them, and they move nothing
# what is no character, moves the cursor, ends a line, or turns the direction of writing
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str, *, keep: str = "") -> str:
    r"""The same text with what cannot be seen written out, but for the characters to ``keep``.

    >>> visible("a\x1b[2Jb [red] $x$")
    'a\\x1b[2Jb [red] $x$'
    >>> visible("\u202egpj.exe")
    '\\u202egpj.exe'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in keep else _written(one) for one in text)


def on_page(value: object) -> object:
    """A template's value with texts made `visible`; markup and numbers are left as they are."""
    return visible(value, keep="\n") if type(value) is str else value


def _written(one: str) -> str:
    if one in JOINERS or unicodedata.category(one) not in UNSEEN:
        return one
    return one.encode("unicode_escape").decode("ascii")
