"""HTML by elements: what is not an element itself is escaped, wherever it came from."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from ddgan_jax.errors import printable
from ddgan_jax.viz import charts

EMPTY = ("hr", "img", "meta")  # elements that hold nothing and are not closed

STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #667085; --rule: #e4e7ec;
  --page: #f6f7f9; --card: #ffffff; --accent: #2563b8; --wash: #e8effa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --rule: #2b313d; --page: #0f1217; --card: #171b22;
    --accent: #6ea8fe; --wash: #1b2a44; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 12px; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 10px 0; max-width: 72ch; }
.soft, figcaption, th, dt { color: var(--soft); }
.badge { display: inline-block; padding: 1px 10px; border-radius: 99px; background: var(--wash);
  color: var(--accent); font-size: 13px; font-weight: 600; vertical-align: 4px; margin-left: 8px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 16px; margin: 0; min-width: 0; overflow-x: auto; }
.hero { display: grid; grid-template-columns: minmax(0, 1fr) minmax(260px, 440px); gap: 16px;
  margin-top: 24px; align-items: start; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 16px; }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 16px; }
figure { margin: 0; }
figcaption { font-size: 13px; margin-top: 8px; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 6px 20px; margin: 0; }
dt { overflow-wrap: anywhere; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px;
  width: 100%; }
th { text-align: left; font-weight: 500; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.numbers td + td, .numbers th + th { text-align: right; }
.value { font-size: 17px; font-weight: 600; }
hr { border: 0; border-top: 1px solid var(--rule); margin: 14px 0; }
hr + dl { font-size: 13px; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--accent); margin-bottom: 8px; }
.columns { columns: 3 300px; column-gap: 24px; }
.columns > div { break-inside: avoid; padding-bottom: 18px; }
.columns dl { font-size: 13px; gap: 2px 14px; grid-template-columns: 3fr 2fr; }
footer { margin-top: 48px; font-size: 13px; color: var(--soft); }
@media (max-width: 760px) { .hero { grid-template-columns: minmax(0, 1fr); } }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""


class Html(str):
    """Text that is HTML already."""


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """<name attributes>children</name>; children that are not Html are text, and escaped.

    Attributes are escaped too; class_ is written class.
    """
    written = "".join(
        f' {key.rstrip("_")}="{_escaped(value)}"' for key, value in attributes.items()
    )
    if name in EMPTY:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """One after the other, those that are not Html escaped."""
    return Html("".join(c if isinstance(c, Html) else _escaped(c) for c in children))


def _escaped(value: Any) -> str:
    """Return the text of a value without markup and without characters that nobody sees."""
    return html.escape(printable(str(value)))


def picture(png: bytes, about: str) -> Html:
    """A PNG file inside the page. about: for those who do not see it."""
    content = base64.b64encode(png).decode()
    return element("img", src=f"data:image/png;base64,{content}", alt=about)


def definitions(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """Names and what they stand for, in two columns."""
    parts = (join((element("dt", name), element("dd", what))) for name, what in pairs)
    return element("dl", *parts)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, numbers: bool = False) -> Html:
    """A table; with `numbers` all columns but the first are aligned to the right."""
    body = (element("tr", *(element("td", cell) for cell in row)) for row in rows)
    titles = element("tr", *(element("th", cell, scope="col") for cell in head))
    parts = (element("thead", titles), element("tbody", *body))
    return element("table", *parts, class_="numbers" if numbers else "plain")


def folded(title: str, *content: Html) -> Html:
    """Content that a click on the title shows."""
    return element("details", element("summary", title), *content)


def page(title: str, *content: Html) -> str:
    """A whole page that needs no other file."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE + charts.STYLE)),
    )
    body = element("body", element("main", *content))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"
