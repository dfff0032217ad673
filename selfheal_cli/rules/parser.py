"""Parses the text of a rule: recursive descent, one function for each level of precedence.

::

    rule       = or_part "=>" label ["@" confidence]
    or_part    = and_part {"or" and_part}
    and_part   = not_part {"and" not_part}
    not_part   = "not" not_part | "(" or_part ")" | question
    question   = name "(" ")" | name ( ("<" | "<=" | ">" | ">=" | "==" | "!=") value
                      | ["not"] "in" "{" value {"," value} "}"
                      | ["not"] "between" number "and" number
                      | "is" ["not"] "missing" )
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import NoReturn

from selfheal_cli.errors import ConfigurationError, RuleError
from selfheal_cli.installed import require
from selfheal_cli.rules.conditions import (
    RESERVED,
    And,
    Between,
    Comparison,
    Condition,
    In,
    IsMissing,
    Not,
    Or,
    OwnCondition,
)

MAX_LENGTH = 2_000
MAX_DEPTH = 20
SHARES = 10_000  # a confidence has four digits at most, so that votes add up exactly
Where = Callable[[int], str]  # offset in the text -> file, line and column, or the like

LABEL = re.compile(r"\d{1,2}")
TOKEN = re.compile(
    r"\s*(?:(?P<arrow>=>)|(?P<op><=|>=|==|!=|<|>|=)|(?P<mark>[(){},@])"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<quoted>`(?:[^`]|``)+`)|(?P<name>[A-Za-z_][\w.\-]*))"
)
FEATURE = "a feature name, 'not' or '('"
QUESTION = "one of < <= > >= == !=, or in, between, is"
VALUE = "a finite number or a quoted text"
NUMBER = "a finite number"
TEXT = "a number (text compares with == and != only)"
LABELS = "the label, such as 0 or 1"
CONFIDENCE = "a confidence above 0 and up to 1, of at most four decimals"
END = "'@' with a confidence, or the end of the rule"


def parse(text: str, where: Where | None = None) -> tuple[Condition, int, float]:
    """Condition, label and confidence; raises `RuleError` with the position of the first error.

    ``where`` turns an offset in the text into the beginning of the message.
    """
    place = where or (lambda at: f"rule '{text}', {_place(text, at)}")
    if len(text) > MAX_LENGTH:
        at = f"{where(0)}: " if where else ""
        raise RuleError(f"{at}rule of {len(text)} characters; at most {MAX_LENGTH} are allowed")
    return _Parser(text, place).rule()


def parse_condition(text: str, where: Where | None = None) -> Condition:
    """A condition alone, in which ``=`` may stand for ``==``; raises `RuleError` as `parse`."""
    place = where or (lambda at: f"condition '{text}', {_place(text, at)}")
    if len(text) > MAX_LENGTH:
        raise RuleError(f"condition of {len(text)} characters; at most {MAX_LENGTH} are allowed")
    return _Parser(text, place, equals=("==", "=")).condition()


class _Parser:
    """A recursive-descent parser that looks one token ahead."""

    def __init__(self, text: str, where: Where, equals: tuple[str, ...] = ("==",)) -> None:
        self._text, self._where, self._equals = text, where, equals
        self._depth = self._end = 0
        self._kind = self._token = ""
        self._start = 0
        self._next()

    def condition(self) -> Condition:
        condition = self._or()
        if self._kind != "end":
            self._fail("'and', 'or' or the end of the condition", rest=True)
        return condition

    def rule(self) -> tuple[Condition, int, float]:
        condition = self._or()
        if self._kind != "arrow":
            self._fail("'and', 'or' or '=>'")
        self._next()
        label, confidence = self._token, 1.0
        if self._kind != "number" or not LABEL.fullmatch(label):
            self._fail(LABELS)
        self._next()
        if self._skip("@"):
            confidence = self._confidence()
        if self._kind != "end":
            self._fail(END if confidence == 1.0 else "the end of the rule", rest=True)
        return condition, int(label), confidence

    def _or(self) -> Condition:
        parts = [self._and()]
        while self._skip("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Condition:
        parts = [self._not()]
        while self._skip("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"at most {MAX_DEPTH} conditions within one another")
        if self._skip("not"):
            condition: Condition = Not(self._not())
        elif self._skip("("):
            condition = self._or()
            self._require(")", "'and', 'or' or ')'")
        else:
            condition = self._question()
        self._depth -= 1
        return condition

    def _question(self) -> Condition:
        if self._kind not in ("name", "quoted") or self._word in RESERVED:
            self._fail(FEATURE)
        quoted = self._kind == "quoted"
        feature = self._token[1:-1].replace("``", "`") if quoted else self._token
        start = self._start
        self._next()
        if self._skip("("):
            return self._own(feature, start)
        if self._kind == "op":
            return self._comparison(feature)
        if self._skip("is"):
            denied = self._skip("not")
            self._require("missing", "'missing'" if denied else "'missing' or 'not missing'")
            return Not(IsMissing(feature)) if denied else IsMissing(feature)
        denied = self._skip("not")
        if self._skip("in"):
            condition: Condition = self._in(feature)
        elif self._skip("between"):
            condition = self._between(feature)
        else:
            self._fail("'in' or 'between'" if denied else QUESTION)
        return Not(condition) if denied else condition

    def _own(self, name: str, start: int) -> OwnCondition:
        self._require(")", "')': the condition of a package takes no arguments")
        try:
            require("rule", name)
        except ConfigurationError as exc:
            raise RuleError(f"{self._where(start)}: {exc}") from exc
        return OwnCondition(name)

    def _comparison(self, feature: str) -> Comparison:
        operator = "==" if self._token in self._equals else self._token
        if operator == "=":
            self._fail(QUESTION)
        self._next()
        if self._kind == "text" and operator not in ("==", "!="):
            self._fail(TEXT)
        return Comparison(feature, operator, self._value(VALUE))

    def _in(self, feature: str) -> In:
        self._require("{", "'{'")
        values = [self._value(VALUE)]
        kind = str if isinstance(values[0], str) else float
        while self._skip(","):
            if (self._kind == "text") is not (kind is str):
                self._fail("a quoted text, as before" if kind is str else "a number, as before")
            values.append(self._value(VALUE))
        self._require("}", "',' or '}'")
        return In(feature, tuple(values))  # type: ignore[arg-type]  # of one kind: checked above

    def _between(self, feature: str) -> Between:
        low = self._number()
        self._require("and", "'and' with the upper end")
        if self._kind == "number" and float(self._token) < low:
            self._fail(f"a number not below {low!r}")
        return Between(feature, low, self._number())

    def _number(self) -> float:
        if self._kind == "text":
            self._fail(NUMBER)
        return float(self._value(NUMBER))

    def _value(self, expected: str) -> float | str:
        if self._kind == "number" and isfinite(float(self._token)):
            value: float | str = float(self._token)
        elif self._kind == "text":
            mark = self._token[0]
            value = self._token[1:-1].replace(mark * 2, mark)
        else:
            self._fail(expected)
        self._next()
        return value

    def _confidence(self) -> float:
        share = float(self._token) if self._kind == "number" else 0.0
        if not 0 < share <= 1 or round(share * SHARES) / SHARES != share:
            self._fail(CONFIDENCE)
        self._next()
        return share

    @property
    def _word(self) -> str:
        return self._token.lower() if self._kind in ("name", "mark") else ""

    def _skip(self, word: str) -> bool:
        if self._word != word:
            return False
        self._next()
        return True

    def _require(self, word: str, expected: str) -> None:
        if not self._skip(word):
            self._fail(expected)

    def _next(self) -> None:
        match = TOKEN.match(self._text, self._end)
        rest = self._text[self._end :]
        if match is not None and match.lastgroup is not None:
            self._kind, self._token = match.lastgroup, match[match.lastgroup]
            self._start, self._end = match.start(match.lastgroup), match.end()
        else:
            self._kind = "odd" if rest.strip() else "end"
            self._token = rest.split()[0] if rest.strip() else ""
            self._start = len(self._text) - len(rest.lstrip())

    def _fail(self, expected: str, *, rest: bool = False) -> NoReturn:
        token = self._text[self._start :] if rest else self._token
        actual = f"'{token}'" if token else "the end"
        raise RuleError(
            f"{self._where(self._start)}: expected {expected}, found {actual}; "
            "write it like: V14 < -1.5 and amount >= 100 => 1"
        )


def _place(text: str, at: int) -> str:
    """``position 5``, or line and column where the rule has several lines; both from 1."""
    if "\n" not in text.rstrip():
        return f"position {at + 1}"
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}, column {at - before.rfind(chr(10))}"
