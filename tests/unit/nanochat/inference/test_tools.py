"""The evaluator agrees with Python on what is in its grammar, and has nothing to say to the rest."""

import operator
import time
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.nanochat import calculate, evaluate_expression

NUMBERS = st.integers(0, 10**6) | st.floats(0, 1e6, allow_nan=False)
OPERATORS: dict[str, Any] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*7", "84"),
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 3 ** 2", "512"),
        ("10 / 4", "2.5"),
        ("7 // 2 - 7 % 3", "2"),
        ("--3", "3"),
        ("1,234 * 2", "2468"),
        (".5 + 1e2", "100.5"),
        ("'strawberry'.count('r')", "3"),
        ('"a,b,c".count(",") + 1', "3"),
        ("'aaa'.count('')", "4"),
    ],
)
def test_values(expression: str, value: str) -> None:
    assert evaluate_expression(expression) == value


@given(NUMBERS, st.sampled_from(sorted(OPERATORS)), NUMBERS)
def test_two_numbers_are_as_in_python(left: float, sign: str, right: float) -> None:
    try:
        value = OPERATORS[sign](left, right)
        expected = str(value) if abs(value) < 1e300 else None
    except ZeroDivisionError:
        expected = None
    assert evaluate_expression(f"{left} {sign} {right}") == expected


@given(st.text(alphabet="0123456789+-*/.() ,", max_size=24))
def test_the_calculator_is_nanochats(expression: str) -> None:
    """Which is Python's own `eval` of an expression of these signs alone, without commas, and without powers."""
    text = expression.replace(",", "")
    try:
        with warnings.catch_warnings(action="ignore"):
            value = None if "**" in text else eval(text)
    except Exception:  # noqa: BLE001 - as it does
        value = None
    assert calculate(expression) == (str(value) if isinstance(value, int | float) else None)


@pytest.mark.parametrize("expression", ["2**3", "7 % 2", "'aa'.count('a')", "1e3", "12*"])
def test_what_nanochats_calculator_does_not_take(expression: str) -> None:
    assert calculate(expression) is None


@pytest.mark.parametrize(
    "expression",
    [
        "", "x", "007", "1 +", "(1", "1)", "1 2", "__import__('os')", "print(1)", "'a' * 9", "'a'",
        "'a'.upper()", "[1]",
        "1/0", "1 % 0", "0 ** -1", "9 ** 9 ** 9", "2 ** 257", "(-8) ** 0.5", "1e300 * 10", "9" * 257,
        "(" * 40 + "1" + ")" * 40,
        "'a'.count(1)", "'a'.count", "1 if 2 else 3", "1; 2", "\u0661 + 1 x", "1e999",
    ],
)  # fmt: skip
def test_what_is_no_expression_has_no_output(expression: str) -> None:
    assert evaluate_expression(expression) is None


@given(st.text(alphabet="0123456789+-*/%().,'\"count e", max_size=256))
def test_anything_ends_at_once_and_without_an_error(expression: str) -> None:
    start_s = time.process_time()
    found = evaluate_expression(expression)
    assert found is None or len(found) < 320
    assert time.process_time() - start_s < 1
