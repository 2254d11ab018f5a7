"""Line charts as inline SVG, drawn by pygal: its marks have classes, so the page's own style colours them.

Everything of pygal's that a page of its own would need is taken out: script, style, tool tips and comments.
"""

import math
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from markupsafe import Markup

from nanosft.report.blocks import Figure

_SVG: Final = "http://www.w3.org/2000/svg"
_MAX_POINTS: Final = 400
_WIDTH: Final = 460
_HEIGHT: Final = 230
_NUMBER: Final = re.compile(r"\d+\.\d{2,}")
Points = Sequence[tuple[float, float]]
Scale = Literal["linear", "from zero", "log"]


@dataclass(frozen=True, slots=True)
class Line:
    """Points to draw, joined by a line; with dots where each is a measurement of its own."""

    name: str
    points: Points
    dots: bool = False


def draw_lines(
    caption: str,
    lines: Sequence[Line],
    *,
    scale: Scale = "linear",
    marks: Mapping[float, str] | None = None,
) -> Figure:
    """A chart over steps; what it shows stands in its alternative text too.

    Args:
        caption: Below the chart.
        lines: Points of each; those without any are left out.
        scale: Of the values: from the least, from zero, or logarithmic (points that are not positive are left out).
        marks: Steps to mark by a vertical line, such as resumes, with what happened.
    """
    kept = {line.name: _finite(line.points, positive=scale == "log") for line in lines}
    drawn = [line for line in lines if kept[line.name]]
    lift = math.log10 if scale == "log" else float
    values = [lift(value) for line in drawn for _, value in kept[line.name]]
    chart = _import_pygal().XY(
        js=(),
        css=(),
        width=_WIDTH,
        height=_HEIGHT,
        explicit_size=False,
        disable_xml_declaration=True,
        show_dots=False,
        show_legend=False,
        margin=4,
        include_x_axis=scale == "from zero",
        max_scale=6,
        min_scale=3,
        y_labels=_decades(min(values), max(values)) if values and scale == "log" else None,
        value_formatter=lambda value: f"{value:.4g}",
        x_value_formatter=lambda value: f"{value:g}",
    )
    for line in drawn:
        points = [(step, lift(value)) for step, value in thin(kept[line.name])]
        chart.add(line.name, points, show_dots=line.dots, dots_size=3)
    for step in marks or {}:
        if values:
            chart.add("mark", [(step, 0.0 if scale == "from zero" else min(values)), (step, max(values))])
    description = _describe(caption, [(line.name, kept[line.name]) for line in drawn], marks or {})
    return Figure(
        caption, _clean(chart.render(is_unicode=True), description, len(drawn)), [line.name for line in drawn]
    )


def thin(points: Points, limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """At most about `limit` points: of each bucket the least and the largest, so that no spike is lost."""
    if len(points) <= limit:
        return list(points)
    size = -(-2 * len(points) // limit)
    found = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        found += sorted({min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])})
    return found


def _import_pygal() -> Any:
    """pygal, imported when a chart is drawn: it takes a quarter of a second.

    Its finder of plug-ins, which has no `find_spec` and so warns at every later import of the process, is taken away.
    """
    import pygal  # noqa: PLC0415

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]
    return pygal


def _finite(points: Points, *, positive: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if abs(y) < float("inf") and (y > 0 or not positive)]


def _decades(low: float, high: float) -> list[dict[str, object]]:
    """Labels of a logarithmic axis from 10^low to 10^high: powers of ten, every other one where they are many."""
    first, last = math.floor(low), math.ceil(high)
    step = max(1, (last - first) // 5)
    return [{"label": f"{10.0**power:g}", "value": power} for power in range(first, last + 1, step)]


def _describe(caption: str, lines: Sequence[tuple[str, Points]], marks: Mapping[float, str]) -> str:
    """What the chart shows, in words: from where to where each line goes, and its least and largest value."""
    said = [
        f"{name} from {points[0][1]:.4g} at {points[0][0]:g} to {points[-1][1]:.4g} at {points[-1][0]:g}, "
        f"between {min(y for _, y in points):.4g} and {max(y for _, y in points):.4g}"
        for name, points in lines
    ]
    said += [f"{what} at {step:g}" for step, what in marks.items()]
    return f"{caption}: {'; '.join(said) or 'no points'}"


def _clean(svg: str, description: str, num_lines: int) -> Markup:
    root = ET.fromstring(svg)  # noqa: S314 - made just now, not read from anywhere
    for parent in root.iter():
        for child in list(parent):
            name = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
            overlay = {"text-overlay", "tooltip-overlay"}.intersection(child.get("class", "").split())
            if name in {"defs", "desc", "title", ""} or overlay:
                parent.remove(child)
    for element in root.iter():
        classes = element.get("class", "").split()
        for number in range(num_lines, num_lines + 64):
            if f"serie-{number}" in classes:
                element.set("class", "series mark")
        for key in ("style", "id"):
            element.attrib.pop(key, None)
        for key, value in element.attrib.items():
            element.set(key, _NUMBER.sub(lambda match: f"{float(match[0]):.1f}", value))
    root.set("role", "img")
    root.set("aria-label", description)
    ET.register_namespace("", _SVG)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree escapes what stands in it
