"""One HTML page that needs no network: sections with pictures inside it, text for every picture, light and dark."""

import base64
import dataclasses
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing.canvas import Figure, as_bytes, in_the_dark
from alexnet_jax.drawing.neighbours import Query
from alexnet_jax.drawing.predictions import Answer

PHOTO = 200  # pixels along a side of a photograph in the page, at most
REM_PER_INCH = 7  # a drawing is shown at most so large
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # also the mark of a page of this program
SMALL = 64  # pixels along a side: smaller photographs are stored without loss


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      title: in plain text, as `caption` and `paper`.
      body: HTML.
      caption: what the pictures show, and how they were made.
      paper: what the paper shows in its place; empty: nothing.
    """

    title: str
    body: str
    caption: str
    paper: str = ""


def page(title: str, facts: Iterable[tuple[str, str]], sections: Iterable[Section], left_out: Sequence[str]) -> str:
    """The whole page.

    Args:
      title: of the page.
      facts: of the run, by name.
      sections: in order.
      left_out: lines on what is not in the page.
    """
    css = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    missing = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{css}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl class="facts">{rows}</dl>
</header>
<main>
{"".join(map(_section, sections))}{f"<section><h2>Left out</h2><ul>{missing}</ul></section>" if missing else ""}
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    paper = f'<p class="paper">{escape(section.paper)}</p>\n' if section.paper else ""
    head = f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.caption)}</p>\n{paper}"
    return f"<section>\n{head}{section.body}\n</section>\n"


def charts(figures: Iterable[tuple[Figure, str]]) -> str:
    """Drawings side by side where there is room, in colours for light and for dark pages.

    Args:
      figures: each with its content in words.
    """
    shown = (
        f'<div style="max-width:{REM_PER_INCH * figure.get_figwidth():.0f}rem">{_chart(figure, content)}</div>'
        for figure, content in figures
    )
    return f'<div class="charts">{"".join(shown)}</div>'


def _chart(figure: Figure, content: str) -> str:
    svg = as_bytes(figure, ".svg", transparent=True).decode()
    light, dark = (_embedded("image/svg+xml", drawing.encode()) for drawing in (svg, in_the_dark(svg)))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(content)}"></picture>'
    )


def answers(shown: Iterable[Answer]) -> str:
    """Photographs with the likeliest classes as bars: figure 4's left half, in as many columns as the screen has."""
    return f'<ul class="gallery">{"".join(map(_answer, shown))}</ul>'


def _answer(answer: Answer) -> str:
    said = list(zip(map(readable, answer.classes), answer.probabilities, strict=True))
    truth = "" if answer.truth is None else readable(answer.truth)
    spoken = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in said)
    alt = f"{answer.name}, true class {truth or 'not known'}; the network says {spoken}"
    bars = "".join(
        f'<li{" class=true" if name == truth else ""}><i style="width:{100 * probability:.1f}%"></i>'
        f"<span>{escape(name)}</span><span>{100 * probability:.1f} %</span></li>"
        for name, probability in said
    )
    return (
        f'<li>{_photo(answer.pixels, alt)}<p class="truth">{escape(truth)}</p><ol class="bars">{bars}</ol>'
        f'<p class="name">{escape(answer.name)}</p></li>'
    )


def neighbours(queries: Iterable[Query]) -> str:
    """A row for each test image and its neighbours; on a phone the neighbours lie below the test image."""
    return "\n".join(map(_query, queries))


def _query(query: Query) -> str:
    name = readable(query.truth)
    items = [
        f"<li>{_photo(query.pixels, f'{query.name}, true class {name}: the query')}"
        f"<div>{escape(name)}<br><small>{escape(query.name)}</small></div></li>"
    ]
    for place, neighbour in enumerate(query.neighbours, 1):
        truth, other = readable(neighbour.truth), "" if neighbour.truth == query.truth else " class=other"
        alt = f"neighbour {place}: {neighbour.name}, true class {truth}, at distance {neighbour.distance:.4g}"
        below = f"<div{other}>{escape(truth)}<br><small>{neighbour.distance:.4g}</small></div>"
        items.append(f"<li>{_photo(neighbour.pixels, alt)}{below}</li>")
    return f'<ul class="query">{"".join(items)}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column has names and whose other columns have numbers."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=number' if i else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def percent(share: float) -> str:
    """A share as people read it: `12.34 %`."""
    return f"{100 * share:.2f} %"


def note(text: str) -> str:
    """A paragraph in small letters."""
    return f'<p class="note">{escape(text)}</p>'


def _photo(pixels: UInt8[np.ndarray, "h w 3"], alt: str) -> str:
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((PHOTO, PHOTO))
    small = max(image.size) <= SMALL
    image.save(file, "PNG") if small else image.save(file, "JPEG", quality=85, subsampling=0)
    data = _embedded("image/png" if small else "image/jpeg", file.getvalue())
    return f'<img width="{image.width}" height="{image.height}" alt="{escape(alt)}" src="{data}">'


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
