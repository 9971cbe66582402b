"""The drawing of docs/architecture.md, as SVG: once for light pages, once for dark ones.

GitHub shows the one that fits its theme (a `<picture>` with two sources). Places are pixels.
"""

from collections.abc import Iterator
from html import escape

LIGHT = {
    "page": "#ffffff",
    "room": "#f6f8fa",
    "box": "#ffffff",
    "image": "#ddf4ff",
    "line": "#656d76",
    "text": "#1f2328",
    "soft": "#59636e",
    "same": "#0969da",
}
DARK = {
    "page": "#0d1117",
    "room": "#151b23",
    "box": "#212830",
    "image": "#0c2d6b",
    "line": "#9198a1",
    "text": "#f0f6fc",
    "soft": "#9198a1",
    "same": "#4493f8",
}
WIDTH, HEIGHT = 1000, 660
ALT = (
    "Above: the recipe, your rows, the make verbs and any client. Below, side by side, your "
    "machine and Azure ML: on both the train image makes a model from the rows, the model is "
    "kept, and the serve image answers requests on port 5001 with request handling in one process "
    "and the weights in another. The images on both sides are the same, by digest."
)

Box = tuple[int, int, int, int, str, str, tuple[str, ...]]
"""x, y, width, height, colour, title, lines below it."""

BOXES: tuple[Box, ...] = (
    (20, 20, 220, 78, "room", "Recipe and rows",
     ("recipes/mine.yaml, rows.jsonl", "one form of five")),
    (280, 20, 400, 78, "room", "make …",
     ("the verbs: scripts/, in .venv", "local-… cloud-… ask rehearse doctor")),
    (720, 20, 260, 78, "room", "Clients",
     ("curl, OpenAI and Azure clients,", "the page /playground")),
    (20, 140, 450, 440, "room", "", ()),
    (530, 140, 450, 440, "room", "", ()),
    (50, 190, 390, 96, "image", "train image",
     ("python -m train RECIPE", "rows → tokens → SFT or DPO → merge → check",
      "without Docker: the same in .venv")),
    (560, 190, 390, 96, "image", "train image",
     ("a command job, on a machine of yours", "the same command; goes on after preemption",
      "or the services of Azure: the other three routes")),
    (50, 322, 390, 60, "box", "outputs/<recipe>/<run id>/",
     ("adapter/ merged/ report.html; MLflow’s file",)),
    (560, 322, 390, 60, "box", "registered model", ("the job’s output, by name and version",)),
    (50, 418, 390, 142, "image", "serve image  ·  127.0.0.1:5001",
     ("one container, read-only, no root",)),
    (560, 418, 390, 142, "image", "serve image  ·  managed endpoint",
     ("key, probes, traffic by percent",)),
    (66, 474, 172, 74, "box", "request handling",
     ("azmlinfsrv, score.py", "every dialect, limits")),
    (265, 474, 155, 74, "box", "engine process", ("the weights; torch,", "OpenVINO or vLLM")),
    (576, 474, 172, 74, "box", "request handling",
     ("azmlinfsrv, score.py", "every dialect, limits")),
    (775, 474, 155, 74, "box", "engine process", ("the weights; torch,", "OpenVINO or vLLM")),
)  # fmt: skip

Arrow = tuple[tuple[tuple[int, int], ...], str, str]
"""Its corners, its colour, and what it says."""

ARROWS: tuple[Arrow, ...] = (
    (((240, 59), (278, 59)), "line", ""),
    (((360, 98), (360, 188)), "line", "local-train"),
    (((645, 98), (645, 188)), "line", "cloud-train"),
    (((245, 286), (245, 320)), "line", ""),
    (((245, 382), (245, 416)), "line", "local-serve"),
    (((755, 286), (755, 320)), "line", ""),
    (((755, 382), (755, 416)), "line", "cloud-deploy"),
    (((238, 511), (263, 511)), "line", ""),
    (((748, 511), (773, 511)), "line", ""),
    (((900, 98), (900, 120), (965, 120), (965, 440), (952, 440)), "line", ""),
    (((850, 98), (850, 128), (500, 128), (500, 440), (442, 440)), "line", ""),
)
SAME = ((442, 238, 558), (442, 489, 558))
"""Where the same image is on both sides: x, y, x."""

TEXTS = (
    (36, 166, "title", "Your machine"),
    (546, 166, "title", "Azure ML"),
    (662, 166, "soft", "real, or make rehearse’s local one (emulator/)"),
    (20, 612, "soft", "Ports, all on 127.0.0.1:  5001 the server (PORT)  ·  5050 make track "
     "(TRACK_PORT)  ·  8081, 8082 the local Azure and its registry (REHEARSAL_PORT)"),
    (20, 636, "soft", "Blue boxes are the two images of images/Dockerfile. Dashed: the same on "
     "both sides, named by digest."),
)  # fmt: skip


def drawings() -> dict[str, str]:
    """File name and content of both."""
    return {"architecture.svg": svg(LIGHT), "architecture-dark.svg": svg(DARK)}


def svg(colours: dict[str, str]) -> str:
    body = "\n".join("  " + line for line in _lines(colours))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" \
font-family="-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif">
  <title>How Homeport is built</title>
  <desc>{escape(ALT)}</desc>
  <defs>
    <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4"
        markerWidth="8" markerHeight="8" orient="auto">
      <path d="M0 0 L8 4 L0 8 Z" fill="{colours["line"]}"/>
    </marker>
  </defs>
  <rect width="{WIDTH}" height="{HEIGHT}" fill="{colours["page"]}"/>
{body}
</svg>
"""


def _lines(colours: dict[str, str]) -> Iterator[str]:
    for x, y, width, height, fill, title, below in BOXES:
        yield (
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
            f'fill="{colours[fill]}" stroke="{colours["line"]}"/>'
        )
        if title:
            yield _text(x + 14, y + 24, title, colours["text"], 15, bold=True)
        for number, line in enumerate(below):
            yield _text(x + 14, y + 44 + 19 * number, line, colours["text"], 13)
    for corners, colour, label in ARROWS:
        points = " ".join(f"{x},{y}" for x, y in corners)
        yield (
            f'<polyline points="{points}" fill="none" stroke="{colours[colour]}" '
            'stroke-width="1.5" marker-end="url(#tip)"/>'
        )
        if label:
            (x, y), (_, end) = corners[0], corners[1]
            middle = (y + end) // 2 if end - y < 60 else y + 16
            yield _text(x + 8, middle + 4, label, colours["soft"], 12)
    for left, y, right in SAME:
        yield (
            f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="{colours["same"]}" '
            'stroke-width="2.5" stroke-dasharray="6 4"/>'
        )
    for x, y, kind, text in TEXTS:
        size = 16 if kind == "title" else 12.5
        colour = colours["text" if kind == "title" else "soft"]
        yield _text(x, y, text, colour, size, bold=kind == "title")


def _text(x: int, y: int, text: str, colour: str, size: float, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight} fill="{colour}">{escape(text)}</text>'
