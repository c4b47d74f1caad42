"""The look of report.html: one page, no request to anywhere, light and dark, wide and narrow."""

from __future__ import annotations

from string import Template

STYLE = """
:root { color-scheme: light dark; --ink: #16202b; --soft: #55616e; --page: #f6f7f9; --card: #ffffff; --rule: #dde2e8;
  --good: #0b7a4b; --good-bg: #e3f4ec; --bad: #b3261e; --bad-bg: #fbe9e7; --accent: #1f5fbf; --on-accent: #ffffff;
  --c0: #1f5fbf; --c1: #c2500a; --c2: #0b7a4b; --c3: #8a3fa8; --c4: #0e7c94; --c5: #8a6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ecf2; --soft: #a3afbc; --page: #10151b; --card: #18202a;
  --rule: #2c3744;
  --good: #5fd39c; --good-bg: #12372a; --bad: #ff9d94; --bad-bg: #43201e; --accent: #7db3ff; --on-accent: #0d1319;
  --c0: #7db3ff; --c1: #ffa566; --c2: #5fd39c; --c3: #d9a1f0; --c4: #63d2e8; --c5: #e6c84f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; letter-spacing: -.01em; }
p { margin: .3rem 0 .9rem; max-width: 72ch; }
.soft, caption, figcaption, dt { color: var(--soft); }
.verdict { display: inline-block; margin: .8rem 0; padding: .45rem 1rem; border-radius: .6rem; font-weight: 650; }
.good { color: var(--good); } .bad { color: var(--bad); }
.verdict.good { background: var(--good-bg); } .verdict.bad { background: var(--bad-bg); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.card, figure, .scroll { background: var(--card); border: 1px solid var(--rule); border-radius: .8rem; }
.card { padding: 1rem 1.1rem; }
.card h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.card .big { margin-top: .4rem; font-size: 1.9rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .9rem; margin: .5rem 0 0; font-size: .92rem; }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem;
  align-items: start; }
.many { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr)); gap: 1rem;
  align-items: start; }
.pair .scroll, .many .scroll { margin: 0; }
figure { margin: 0; padding: .8rem .9rem; }
figcaption, caption { font-size: .92rem; text-align: left; font-weight: 600; padding-bottom: .4rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
.axis line { stroke: var(--rule); }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4);
  } .c5 { --c: var(--c5); }
.dot { fill: var(--card); stroke: var(--c); stroke-width: 2; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .5rem 0 0; padding: 0;
  font-size: .85rem; font-variant-numeric: tabular-nums; }
.legend li::before { content: ""; display: inline-block; width: .8em; height: .25em; margin-right: .45em;
  vertical-align: middle; border-radius: 1px; background: currentColor; }
.legend b { font-weight: 600; }
.legend li { color: var(--c); }
.spot { stroke-width: 2; }
.spot.ships { fill: var(--accent); stroke: var(--accent); fill-opacity: .9; }
.spot.tried { fill: var(--card); stroke: var(--accent); stroke-dasharray: 4 3; fill-opacity: .85; }
.spot.failed { fill: var(--bad-bg); stroke: var(--bad); fill-opacity: .9; }
.spot.front { fill: var(--card); stroke: var(--accent); } .spot.chosen { fill: var(--accent); stroke: var(--accent); }
.spot.dominated { fill: var(--page); stroke: var(--rule); } svg .spot.dominated + text.number { fill: var(--soft);
  font-weight: 400; }
svg .spot.chosen + text.number { fill: var(--on-accent); }
tr.dominated td, tr.failed td { color: var(--soft); }
.line.dashed { stroke-dasharray: 6 3; }
svg text.number { fill: var(--ink); font-weight: 700; }
svg .spot.ships + text.number { fill: var(--on-accent); }
.front { fill: none; stroke: var(--accent); stroke-opacity: .45; stroke-width: 2; }
svg line.gate { stroke: var(--bad); stroke-dasharray: 6 4; } svg text.gate { fill: var(--bad); }
.scroll { overflow-x: auto; margin: .6rem 0; padding: .7rem .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child, .text { text-align: left; }
td.wrap { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
.heat td { text-align: center; background: color-mix(in srgb, var(--accent) var(--share, 0%), var(--card)); }
.heat td.strong { color: var(--on-accent); } .heat td.here { outline: 3px solid var(--ink); outline-offset: -3px;
  font-weight: 700; }
.heat th { text-align: center; } .heat .corner { text-align: left; font-weight: 400; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
code { font: .9em ui-monospace, "SFMono-Regular", Consolas, monospace; overflow-wrap: anywhere; }
@media print { body { background: none; } .card, figure, .scroll { break-inside: avoid; } }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def page(title: str, body: str) -> str:
    """The whole document around `body`; `title` is already escaped."""
    return PAGE.substitute(title=title, style=STYLE, body=body)
