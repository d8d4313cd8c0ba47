// A symmetric matrix of classes at one moment of the training.
"use strict";

class MatrixPanel {
  constructor(figure, chart, name) {
    Object.assign(this, { figure, chart, name, cell: [1, 0] });
    this.tip = dom.html("div", { class: "tip", hidden: true });
    this.moment = dom.html("p", { class: "moment" });
    this.svg = dom.svg("svg", {
      class: "chart matrix",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "interactive matrix",
      "aria-label": `${figure.title}, ${name}. ${chart.summary}`,
      "aria-describedby": "matrix-keys",
    });
    this.element = dom.html("div", { class: "plot" }, this.moment, this.svg, this.tip);
    this.svg.addEventListener("pointermove", (event) => {
      const place = event.target.dataset?.cell;
      if (place) this.point(place.split(",").map(Number));
      else this.leave();
    });
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  // The figure's slider goes from 0 to 1: runs of different length show the same share of their training.
  get frame() {
    return Math.round(this.figure.moment * (this.chart.frames.length - 1));
  }

  value(row, column) {
    const place = row > column ? [row, column] : [column, row];
    const at = (place[0] * (place[0] - 1)) / 2 + place[1];
    return { mean: this.chart.values[this.frame][at], count: this.chart.counts[this.frame][at] };
  }

  draw(width) {
    this.width = width;
    const { labels } = this.chart;
    const size = labels.length;
    const named = size <= 24;
    const longest = named ? Math.min(10, Math.max(...labels.map((label) => label.length))) : 0;
    const margin = named ? 14 + 6.4 * longest : 22;
    const top = named && longest <= 3 ? 22 : margin;
    const step = Math.min(44, (width - margin - 4) / size);
    Object.assign(this, { step, margin, top });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${Math.ceil(top + step * size + 4)}`);
    const axes = dom.svg("g", { class: "axes", "aria-hidden": "true" });
    if (named) {
      labels.forEach((label, i) => {
        const kind = this.chart.colours[i] === null ? "row-label" : "row-label marked";
        const text = dom.cut(label, 10);
        const [x, y] = [margin + step * (i + 0.5), top - 6];
        const column = longest <= 3 ? { x, y, "text-anchor": "middle" } : { transform: `translate(${x + 4} ${y}) rotate(-90)` };
        axes.append(
          dom.svg("text", { class: kind, x: margin - 6, y: top + step * (i + 0.5) + 4, "text-anchor": "end" }, text),
          dom.svg("text", { class: kind, ...column }, text),
        );
      });
    } else {
      axes.append(
        dom.svg("text", { class: "row-label", x: margin, y: top - 7 }, "most samples"),
        dom.svg("text", { class: "row-label", x: margin + step * size, y: top - 7, "text-anchor": "end" }, "fewest"),
      );
    }
    this.cells = dom.svg("g", {});
    this.svg.replaceChildren(axes, this.cells);
    this.paint();
  }

  paint() {
    const size = this.chart.labels.length;
    const { step, margin, top } = this;
    const withText = step >= 27;
    const gap = step > 12 ? 1 : 0;
    const cells = [];
    for (let row = 0; row < size; row += 1) {
      for (let column = 0; column < size; column += 1) {
        const { mean } = row === column ? { mean: null } : this.value(row, column);
        const kind = row === column ? "cell own" : mean === null ? "cell absent" : "cell";
        const [x, y] = [margin + step * column, top + step * row];
        const cell = dom.svg("rect", { class: kind, x, y, width: step - gap, height: step - gap, "data-cell": `${row},${column}` });
        if (mean !== null) {
          const share = (Math.min(1, Math.abs(mean)) * 100).toFixed(0);
          cell.style.fill = `color-mix(in oklab, var(--${mean < 0 ? "negative" : "positive"}) ${share}%, var(--neutral))`;
        }
        cells.push(cell);
        if (withText && mean !== null) {
          const strong = Math.abs(mean) > 0.8 ? "cell-text very strong" : Math.abs(mean) > 0.55 ? "cell-text strong" : "cell-text";
          cells.push(dom.svg("text", { class: strong, x: x + step / 2, y: y + step / 2 + 3.5, "text-anchor": "middle" }, numbers.minus(Number(mean.toFixed(2)).toFixed(2)).replace("0.", ".")));
        }
      }
    }
    this.marker = dom.svg("rect", { class: "cell-marker", width: step, height: step, visibility: "hidden" });
    this.cells.replaceChildren(...cells, this.marker);
    this.moment.textContent = this.chart.frames[this.frame];
  }

  point([row, column]) {
    this.cell = [row, column];
    const { labels } = this.chart;
    const said = this.describe(row, column);
    const [x, y] = [this.margin + this.step * column, this.top + this.step * row];
    dom.fill(this.marker, { x: x - 0.5, y: y - 0.5, visibility: "visible" }, []);
    this.tip.replaceChildren(dom.html("strong", {}, row === column ? labels[row] : `${labels[row]} and ${labels[column]}`), dom.html("span", {}, said));
    this.tip.hidden = false;
    const factor = this.svg.getBoundingClientRect().width / this.width;
    const above = this.svg.offsetTop || this.moment.offsetHeight;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.min(this.width * factor - half, Math.max(half, (x + this.step / 2) * factor))}px`;
    this.tip.style.top = `${above + y * factor}px`;
    this.tip.classList.toggle("below", y * factor < this.tip.offsetHeight + 12);
    return `${row === column ? labels[row] : `${labels[row]} and ${labels[column]}`}: ${said}`;
  }

  describe(row, column) {
    if (row === column) return "the class itself";
    const { mean, count } = this.value(row, column);
    return mean === null ? "never read together in this moment" : `cosine ${numbers.show(mean)}, mean of ${count} ${count === 1 ? "step" : "steps"}`;
  }

  leave() {
    this.tip.hidden = true;
    this.marker?.setAttribute("visibility", "hidden");
  }

  showFocus() {}

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") this.leave();
    else if (event.key in moves && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const last = this.chart.labels.length - 1;
      const step = this.tip.hidden ? [0, 0] : moves[event.key];
      this.figure.say(this.point(this.cell.map((at, i) => Math.min(last, Math.max(0, at + step[i])))));
    } else return;
    event.preventDefault();
  }

  rows() {
    const rows = [];
    this.chart.frames.forEach((frame, f) => {
      let at = 0;
      for (let a = 1; a < this.chart.labels.length; a += 1) {
        for (let b = 0; b < a; b += 1, at += 1) {
          rows.push([frame, this.chart.labels[b], this.chart.labels[a], this.chart.values[f][at], this.chart.counts[f][at]]);
        }
      }
    });
    return { head: ["moment", "class", "other class", "mean cosine", "steps"], rows };
  }

  table() {
    const { labels } = this.chart;
    return {
      head: [this.chart.frames[this.frame], ...labels],
      rows: labels.map((label, row) => [label, ...labels.map((_, column) => (row === column ? 1 : this.value(row, column).mean))]),
    };
  }
}
