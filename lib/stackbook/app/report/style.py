"""How a report looks: one style for the page and for the chapters beside it. Text is 14 px at the least."""

from __future__ import annotations

import html
from typing import Any

from stackbook.core.redact import redact

# Nothing is loaded from anywhere and no script runs, whatever a notebook's output or a machine's message holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-src 'self'"

# Blue and vermilion of Okabe and Ito's palette, told apart with any kind of colour vision; each also has a mark.
STYLE = """
:root{--line:#c8c8c8;--quiet:#555;--good:#00527d;--bad:#a33c00;--here:#0072B2;--range:#c9c9c9}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:#111;background:#fff;max-width:62rem;
margin:0 auto;padding:1rem;overflow-wrap:anywhere}h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.3rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.2rem 0 .3rem}p{margin:.4rem 0}a{color:#00527d}
nav a{margin-right:1em;display:inline-block}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0;
font-size:15px}caption{text-align:left;font-weight:600}th,td{text-align:left;vertical-align:top;
padding:.3rem .5rem;border-bottom:1px solid var(--line)}th{font-weight:600;overflow-wrap:normal}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.word{overflow-wrap:normal;white-space:nowrap}.good{color:var(--good);white-space:nowrap}
.bad{color:var(--bad);font-weight:700;white-space:nowrap}.quiet{color:var(--quiet)}
code,pre{font-family:ui-monospace,monospace;font-size:14px}pre{white-space:pre-wrap;background:#f4f4f4;
padding:.6rem;margin:.4rem 0}.box{border:2px solid var(--bad);padding:.2rem 1rem .6rem;margin:1rem 0}
details{margin:.4rem 0}summary{cursor:pointer;padding:.2rem 0}figure{margin:1rem 0}
figcaption{color:var(--quiet)}.scroll{overflow-x:auto}.scroll img{max-width:100%;height:auto;display:block}
.bars{display:grid;grid-template-columns:max-content minmax(6rem,1fr) max-content;gap:.2rem .7rem;
align-items:center;font-size:15px}.bars svg{width:100%;height:24px;display:block}
.bars .n{text-align:right}@media (max-width:36rem){.late{display:none}body{padding:.7rem}
.bars{grid-template-columns:1fr max-content;gap:0 .7rem}.bars>:nth-child(3n+2){grid-column:1/-1;grid-row:auto;
order:0}.bars>:nth-child(3n+1){margin-top:.4rem}.bars{grid-auto-flow:row dense}}
@media (max-width:36rem){th,td{padding:.3rem .25rem}}
@media print{details::details-content{content-visibility:visible;block-size:auto}
body{max-width:none;padding:0;font-size:12pt}nav{display:none}
table,figure,.box{break-inside:auto}tr,figure{break-inside:avoid}h2,h3{break-after:avoid}
a{color:inherit;text-decoration:none}}
"""


def e(value: Any) -> str:
    """A value as text for HTML: secrets masked, markup escaped."""
    return html.escape(redact(str(value)), quote=True)


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole page that loads nothing; `body` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{e(title)}</title><style>{STYLE}{style}</style></head><body>{body}</body></html>"
    )


def outcome(word: str) -> str:
    """An outcome as a mark and a word: colour is not the only thing that tells it."""
    mark = {"passed": "✓", "unchanged": "=", "interrupted": "–", "blocked": "–"}.get(word, "✗")
    return f'<span class="{"good" if word in ("passed", "unchanged") else "bad"}">{mark} {e(word)}</span>'


def seconds(value: float) -> str:
    """A duration: seconds below two minutes, then minutes and seconds.

    >>> seconds(3.14159), seconds(190)
    ('3.1 s', '3 min 10 s')
    """
    return f"{value:.1f} s" if value < 120 else f"{int(value) // 60} min {int(value) % 60:02} s"


def size(count: float) -> str:
    """A number of bytes, in MB.

    >>> size(83501218)
    '83.5 MB'
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
