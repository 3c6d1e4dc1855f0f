"""`python -m benchmarks.judge_plots`: the plots of docs/judging.md, from the simulations of `judging`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from benchmarks.judging import Canary, alarms, log_times
from trainyard.report.canvas import HEIGHT, WIDTH, Canvas, Linear, say_number, say_share
from trainyard.rollout.chance import Floats

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
RUNS = 1000
STYLE = Markup(
    "<style>svg{background:#fff}text{font:11px sans-serif;fill:#555}.grid{stroke:#8884;stroke-width:1}"
    ".line{fill:none;stroke-width:2}</style>"
)
COLOURS = ("#888", "#c80", "#2a7", "#27c", "#c33")


def main() -> None:
    write("judge-alarms.svg", soon(), 200, 1.0)
    write("judge-peeking.svg", peeking(), 1000, 0.4)


def soon() -> dict[str, Floats]:
    """Share of canaries stopped after so many pairs; 10 % slower is allowed."""
    return {
        f"{ratio:g} x": stopped(alarms(7, RUNS, 200, Canary(ratio=ratio), 1.1), 200)
        for ratio in (1.0, 1.1, 1.25, 1.5, 2.0)
    }


def peeking() -> dict[str, Floats]:
    """Equal servers, nothing allowed: a test at 5 % asked anew every 50 pairs, and the watch after each."""
    times = log_times(np.random.default_rng(8), RUNS, 1000, Canary(own=0.0))["ttft"]
    ratio = times[0] - times[1]
    looks = np.arange(50, 1001, 50)
    hits = np.zeros((RUNS, 1000), dtype=bool)
    for look in looks:
        seen = ratio[:, :look]
        hits[:, look - 1] = seen.mean(axis=1) / (seen.std(axis=1) / math.sqrt(look)) > 1.645
    naive = np.maximum.accumulate(hits, axis=1).mean(axis=0)
    return {
        "t-test at every look": naive,
        "watch": stopped(alarms(8, RUNS, 1000, Canary(own=0.0), 1.0), 1000),
    }


def stopped(found: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.int64]], pairs: int) -> Floats:
    at = np.asarray(found)
    return np.array([((at > 0) & (at <= pair)).mean() for pair in range(1, pairs + 1)])


def write(name: str, curves: dict[str, Floats], pairs: int, highest: float) -> None:
    told = "; ".join(f"{label}: {curve[-1]:.1%} after {pairs} pairs" for label, curve in curves.items())
    canvas = Canvas("Share of canaries stopped", told, Linear(pairs, count=5), Linear(highest))
    canvas.axes("pairs", say_number, say_share)
    for colour, (label, curve) in zip(COLOURS, curves.items(), strict=False):
        step = max(1, pairs // 200)
        points = "L".join(
            f"{canvas.x(pair + 1)} {canvas.y(min(curve[pair], highest))}" for pair in range(0, pairs, step)
        )
        canvas.add('<path class="line" stroke="{}" d="M{}"/>', colour, points)
        beside = int(np.argmax(curve >= curve[-1] * 0.7))
        at = (canvas.x(beside) + 6, canvas.y(min(curve[beside], highest)) - 4)
        canvas.add('<text x="{}" y="{}" style="fill:{}">{}</text>', *at, colour, label)
    drawn = str(canvas.render()).replace(
        "<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" ', 1
    )
    (PICTURES / name).write_text(drawn.replace("</desc>", f"</desc>{STYLE}", 1) + "\n")
    print(f"docs/pictures/{name}: {told}")


if __name__ == "__main__":
    main()
