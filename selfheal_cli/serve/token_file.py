"""Where callers, their tokens and their rights are written down."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.serve.settings import OPERATING, SCORING, Right, Token, Tokens

VARIABLE = "SELFHEAL_TOKENS"
SHORTEST = 16
FIRST = {"scoring": SCORING, "operating": OPERATING}  # names that say what they may
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
FORM = f"'NAME: TOKEN RIGHTS' is expected, once for a name; rights: {', '.join(Right)}"


def read_tokens(path: Path) -> Tokens:
    """A caller a line: ``NAME: TOKEN RIGHTS``, or ``scoring: TOKEN`` and ``operating: TOKEN``.

    Raises `ConfigurationError`; a file that others may read is refused.
    """
    try:
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(f"{path}: others may read the tokens; chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc})") from exc
    return _tokens(lines, str(path))


def tokens_from_environment() -> Tokens:
    """The callers of ``SELFHEAL_TOKENS``, with line breaks or ``;`` between them; no child process
    finds them there any more.
    """
    text = os.environ.pop(VARIABLE, "")
    return _tokens(re.split(r"[;\n]", text), VARIABLE) if text.strip() else Tokens()


def looking(tokens: Tokens) -> str:
    """A token by which one may look; empty where none is needed. Raises `ConfigurationError`."""
    for one in tokens.callers:
        if Right.LOOK in one.rights:
            return one.secret
    if Right.LOOK in tokens.open:
        return ""
    raise ConfigurationError(f"no caller in the file may {Right.LOOK}")


def _tokens(lines: Iterable[str], where: str) -> Tokens:
    callers: dict[str, Token] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            caller = _caller(line, f"{where}: line {number}")
            if caller.name in callers:
                raise ConfigurationError(f"{where}: line {number}: {FORM}")
            callers[caller.name] = caller
    if not callers:
        raise ConfigurationError(f"{where}: holds no token")
    secrets = [one.secret for one in callers.values()]
    if len(set(secrets)) < len(secrets):
        raise ConfigurationError(f"{where}: every caller needs a token of its own")
    if callers.keys() <= FIRST.keys():
        return Tokens.of(**{name: one.secret for name, one in callers.items()})
    return Tokens(callers=tuple(callers.values()), open=frozenset())


def _caller(line: str, where: str) -> Token:
    name, colon, rest = (part.strip() for part in line.partition(":"))
    if not colon or not NAME.match(name):
        raise ConfigurationError(f"{where}: {FORM}")
    if name in FIRST:
        token, rights = rest, FIRST[name]
    else:
        token, *words = rest.replace(",", " ").split() or [""]
        if not words or not {*words} <= {*Right}:
            raise ConfigurationError(f"{where}: {FORM}")
        rights = frozenset(map(Right, words))
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise ConfigurationError(
            f"{where}: a token has {SHORTEST} or more characters of ASCII; "
            "make one with: openssl rand -hex 24"
        )
    return Token(name=name, secret=token, rights=rights)
