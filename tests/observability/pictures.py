"""The dashboards drawn in headless Chromium with what Prometheus has: each panel shows data.

Grafana itself is in no package of Debian. The panels stand where the shipped files put them and show what their queries find, as
lines or as one number; the page counts what was painted of each, so that a panel whose data is there and is not seen is noticed.
"""

import html
import json
import math
import re
import time

from cluster import expect

# Of the page: one unit of Grafana's grid is a 24th of the width, and so high.
WIDTH, UNIT = 1440, 30
# Points of a line.
POINTS = 120
# Pixels that the thinnest line or the smallest number paints at least.
PAINTED = 20

PAGE = """<!doctype html><meta charset="utf-8"><title>%(title)s</title>
<style>
body { margin: 0; font: 12px sans-serif; background: #fff; color: #222; position: relative; height: %(height)spx }
section { position: absolute; box-sizing: border-box; border: 1px solid #ddd; padding: 4px; overflow: hidden }
h2 { font-size: 12px; margin: 0 } h3 { margin: 0; border: 0 } canvas { display: block } small { color: #555 }
</style>
<body>%(panels)s
<script>
const colours = ["#3274d9", "#e0752d", "#299c46", "#a352cc", "#c4162a", "#8ab8ff", "#8f6d00", "#0a437c"];
for (const { id, kind, series } of %(data)s) {
  const canvas = document.getElementById(id), context = canvas.getContext("2d"), { width, height } = canvas;
  const values = series.flatMap((one) => one.points.map((point) => point[1]));
  const times = series.flatMap((one) => one.points.map((point) => point[0]));
  const [low, high] = [Math.min(0, ...values), Math.max(...values)];
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const x = (time) => 4 + ((time - first) / (last - first || 1)) * (width - 8);
  const y = (value) => height - 4 - ((value - low) / (high - low || 1)) * (height - 8);
  series.forEach(({ points }, number) => {
    context.strokeStyle = context.fillStyle = colours[number %% colours.length];
    if (kind === "stat") {
      context.font = "40px sans-serif";
      context.fillText(Number(points.at(-1)[1].toPrecision(4)), 4 + number * 200, height / 2);
      return;
    }
    context.lineWidth = 1.5;
    context.beginPath();
    for (const [time, value] of points) {
      context.lineTo(x(time) - 1, y(value));
      context.lineTo(x(time) + 1, y(value));
    }
    context.stroke();
  });
  const pixels = context.getImageData(0, 0, width, height).data;
  let painted = 0;
  for (let at = 3; at < pixels.length; at += 4) painted += pixels[at] > 0;
  canvas.dataset.painted = painted;
}
</script>"""


def series_of(prometheus, target, fill, since, now):
    """Lines of finite values, with the names that the panel gives them."""
    step = max(1, math.ceil((now - since) / POINTS))
    found = prometheus.ask("query_range", query=fill(target["expr"]), start=since, end=now, step=step)["result"]
    for one in found:
        points = [[at, float(value)] for at, value in one["values"] if math.isfinite(float(value))]
        if points:
            legend = target.get("legendFormat") or " ".join(one["metric"].values()) or target["expr"]
            name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda label: one["metric"].get(label[1], ""), legend)
            yield {"name": name, "points": points}


def check(dashboard, prometheus, browser, fill, since, skipped):
    """Draws a dashboard: how many panels of it were looked at."""
    title, now = dashboard["title"], time.time()
    drawn, sections, bottom = [], [], 0
    for number, panel in enumerate(dashboard["panels"]):
        at = panel["gridPos"]
        left, top, width, height = at["x"] * WIDTH // 24, at["y"] * UNIT, at["w"] * WIDTH // 24, at["h"] * UNIT
        bottom = max(bottom, top + height)
        place = f'style="left:{left}px;top:{top}px;width:{width}px;height:{height}px"'
        if panel["type"] == "row":
            sections.append(f"<section {place}><h3>{html.escape(panel['title'])}</h3></section>")
            continue
        series = [line for target in panel["targets"] for line in series_of(prometheus, target, fill, since, now)]
        names = ", ".join(dict.fromkeys(line["name"] for line in series))
        canvas = f'<canvas id="p{number}" width="{width - 10}" height="{height - 60}"></canvas>'
        sections.append(
            f"<section {place}><h2>{html.escape(panel['title'])}</h2>{canvas}<small>{html.escape(names)}</small></section>")
        if panel["title"] not in skipped:
            drawn.append({"id": f"p{number}", "title": panel["title"], "kind": panel["type"], "series": series})
    # `<` could end the script.
    data = json.dumps(drawn).replace("<", "\\u003c")
    page = browser.folder / f"{re.sub(r'[^a-z]+', '-', title.lower())}.html"
    page.write_text(PAGE % {"title": html.escape(title), "height": bottom, "panels": "".join(sections), "data": data})
    size = f"--window-size={WIDTH},{bottom}"
    console, _ = browser.draw(page.stem, page.as_uri(), size)
    expect(not console, f"{title}: the console says {console}")
    shown, _ = browser.run(size, "--dump-dom", page.as_uri())
    painted = {name: int(count) for name, count in re.findall(r'<canvas id="(p\d+)"[^>]*data-painted="(\d+)"', shown)}
    blank = [panel["title"] for panel in drawn if painted.get(panel["id"], 0) < PAINTED]
    expect(not blank, f"{title}: nothing is seen in {blank}")
    return len(drawn)
