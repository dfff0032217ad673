"""Text from outside, made safe to show on a screen, a picture or a page."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"  # scripts need them, and they move nothing
# Unicode categories of controls, formats, surrogates and line ends: what is no character, moves
# the cursor, ends a line, or turns the direction of writing
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str, *, keep: str = "") -> str:
    r"""The same text with what cannot be seen written out, but for the characters to ``keep``.

    >>> visible("a\x1b[2Jb [red] $x$")
    'a\\x1b[2Jb [red] $x$'
    >>> visible("\u202egpj.exe")
    '\\u202egpj.exe'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep else _escaped(char) for char in text)


def on_page(value: object) -> object:
    """A template's value with texts made `visible`; markup and numbers are left as they are."""
    return visible(value, keep="\n") if type(value) is str else value


def _escaped(char: str) -> str:
    if char in JOINERS or unicodedata.category(char) not in INVISIBLE:
        return char
    return char.encode("unicode_escape").decode("ascii")
