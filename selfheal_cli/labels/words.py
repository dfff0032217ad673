"""What people call the classes of a target."""

from __future__ import annotations

from collections.abc import Sequence


def classes_by_word(classes: Sequence[str]) -> dict[str, int]:
    """Texts to classes: as the table had them, in lower case, true and false for 1 and 0.

    >>> classes_by_word(("0", "1"))["true"]
    1
    """
    by_text: dict[str, int] = {}
    if set(classes) == {"0", "1"}:
        by_text = {"false": classes.index("0"), "true": classes.index("1")}
    return by_text | {name.casefold(): place for place, name in enumerate(classes)}
