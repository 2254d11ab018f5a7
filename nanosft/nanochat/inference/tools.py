"""What a model may compute in python tags: sums of numbers, and how often some text occurs in another. Torch-free.

    expression = term (("+" | "-") term)*
    term       = factor (("*" | "/" | "//" | "%") factor)*
    factor     = ("+" | "-") factor | atom ("**" factor)?
    atom       = number | "(" expression ")" | string ".count(" string ")"

Our own grammar, nothing is run: an expression is at most 256 characters long and 32 levels deep, a number stays below
10^300, and an exponent is at most 256. What is none of it, or has no value, has no output, and the model goes on.
"""

import math
import re
from collections.abc import Callable
from typing import Final

from nanosft.nanochat.tokenizer import Tokenizer

_MAX_TOKENS: Final = 256
"""Of an expression: a model that never ends one is no longer listened to."""
_MAX_CHARS: Final = 256
_MAX_DEPTH: Final = 32
_MAX_EXPONENT: Final = 256
_LIMIT: Final = 10**300
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)"
    r"|(?P<string>'[^'\\\n]*'|\"[^\"\\\n]*\")"
    r"|(?P<sign>\*\*|//|\.count|[-+*/%()]))\s*"
)

_CALCULATOR_CHARS: Final = frozenset("0123456789*+-/.() ")

_Number = int | float
Evaluate = Callable[[str], str | None]


class ToolUse:
    """Watches the tokens of one answer for python tags, and says what their output is.

    Args:
        tokenizer: Knows the tags.
        evaluate: The value of an expression as text; None: there is none.
    """

    def __init__(self, tokenizer: Tokenizer, evaluate: Evaluate) -> None:
        self._tokenizer = tokenizer
        self._evaluate = evaluate
        self._expression: list[int] | None = None

    def read(self, token: int) -> list[int]:
        """Take the next token that the model chose; what is to be forced after it, mostly nothing."""
        tokenizer = self._tokenizer
        if token == tokenizer.python_start_id:
            self._expression = []
        elif token == tokenizer.python_end_id and self._expression is not None:
            expression, self._expression = tokenizer.decode(self._expression), None
            output = self._evaluate(expression)
            if output is not None:
                return [tokenizer.output_start_id, *tokenizer.encode(output), tokenizer.output_end_id]
        elif self._expression is not None:
            self._expression.append(token)
            if len(self._expression) > _MAX_TOKENS:
                self._expression = None
        return []


def calculate(expression: str) -> str | None:
    """The value where nanochat's own calculator has one, which takes sums without powers, and nothing else.

    Its output is ours to the character, but for an empty pair of parentheses, which is a value to it, and for numbers
    and expressions beyond the bounds above.
    """
    text = expression.replace(",", "")
    return evaluate_expression(text) if "**" not in text and _CALCULATOR_CHARS.issuperset(text) else None


def evaluate_expression(expression: str) -> str | None:
    """The value as Python would print it; None where there is none."""
    text = expression.replace(",", "") if "count" not in expression else expression  # 1,000 is a number to a model
    if len(text) > _MAX_CHARS:
        return None
    try:
        return str(_Parser(text).parse())
    except (_NoValueError, ZeroDivisionError, OverflowError, ValueError):
        return None


class _NoValueError(Exception):
    """The text is no expression, or its value is out of bounds."""


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise _NoValueError
            kind = match.lastgroup
            assert kind is not None
            self._tokens.append((kind, match[kind]))
            place = match.end()
        self._place = self._depth = 0

    def parse(self) -> _Number:
        value = self._sum()
        if self._place < len(self._tokens):
            raise _NoValueError
        return value

    def _sum(self) -> _Number:
        value = self._product()
        while (sign := self._take("+", "-")) is not None:
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> _Number:
        value = self._factor()
        while (sign := self._take("*", "/", "//", "%")) is not None:
            other = self._factor()
            if sign == "*":
                value = _bounded(value * other)
            elif sign == "/":
                value = _bounded(value / other)
            elif sign == "//":
                value = _bounded(value // other)
            else:
                value = _bounded(value % other)
        return value

    def _factor(self) -> _Number:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NoValueError
        sign = self._take("+", "-")
        if sign is not None:
            value = self._factor()
            value = -value if sign == "-" else value
        else:
            value = self._atom()
            if self._take("**") is not None:
                value = _power(value, self._factor())
        self._depth -= 1
        return value

    def _atom(self) -> _Number:
        if self._take("(") is not None:
            value = self._sum()
            self._need(")")
            return value
        kind, text = self._next()
        if kind == "string":
            self._need(".count")
            self._need("(")
            kind, wanted = self._next()
            if kind != "string":
                raise _NoValueError
            self._need(")")
            return text[1:-1].count(wanted[1:-1])
        if kind != "number":
            raise _NoValueError
        if not text.isdigit():
            return _bounded(float(text))
        if text[0] == "0" and text.strip("0"):
            raise _NoValueError  # 007 is no number to Python
        return _bounded(int(text))

    def _take(self, *signs: str) -> str | None:
        if self._place < len(self._tokens):
            kind, text = self._tokens[self._place]
            if kind == "sign" and text in signs:
                self._place += 1
                return text
        return None

    def _need(self, sign: str) -> None:
        if self._take(sign) is None:
            raise _NoValueError

    def _next(self) -> tuple[str, str]:
        if self._place >= len(self._tokens):
            raise _NoValueError
        self._place += 1
        return self._tokens[self._place - 1]


def _power(base: _Number, exponent: _Number) -> _Number:
    if abs(exponent) > _MAX_EXPONENT or (base != 0 and abs(exponent * math.log10(abs(base))) > math.log10(_LIMIT)):
        raise _NoValueError
    value = base**exponent
    if isinstance(value, complex):
        raise _NoValueError
    return _bounded(value)


def _bounded(value: _Number) -> _Number:
    if not abs(value) < _LIMIT:
        raise _NoValueError
    return value
