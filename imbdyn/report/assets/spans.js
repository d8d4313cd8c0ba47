// Two values for each class on one axis, joined by a line, with the interval of the second.
"use strict";

class SpansPanel {
  constructor(figure, chart, name) {
    Object.assign(this, { figure, chart, name });
    this.tip = dom.html("div", { class: "tip", hidden: true });
    this.svg = dom.svg("svg", { class: "chart", role: "img", "aria-label": `${figure.title}, ${name}. ${chart.summary}` });
    this.element = dom.html("div", { class: "plot" }, this.svg, this.tip);
    this.svg.addEventListener("pointerleave", () => this.leave());
  }

  shown() {
    return this.chart.spans.filter((span) => !this.figure.hidden.has(span.key));
  }

  draw(width) {
    this.width = width;
    const { chart } = this;
    const shown = this.shown();
    const longest = Math.max(3, ...shown.map((span) => Math.min(14, span.label.length)));
    const rowHeight = shown.length > 24 ? 14 : 20;
    const margin = { top: 8, right: 14, bottom: 40, left: 12 + 6.6 * longest };
    const height = margin.top + margin.bottom + rowHeight * Math.max(1, shown.length);
    const bottom = height - margin.bottom;
    const scale = scales.make([chart.x.lower, chart.x.upper], [margin.left + 6, width - margin.right], false);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const axes = dom.svg("g", { class: "axes", "aria-hidden": "true" });
    for (const tick of scale.ticks(5)) {
      const x = scale.of(tick);
      axes.append(
        dom.svg("line", { class: "grid", x1: x, x2: x, y1: margin.top, y2: bottom }),
        dom.svg("text", { x, y: bottom + 17, "text-anchor": "middle" }, numbers.show(tick)),
      );
    }
    axes.append(dom.svg("text", { class: "axis-title", x: width - margin.right, y: height - 5, "text-anchor": "end" }, chart.x.title));
    this.groups = new Map();
    const rows = shown.map((span, row) => {
      const y = margin.top + rowHeight * (row + 0.5);
      const group = dom.svg(
        "g",
        { class: span.colour === null ? "series receding span" : "series span", onpointerenter: () => this.point(span, scale.of(span.end), y) },
        dom.svg("rect", { class: "hit", x: 0, y: y - rowHeight / 2, width, height: rowHeight }),
        dom.svg("text", { class: "row-label", x: margin.left - 4, y: y + 4, "text-anchor": "end" }, dom.cut(span.label, 14)),
        dom.svg("line", { class: "whisker", x1: scale.of(span.lower), x2: scale.of(span.upper), y1: y, y2: y }),
        dom.svg("line", { class: "join", x1: scale.of(span.start), x2: scale.of(span.end), y1: y, y2: y }),
        dom.svg("circle", { class: "start", cx: scale.of(span.start), cy: y, r: 4 }),
        dom.svg("circle", { class: "point", cx: scale.of(span.end), cy: y, r: 4 }),
      );
      group.style.setProperty("--colour", dom.colour(span.colour));
      this.groups.set(span.key, group);
      return group;
    });
    this.svg.replaceChildren(axes, ...rows);
  }

  point(span, x, y) {
    this.tip.replaceChildren(
      dom.html("strong", {}, span.label),
      dom.html("span", {}, `${this.chart.start_label} ${numbers.show(span.start)}`),
      dom.html("span", {}, `${this.chart.end_label} ${numbers.show(span.end)} [${numbers.show(span.lower)}, ${numbers.show(span.upper)}]`),
    );
    this.tip.hidden = false;
    const factor = this.svg.getBoundingClientRect().width / this.width;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.min(this.width * factor - half, Math.max(half, x * factor))}px`;
    this.tip.style.top = `${y * factor}px`;
    this.tip.classList.toggle("below", y * factor < this.tip.offsetHeight + 12);
    this.figure.setFocus(span.key);
  }

  leave() {
    this.tip.hidden = true;
    this.figure.setFocus(null);
  }

  showFocus(key) {
    this.svg.classList.toggle("focused", key !== null && this.groups?.has(key));
    for (const [other, group] of this.groups ?? []) group.classList.toggle("focus", other === key);
  }

  rows() {
    const { chart } = this;
    return {
      head: ["class", chart.start_label, chart.end_label, `${chart.end_label}, lower 95%`, `${chart.end_label}, upper 95%`],
      rows: chart.spans.map((span) => [span.label, span.start, span.end, span.lower, span.upper]),
    };
  }

  table() {
    return this.rows();
  }
}
