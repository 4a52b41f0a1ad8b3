"""Draw the Grafana dashboard from a Prometheus, for the picture in docs/monitoring.md.

    python scripts/dashboard_picture.py http://localhost:9090 docs/dashboard.png [--minutes 10]

Sends the queries of serving_config/grafana/dashboards/featurewire.json to Prometheus, draws each
panel at its place in the dashboard, and renders the picture with a headless Chromium. It does not
use Grafana; it shows that every query has a result.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "serving_config" / "grafana" / "dashboards" / "featurewire.json"
COLOURS = ("#5794f2", "#f2495c", "#73bf69", "#ff9830", "#b877d9", "#37872d")
UNIT = 52  # pixels of a column of the dashboard's grid, of 24
ROW = 34
UNITS = {"s": " s", "reqps": "/s", "percentunit": " %", "bytes": " MB"}
FACTORS = {"percentunit": 100, "bytes": 1e-6}

Series = tuple[str, list[tuple[float, float]]]


def ask(server: str, query: str, start: float, end: float) -> list[dict]:
    parameters = {"query": query, "start": start, "end": end, "step": (end - start) / 150}
    address = f"{server}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def series_of(server: str, panel: dict, start: float, end: float) -> list[Series]:
    factor = FACTORS.get(panel["fieldConfig"]["defaults"]["unit"], 1)
    found = []
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "30s").replace("$model", ".*")
        for each in ask(server, query, start, end):
            legend = target["legendFormat"]
            for name in re.findall(r"{{(\w+)}}", legend):
                legend = legend.replace("{{" + name + "}}", each["metric"].get(name, ""))
            points = [(float(at), factor * float(value)) for at, value in each["values"]]
            found.append((legend, [point for point in points if point[1] == point[1]]))
    found = [each for each in found if each[1]]
    return stacked(found) if "stacking" in panel["fieldConfig"]["defaults"]["custom"] else found


def stacked(found: list[Series]) -> list[Series]:
    """Stack each series on the previous ones."""
    total: dict[float, float] = {}
    piled = []
    for legend, points in found:
        total |= {at: total.get(at, 0) + value for at, value in points}
        piled.append((legend, [(at, total[at]) for at, _ in points]))
    return piled


def drawn(panel: dict, found: list[Series], start: float, end: float) -> str:
    """A panel as SVG, at its place in the dashboard."""
    grid = panel["gridPos"]
    x, y, width, height = grid["x"] * UNIT, grid["y"] * ROW, grid["w"] * UNIT, grid["h"] * ROW
    unit = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], "")
    top = max((value for _, points in found for _, value in points), default=0) * 1.1 or 1
    left, right, above, below = 62, 10, 30, 20 + 13 * min(len(found), 4)
    wide, tall = width - 8 - left - right, height - 8 - above - below

    def at(point: tuple[float, float]) -> str:
        across = left + (point[0] - start) / (end - start) * wide
        return f"{across:.1f},{above + tall * (1 - point[1] / top):.1f}"

    parts = [f'<g transform="translate({x},{y})">']
    parts.append(f'<rect width="{width - 8}" height="{height - 8}" rx="3" class="panel"/>')
    parts.append(f'<text x="10" y="18" class="title">{html.escape(panel["title"])}</text>')
    for share in (0, 0.5, 1):
        line = above + tall * (1 - share)
        parts.append(f'<path d="M{left} {line}h{wide}" class="grid"/>')
        parts.append(
            f'<text x="{left - 6}" y="{line + 4}" class="y">{top * share:.3g}{unit}</text>'
        )
    for share in (0, 0.5, 1):
        clock = time.strftime("%H:%M:%S", time.gmtime(start + share * (end - start)))
        anchor = ("start", "middle", "end")[round(2 * share)]
        where = f'x="{left + share * wide}" y="{above + tall + 14}" text-anchor="{anchor}"'
        parts.append(f'<text {where} class="x">{clock}</text>')
    for number, (legend, points) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(map(at, points))
        parts.append(f'<polyline points="{path}" style="stroke:{colour}" class="line"/>')
        if number < 4:
            line = above + tall + 28 + 13 * number
            parts.append(f'<rect x="{left}" y="{line - 8}" width="12" height="3" fill="{colour}"/>')
            parts.append(f'<text x="{left + 18}" y="{line - 3}">{html.escape(legend)}</text>')
    if not found:
        parts.append(
            f'<text x="{left + wide / 2}" y="{above + tall / 2}" class="none">No data</text>'
        )
    return "\n".join([*parts, "</g>"])


STYLE = """
body { margin: 8px; background: #111217 } text { font: 11px sans-serif; fill: #ccccdc }
.panel { fill: #181b1f; stroke: #2c3235 } .title { font: 500 13px sans-serif }
.grid { stroke: #2c3235 } .y { text-anchor: end; fill: #9fa3a8 } .x { fill: #9fa3a8 }
.line { fill: none; stroke-width: 1.5 } .none { text-anchor: middle; fill: #9fa3a8 }
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    end = time.time()
    start = end - 60 * options.minutes
    shapes = [
        drawn(panel, series_of(options.server, panel, start, end), start, end) for panel in panels
    ]
    height = ROW * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    page = (
        f"<style>{STYLE}</style><svg width='{24 * UNIT}' height='{height}'>{''.join(shapes)}</svg>"
    )
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("dashboard_picture: Chromium is not installed")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page)
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            + ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
            + ["--disable-sync", f"--user-data-dir={folder}/profile"]
            + [f"--window-size={24 * UNIT + 16},{height + 16}"]
            + [f"--screenshot={options.picture.absolute()}", path.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
