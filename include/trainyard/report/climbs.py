"""The steps of a sweep: where a server stops serving all that it is asked, and how late the tokens get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from trainyard.report.canvas import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TINY,
    TOP,
    WIDTH,
    Canvas,
    Linear,
    Log,
    css_class,
    say_number,
    say_time,
)


def served(steps: Mapping[str, Sequence[Mapping[str, float]]], tops: Mapping[str, float]) -> Markup | None:
    """Of a sweep: requests a second that were served, over those that came. tops: the knee, an arm."""
    if not any(steps.values()):
        return None
    widest = max(step["offered"] for own in steps.values() for step in own) * 1.05 or 1.0
    told = "; ".join(
        f"{arm}: " + ", ".join(f"{step['served']:g} of {step['offered']:g}" for step in own)
        for arm, own in steps.items()
    )
    canvas = Canvas("Requests served by requests offered", told, Linear(widest, count=5), Linear(widest))
    canvas.axes("requests a second, offered", say_number, say_number)
    # What a server would serve that never stops keeping up.
    canvas.line(canvas.x(0), canvas.y(0), canvas.x(widest), canvas.y(widest), "even")
    for arm, own in steps.items():
        _joined(canvas, arm, [(step["offered"], step["served"]) for step in own])
    _knees(canvas, tops)
    return canvas.render()


def climb(
    steps: Mapping[str, Sequence[Mapping[str, float]]], tops: Mapping[str, float], limit: float | None
) -> Markup | None:
    """Of a sweep: p95 of TTFT, logarithmic, over the requests a second that came."""
    points = {
        arm: [(step["offered"], step["ttft_p95"]) for step in own if step.get("ttft_p95")]
        for arm, own in steps.items()
    }
    every = [point for own in points.values() for point in own]
    if not every:
        return None
    seconds = [value for _, value in every] + ([limit] if limit else [])
    told = "; ".join(
        f"{arm}: {', '.join(f'{say_time(value)} at {offered:g}' for offered, value in own)}"
        for arm, own in points.items()
    )
    canvas = Canvas(
        "p95 of TTFT by requests offered",
        told,
        Linear(max(offered for offered, _ in every) * 1.05, count=5),
        Log(max(TINY, min(seconds) * 0.8), max(seconds) * 1.3),
    )
    canvas.axes("requests a second, offered", say_number, say_time)
    if limit:
        canvas.line(LEFT, canvas.y(limit), WIDTH - RIGHT, canvas.y(limit), "limit")
        canvas.words(LEFT + 4, canvas.y(limit) - 4, "limit")  # the knee is often at the other end
    for arm, own in points.items():
        _joined(canvas, arm, own)
    _knees(canvas, tops)
    return canvas.render()


def _joined(canvas: Canvas, arm: str, points: Sequence[tuple[float, float]]) -> None:
    if points:
        path = "L".join(f"{canvas.x(x)} {canvas.y(y)}" for x, y in points)
        canvas.path(f"curve {css_class(arm)}", f"M{path}")
    for x, y in points:
        canvas.add(
            '<circle class="dot {}" cx="{}" cy="{}" r="3.2"/>', css_class(arm), canvas.x(x), canvas.y(y)
        )


def _knees(canvas: Canvas, tops: Mapping[str, float]) -> None:
    for number, (arm, offered) in enumerate(tops.items()):
        x = canvas.x(offered)
        canvas.line(x, TOP, x, HEIGHT - BOTTOM, f"knee {css_class(arm)}")
        right = x > WIDTH * 0.7
        canvas.words(
            x - 4 if right else x + 4,
            TOP + 10 + 13 * number,
            f"knee {offered:g}/s",
            "end" if right else "start",
        )
