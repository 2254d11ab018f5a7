"""Numbers, money and times as people read them."""

from datetime import UTC, datetime


def say_number(value: object) -> str:
    """A number with commas, or four digits of a real one; anything else as it stands; empty for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - below, four digits say it


def say_money(usd: float) -> str:
    """US dollars, with as many digits as small sums need."""
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.6f}".rstrip("0").rstrip(".")


def say_time(seconds: float | None) -> str:
    """A moment in UTC, to the minute; empty for none."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else ""


def say_duration(seconds: float) -> str:
    """Hours, minutes, seconds; the two largest that are not zero."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say_size(size_bytes: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:  # noqa: PLR2004 - the unit's own factor
            return f"{size_bytes:,.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"


def say_share(part: float, whole: float) -> str:
    """A share in percent; empty of nothing."""
    return f"{part / whole:.1%}" if whole else ""
