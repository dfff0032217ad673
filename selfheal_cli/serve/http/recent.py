"""What the latest request ids stood for, so that one that is used twice is told at once."""

from __future__ import annotations

REMEMBERED = 20_000


class RecentIds:
    """Used by the event loop alone. It only tells the caller: the spool decides what is kept."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._contents: dict[str, int] = {}

    def stands_for(self, request: str, content: int) -> bool:
        """Whether an id is new, or stood for this content before."""
        known = self._contents.setdefault(request, content)
        if len(self._contents) > self._most:
            del self._contents[next(iter(self._contents))]
        return known == content
