"""An order to the process that talks to the registry, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from selfheal_cli.errors import RequestRefused
from selfheal_cli.spool.board import Board

LOOK_SECONDS = 0.05


async def ask(
    board: Board, kind: str, argument: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Have it done, and wait for what comes of it; an order that nobody took is taken back.

    Raises `RequestRefused`: 409 where it was refused, 503 where no answer came in ``seconds``; and
    `NotWritten` where the board cannot be used.
    """
    number = await asyncio.to_thread(board.order, kind, argument)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = await asyncio.to_thread(board.answer_of, number)
        if found is not None:
            break
        if loop.time() >= end:
            withdrawn = await asyncio.to_thread(board.withdraw, number)
            raise _unanswered(seconds, withdrawn=withdrawn)
        await asyncio.sleep(LOOK_SECONDS)
    if not found.get("ok"):
        why = str(found.get("error", "it was refused"))
        raise RequestRefused(why, status=409, code="CONFLICT", reason="order")
    return found


def _unanswered(seconds: float, *, withdrawn: bool) -> RequestRefused:
    if withdrawn:
        text = f"nobody took the order in {seconds:g} s and it was taken back: is the healer up?"
    else:
        text = (
            f"the order was taken and not answered in {seconds:g} s: it may still be carried out; "
            "look at the champion before asking again"
        )
    return RequestRefused(text, status=503, code="TEMPORARILY_UNAVAILABLE", reason="order")
