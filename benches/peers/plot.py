"""The plot: grouped bars, one group a load, the cost of each peer as a ratio to the best one. SVG by hand."""

from html import escape

# Chosen to stay apart on white and on near-black, and for the colour-blind (after Okabe and Ito); ours stands out.
COLOURS = {
    "lb": "#d55e00",
    "nginx": "#009e73",
    "haproxy": "#0072b2",
    "haproxy-splice": "#56b4e9",
    "haproxy-splice-auto": "#e69f00",
    "tokio": "#999999",
    "envoy": "#cc79a7",
}
STYLE = """
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e }
  .grid { stroke: #d1d9e0 } .one { stroke: #1f2328; stroke-dasharray: 5 4 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #f0f6fc } .soft { fill: #9198a1 }
    .grid { stroke: #3d444d } .one { stroke: #f0f6fc }
  }
  text { font: 12px system-ui, sans-serif } .title { font-size: 16px; font-weight: 600 }
  .value { font-size: 10px } .strong { font-weight: 600 }
"""
BAR, GROUP_GAP = 26, 26
LEFT, TOP, HEIGHT, BOTTOM = 48, 84, 260, 44
# Taller bars are cut off here and say their value: one bad ratio must not flatten all others.
TALLEST = 6.0


def bars(table, loads, peers):
    present = [peer for peer in peers if any(peer.name in table[load.name] for load in loads)]
    groups = [(load, [peer for peer in present if has_ratio(table, load, peer)]) for load in loads]
    ratios = [table[load.name][peer.name].ratio for load, shown in groups for peer in shown]
    top_ratio = min(TALLEST, max([1.5, *ratios]) * 1.05)
    inner = sum(max(len(shown), 2) * BAR + GROUP_GAP for _, shown in groups)
    width = max(LEFT + inner + 16, LEFT + sum(legend_width(peer) for peer in present), 480)
    base = TOP + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{base + BOTTOM}" '
        f'viewBox="0 0 {width} {base + BOTTOM}" role="img" aria-label="Cost of each load for each proxy">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{base + BOTTOM}"/>',
        f'<text class="ink title" x="{LEFT}" y="26">Cost of the same work, best peer = 1 (lower is better)</text>',
        *legend(present),
        *grid(width, base, top_ratio),
    ]
    x = LEFT + GROUP_GAP / 2
    for load, shown in groups:
        for index, peer in enumerate(shown):
            parts += bar(x + index * BAR, base, table[load.name][peer.name], peer, load, top_ratio)
        group_width = max(len(shown), 2) * BAR
        middle = x + group_width / 2
        name, unit = escape(load.name), escape(load.cost_unit)
        parts.append(f'<text class="ink strong" x="{middle:.0f}" y="{base + 18}" text-anchor="middle">{name}</text>')
        parts.append(f'<text class="soft value" x="{middle:.0f}" y="{base + 33}" text-anchor="middle">{unit}</text>')
        x += group_width + GROUP_GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def has_ratio(table, load, peer):
    summary = table[load.name].get(peer.name)
    return summary is not None and summary.ratio is not None


def bar(x, base, summary, peer, load, top_ratio):
    shown = max(0.0, min(summary.ratio, top_ratio))
    height = shown / top_ratio * HEIGHT
    cut = summary.ratio > top_ratio
    label = f"{summary.ratio:.1f}↑" if cut else f"{summary.ratio:.2f}"
    tip = escape(f"{peer.title}, {load.name}: {summary.cost:.2f} {load.cost_unit}")
    emphasis = " strong" if peer.name == "lb" else ""
    return [
        f'<rect x="{x + 1:.1f}" y="{base - height:.1f}" width="{BAR - 3}" height="{height:.1f}" rx="2" '
        f'fill="{COLOURS[peer.name]}"><title>{tip}</title></rect>',
        f'<text class="ink value{emphasis}" x="{x + BAR / 2 - 0.5:.1f}" y="{base - height - 4:.1f}" '
        f'text-anchor="middle">{label}</text>',
    ]


def grid(width, base, top_ratio):
    step = 0.5 if top_ratio <= 3 else 1.0
    lines, value = [], 0.0
    while value <= top_ratio:
        y = base - value / top_ratio * HEIGHT
        kind = "one" if value == 1 else "grid"
        lines.append(f'<line class="{kind}" x1="{LEFT}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="soft" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        value += step
    return lines


def legend_width(peer):
    return 30 + 7 * len(peer.title)


def legend(present):
    parts, x = [], LEFT
    for peer in present:
        parts.append(f'<rect x="{x}" y="43" width="12" height="12" rx="2" fill="{COLOURS[peer.name]}"/>')
        parts.append(f'<text class="ink" x="{x + 17}" y="53">{escape(peer.title)}</text>')
        x += legend_width(peer)
    return parts
