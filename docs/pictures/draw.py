"""Draws the pictures of the documentation: `python docs/pictures/draw.py` writes the .svg files beside it.

Each picture brings its own background and both of its colour schemes, so that it is readable on a light page,
on a dark one, and where the page and the system disagree.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

STYLE = """
  svg { --page: #ffffff; --text: #1f2328; --soft: #59636e; --line: #6e7781; --box: #f6f8fa; --edge: #8c959f;
        --pod: #ddf4ff; --podedge: #0969da; --wait: #fff8c5; --waitedge: #9a6700;
        --end: #ffebe9; --endedge: #cf222e; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #0d1117; --text: #e6edf3; --soft: #9da7b3; --line: #8b949e; --box: #161b22; --edge: #6e7681;
          --pod: #10243d; --podedge: #4493f8; --wait: #2b2410; --waitedge: #d29922;
          --end: #301416; --endedge: #f85149; }
  }
  .page { fill: var(--page); }
  text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: var(--text); }
  .name { font-weight: 600; } .sub { font-size: 11.5px; fill: var(--soft); }
  .head { font-size: 13px; font-weight: 600; }
  .now { fill: var(--box); stroke: var(--edge); } .pod { fill: var(--pod); stroke: var(--podedge); }
  .wait { fill: var(--wait); stroke: var(--waitedge); } .end { fill: var(--end); stroke: var(--endedge); }
  .frame { fill: none; stroke: var(--edge); stroke-dasharray: 5 4; }
  .arrow { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#tip); }
  .rail { fill: none; stroke: var(--line); stroke-width: 1.5; }
  .fail { fill: none; stroke: var(--endedge); stroke-width: 1.5; stroke-dasharray: 6 4;
          marker-end: url(#bad); }
  #tip path { fill: var(--line); } #bad path { fill: var(--endedge); }
"""


class Picture:
    """Boxes, arrows and words on a grid of pixels."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        tip = '<marker id="{}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            f"<style>{STYLE}</style>",
            "<defs>",
            *(
                f'{tip.format(name)} orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker>'
                for name in ("tip", "bad")
            ),
            "</defs>",
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        ]

    def box(
        self, x: int, y: int, width: int, height: int, name: str, sub: str = "", kind: str = "now"
    ) -> None:
        self.lines.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')
        middle = x + width // 2
        self.words(middle, y + height // 2 + (-3 if sub else 5), name, "name", "middle")
        if sub:
            self.words(middle, y + height // 2 + 15, sub, "sub", "middle")

    def frame(self, x: int, y: int, width: int, height: int, head: str) -> None:
        self.lines.append(f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        self.words(x + 12, y + 20, head, "head")

    def words(self, x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> None:
        self.lines.append(
            f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[int, int], kind: str = "arrow") -> None:
        path = " L".join(f"{x} {y}" for x, y in points)
        self.lines.append(f'<path class="{kind}" d="M{path}"/>')

    def svg(self) -> str:
        return "\n".join([*self.lines, "</svg>", ""])


def pipeline() -> str:
    """The DAG `model_release`: one box a task."""
    wide, high, gap, left = 142, 50, 20, 20
    picture = Picture(
        990, 690, "The pipeline of a release",
        "plan, fetch_model, check_capacity, compile beside compile_node, publish; canary, canary_ready "
        "beside canary_node, device_health, warm_up, load_test, judge; up to four steps, promote, "
        "drain_previous. "
        "Any failure leads to roll_back. record always runs.",
    )  # fmt: skip

    def at(column: int) -> int:
        return left + column * (wide + gap)

    def row(y: int, *boxes: tuple[str, str, str]) -> None:
        for column, (name, sub, kind) in enumerate(boxes):
            picture.box(at(column), y, wide, high, name, sub, kind)
            if column:
                picture.arrow((at(column) - gap, y + high // 2), (at(column) - 2, y + high // 2))

    def beside(column: int, y: int, name: str, sub: str) -> None:
        """A second box below the one at (column, y), between the same neighbours."""
        below, middle = y + high + 14, y + high // 2
        picture.box(at(column), below, wide, high, name, sub, "wait")
        lower = below + high // 2
        picture.arrow((at(column) - 10, middle), (at(column) - 10, lower), (at(column) - 2, lower))
        end = at(column) + wide
        picture.arrow((end, lower), (end + 10, lower), (end + 10, middle), kind="rail")

    def turn(start: int, y: int, rail: int, below: int) -> None:
        """From the end of a row to the beginning of the next."""
        middle = at(start) + wide // 2
        first = at(0) + wide // 2
        picture.arrow((middle, y + high), (middle, rail), (first, rail), (first, below - 2))

    for column, (name, sub) in enumerate(
        [
            ("model_refresh", "a schedule"),
            ("Airflow's UI, REST", "a person, a system"),
            ("trainyard release", "a terminal"),
        ]
    ):
        picture.box(at(column), 20, wide, high, name, sub)
        if column:
            middle = at(column) + wide // 2
            picture.arrow((middle, 20 + high), (middle, 92), (at(0) + wide // 2, 92), kind="rail")
    picture.arrow((at(0) + wide // 2, 20 + high), (at(0) + wide // 2, 112))

    y1, y2, y3, y4 = 114, 286, 458, 570
    row(
        y1, ("plan", "pin, check, lease", "now"), ("fetch_model", "Hub to S3, verified", "pod"),
        ("check_capacity", "pool, limits, EC2", "wait"), ("compile", "AWS's image, trn2", "pod"),
        ("publish", "bundle in S3", "now"),
    )  # fmt: skip
    beside(3, y1, "compile_node", "follows its node")
    turn(4, y1, 262, y2)
    row(
        y2, ("canary", "Deployment, Service", "now"), ("canary_ready", "a real generation", "wait"),
        ("device_health", "neuron-monitor", "now"), ("warm_up", "until it settles", "pod"),
        ("load_test", "beside the baseline", "pod"), ("judge", "SLOs and baseline", "now"),
    )  # fmt: skip
    beside(1, y2, "canary_node", "follows its node")
    turn(5, y2, 434, y3)
    row(
        y3, ("step_1", "say 5 % of traffic", "pod"), ("step_2", "say 25 %", "pod"),
        ("step_3", "say 50 %", "pod"), ("step_4", "if the spec has it", "pod"),
        ("promote", "no restart", "now"), ("drain_previous", "streams finish", "wait"),
    )  # fmt: skip
    picture.box(at(4), y4, wide, high, "roll_back", "only if not promoted", "end")
    picture.box(at(5), y4, wide, high, "record", "always", "end")
    picture.arrow((at(5) - gap, y4 + high // 2), (at(5) - 2, y4 + high // 2))
    picture.arrow(
        (at(5) + wide // 2, y3 + high),
        (at(5) + wide // 2, 540),
        (at(4) + wide // 2, 540),
        (at(4) + wide // 2, y4 - 2),
    )
    picture.words(at(2) - 66, y4 + 21, "Any failure, or a person who stops the run", "head")
    picture.arrow((at(2) - 66, y4 + 31), (at(4) - 4, y4 + 31), kind="fail")

    picture.words(left, 657, "A task is one of:", "sub")
    for column, (name, kind) in enumerate(
        [
            ("done at once", "now"),
            ("work in a pod", "pod"),
            ("waits, holds no worker", "wait"),
            ("runs whatever happened", "end"),
        ]
    ):
        picture.box(126 + column * 212, 640, 196, 28, name, "", kind)
    return picture.svg()


def architecture() -> str:
    """Layers on the left, what they talk to on the right."""
    picture = Picture(
        990, 690, "Layers and seams",
        "dags, trainyard_airflow, stages, capabilities and data; three seams: Kubernetes API, S3, the Hub; "
        "pods run the jobs and the servers. On one machine, local stands in for the cluster.",
    )  # fmt: skip
    left, width = 20, 500
    picture.frame(left, 20, width, 388, "Airflow's processes (scheduler, triggerer, DAG processor)")
    x, inner = left + 16, width - 32
    picture.box(x, 54, inner, 50, "dags/", "model_release, model_refresh: one thin file each")
    picture.box(x, 126, inner, 50, "trainyard_airflow", "operators, one trigger, errors into Airflow's words")
    picture.box(x, 198, inner, 50, "trainyard.stages", "one idempotent file a stage")
    sixth = (inner - 5 * 8) // 6
    for column, (name, sub, kind) in enumerate(
        [("neuron", "pure", "now"), ("rollout", "pure", "now"), ("bench", "load", "now"),
         ("hub", "HTTP", "pod"), ("store", "botocore", "pod"), ("kube", "client", "pod")]
    ):  # fmt: skip
        picture.box(x + column * (sixth + 8), 270, sixth, 50, name, sub, kind)
    picture.box(x, 342, inner, 50, "trainyard.{spec, release, errors}", "plain data; nothing below")
    picture.box(
        x,
        434,
        inner,
        50,
        "trainyard.jobs",
        "one zipapp in the pods: fetch, compile, materialise, warm-up, load test",
        "wait",
    )
    for y in (104, 176, 248, 320):
        picture.arrow((x + inner // 2, y), (x + inner // 2, y + 20))

    right = 600
    picture.frame(right, 20, 370, 478, "Seams")
    seam, room = right + 16, 338
    picture.box(seam, 54, room, 64, "Hugging Face Hub", "revision to SHA, files with digests", "pod")
    picture.box(seam, 158, room, 64, "S3", "blobs, bundles, ledger, channels, leases", "pod")
    picture.box(seam, 262, room, 64, "Kubernetes API", "pods, Deployments, HTTPRoutes, NodeClaims", "pod")
    picture.box(seam, 366, room // 2 - 8, 110, "Job pods", "CPU or Neuron", "wait")
    picture.box(seam + room // 2 + 8, 366, room // 2 - 8, 110, "Server pods", "behind the Gateway", "wait")
    picture.arrow((seam + 81, 326), (seam + 81, 364))
    picture.arrow((seam + 257, 326), (seam + 257, 364))
    for column, target, rail in ((3, 86, 536), (4, 190, 552), (5, 294, 568)):
        start = x + column * (sixth + 8) + sixth // 2
        lane = 256 + (column - 3) * 4
        if column == 5:
            picture.arrow((x + inner, 294), (seam - 2, 294))
        else:
            picture.arrow((start, 270), (start, lane), (rail, lane), (rail, target), (seam - 2, target))
    picture.arrow((seam - 4, 451), (x + inner + 2, 451))
    picture.words(540, 443, "run", "sub")

    picture.frame(20, 520, 950, 150, "What stands behind the seams")
    picture.words(36, 570, "On a cluster", "name")
    picture.words(36, 612, "On one machine", "name")
    for column, (cluster, machine) in enumerate(
        [
            ("EKS and Karpenter", "local/apiserver and others"),
            ("a Gateway", "Traefik"),
            ("Trainium nodes", "shims, a timing model"),
            ("Amazon S3", "SeaweedFS"),
            ("huggingface.co", "local/hub"),
        ]
    ):
        start = (166, 376, 486, 664, 784)[column]
        picture.words(start, 570, cluster)
        picture.words(start, 612, machine)
    picture.words(
        36, 648, "The code above the seams is the same. Settings and connections say where things are.", "sub"
    )
    return picture.svg()


PICTURES = {"pipeline.svg": pipeline, "architecture.svg": architecture}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        Path(__file__).with_name(file).write_text(draw(), encoding="utf-8")
