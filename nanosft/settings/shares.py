"""Values with shares, as settings have them: `--model a=3 --model b`, `--languages en:0.9,de:0.1`."""

import re
from collections.abc import Iterable
from fractions import Fraction
from math import gcd, lcm
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

DEFAULT_LANGUAGES: Final = ("en",)
LANGUAGES_HELP: Final = "Languages by their shares of the rows, such as en:0.9,de:0.1; offline writes English alone."
MODEL_HELP: Final = "The model's slug; repeated, rows are dealt to several: slug=3 has three times the share of slug=1."
_MAX_PARTS: Final = 100
_SHARE: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_SLUG: Final = re.compile(r"[!-<>-~]+")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


def split_models(items: Iterable[str]) -> dict[str, int]:
    """Whole shares by slug, of items that are a slug or slug=share; a slug may hold colons.

    Raises:
        ValueError: An item is neither, or a slug stands twice.
    """
    return _split(items, separators="=", name=_SLUG, what="a model is written slug or slug=share")


def split_languages(items: Iterable[str]) -> dict[str, int]:
    """Whole shares by language, of items such as `en`, `de:0.1` and `de=0.1`. Raises as `split_models`."""
    parts = [part.strip() for item in items for part in item.split(",") if part.strip()]
    return _split(parts, separators=":=", name=_LANGUAGE, what="a language is written en, or en:0.9 with its share")


def _split(items: Iterable[str], *, separators: str, name: re.Pattern[str], what: str) -> dict[str, int]:
    shares: dict[str, Fraction] = {}
    for item in items:
        at = max(item.rfind(separator) for separator in separators)
        value, share = (item, "1") if at < 0 else (item[:at], item[at + 1 :])
        if not name.fullmatch(value) or not _SHARE.fullmatch(share) or not Fraction(share):
            raise ValueError(f"{item!r}: {what}")
        if value in shares:
            raise ValueError(f"{value} stands twice")
        shares[value] = Fraction(share)
    if not shares:
        raise ValueError(what)
    scale = lcm(*(share.denominator for share in shares.values()))
    whole = {value: int(share * scale) for value, share in shares.items()}
    common = gcd(*whole.values())
    whole = {value: share // common for value, share in whole.items()}
    if sum(whole.values()) > _MAX_PARTS:
        raise ValueError(f"shares of {sum(whole.values()):,} parts: write whole percent at most, such as 0.67 and 0.33")
    return whole


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_models(items: tuple[str, ...]) -> tuple[str, ...]:
    split_models(items)
    return items


def _check_languages(items: tuple[str, ...]) -> tuple[str, ...]:
    split_languages(items)
    return items


Models = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_check_models)]
Languages = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_check_languages)]
