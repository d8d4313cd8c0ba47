"""Draw docs/gallery/*.png, every figure of `trace.plot`, and write docs/gallery.md around them.

python docs/draw_gallery.py runs/default-seed0/imbalanced
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

import imbdyn
from imbdyn.report.figures import SECTIONS

DOCS = Path(__file__).parent

#: Where the default choice is not the one that says most.
CHOSEN = {"recall": {"split": "test"}, "gradient_cosines": {"moment": 2}}

HEAD = """# Gallery

Every figure of `imbdyn report`, as `trace.plot` draws it for a paper: handwritten digits of which five classes are cut
to 1/20, the imbalanced run of `imbdyn run`. Each takes axes (`ax`), and the choices that the page offers. The numbers
are those of the page; `trace.plot.chart(NAME)` returns them, with notes on what was thinned. Made by
[`draw_gallery.py`](draw_gallery.py).

```python
trace = imbdyn.open_trace("runs/default-seed0/imbalanced")
ax = trace.plot.recall(split="test")
ax.figure.savefig("recall.pdf")
```
"""


def main(run: str) -> None:
    trace = imbdyn.open_trace(run)
    text = [HEAD]
    for heading, figures in SECTIONS.items():
        text.append(f"## {heading}\n")
        for figure in figures:
            chosen = CHOSEN.get(figure.name, {})
            ax = getattr(trace.plot, figure.name)(**chosen)
            ax.figure.savefig(DOCS / "gallery" / f"{figure.name}.png", dpi=90)
            plt.close(ax.figure)
            arguments = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
            call = f"trace.plot.{figure.name}({arguments})"
            text.append(f"`{call}`: {figure.reading}\n\n![{figure.title}](gallery/{figure.name}.png)\n")
    (DOCS / "gallery.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
