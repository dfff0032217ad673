"""The one place where secrets are taken out of what is shown, stored or logged."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"
NO_AUTHORITY = ("sqlite", "file", "models", "runs", "mlflow-artifacts")  # a path follows
SCHEME = re.compile(r"([A-Za-z][\w.-]+)(?:\+[\w.-]+)?:/+")
PORT = re.compile(r"\d+(?=[/,?#]|$)")
# names of parameters whose values are secrets; in a URI rather one too many
SECRET = re.compile(r"pass|pwd|secret|token|credential|signature|connect$|^sig$|key$|auth", re.I)
OPTION = re.compile(r"[?&;]([^?&;=]*)=")
USERINFO = re.compile(r"^([A-Za-z][\w+.-]*:/+[^:@/]*):.*@")
SECRET_PAIR = re.compile(
    r"""(?ix) ( (?<![\w.%-])
      (?: [\w.%-]*(?:passw|passphrase|pwd|secret|token|credential|signature|odbc_connect)[\w.%-]*
        | (?:[\w.%-]*[_.-])?(?:pass|sig)
        | [\w.%-]*(?:api|access|account|shared|private)[_.-]?key )
      ["']? \s?=\s? )
    (?! \*\*\* ) (?: "[^"]*" | '[^']*' | \{[^}]*\} | [^\s&;,]+ )"""
)
AUTHORIZED = re.compile(r"(?i)\b(bearer|authorization:\s*\w+)\s+[^\s'\"]+")
# a URI in running text, or something that was meant to be one
URI = re.compile(
    r"(?:[A-Za-z][\w+.-]+:/|\b(?:postgres|mysql|mariadb|mssql|https?)[\w+]*(?::|//))\S*"
)
CLOSING = re.compile(r"""['")\]>,.;:]*$""")


def masked(text: str) -> str:
    """A text in which URIs and pairs of name and value may be quoted, without their secrets.

    >>> masked("cannot reach postgres:/ann:p@ss@db/mlflow: PWD={a;b}; try 'models:/fraud@champion'")
    "cannot reach postgres:/ann:***@db/mlflow: PWD=***; try 'models:/fraud@champion'"
    """
    text = URI.sub(_quoted, text)
    text = SECRET_PAIR.sub(rf"\1{MASK}", text)
    return AUTHORIZED.sub(rf"\1 {MASK}", text)


def masked_uri(uri: str) -> str:
    """A text that is one URI as a whole, so that its secrets may hold any character.

    What may be a part of a secret is taken for one: better a host is not shown than a password.

    >>> masked_uri("postgresql://ann:p@ss/w rd?@db/mlflow?sslmode=require&sslpassword=x y&z")
    'postgresql://ann:***@db/mlflow?sslmode=require&sslpassword=***'
    """
    scheme = SCHEME.match(uri)
    start = scheme.end() if scheme else 0
    kind = scheme[1].lower() if scheme else ""
    rest = _cut_at_secret(uri[start:])
    if kind in NO_AUTHORITY or "@" not in uri:
        return uri[:start] + rest
    user, at, host = rest.rpartition("@")
    if not at:  # the @ was cut off with what followed: that was a password or an option
        user, host = rest, ""
    name, colon, password = user.partition(":")
    if kind in ("http", "https"):  # a token may stand in the user's place
        return f"{uri[:start]}{MASK}{at}{host}"
    if not colon or (not at and PORT.match(password)):
        return uri[:start] + rest
    return f"{uri[:start]}{name}:{MASK}{at}{host}"


def masked_value(value: str) -> str:
    """A setting's value, which may be a URI or anything else.

    >>> masked_value("postgresql://ann:a b@db"), masked_value("note: to ann@example.org")
    ('postgresql://ann:***@db', 'note: to ann@example.org')
    """
    return masked_uri(value) if SCHEME.match(value) else masked(value)


def without_secrets(uri: str) -> str:
    """A URI that is kept to connect with later, by a password from elsewhere.

    >>> without_secrets("postgresql://ann:p@ss@db/shop?sslpassword=x&sslmode=require")
    'postgresql://ann@db/shop?sslmode=require'
    """
    rest, _, query = USERINFO.sub(r"\1@", uri).partition("?")
    options = "&".join(part for part in query.split("&") if not _is_secret(part))
    return masked_uri(f"{rest}?{options}" if options else rest)


def has_bare_at(uri: str) -> bool:
    """Whether a database's URI holds an @ in its user or password, which ends them too early."""
    return "@" in uri.partition("?")[0].rpartition("@")[0]


def _is_secret(option: str) -> bool:
    return bool(SECRET.search(unquote(option.partition("=")[0])))


def _cut_at_secret(rest: str) -> str:
    for option in OPTION.finditer(rest):
        if _is_secret(option[1]):
            return rest[: option.end()] + MASK
    return rest


def _quoted(match: re.Match[str]) -> str:
    closing = CLOSING.search(match[0])
    end = closing.start() if closing else len(match[0])
    return masked_uri(match[0][:end]) + match[0][end:]
