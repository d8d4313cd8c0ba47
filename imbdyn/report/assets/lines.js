// Lines, bands and points over a common x axis, in one panel.
"use strict";

class LinesPanel {
  // figure: the state that the panels of a figure share, see figure.js.
  constructor(figure, chart, name) {
    Object.assign(this, { figure, chart, name, ownZoom: null, cursor: null });
    this.tip = dom.html("div", { class: "tip", hidden: true });
    this.svg = dom.svg("svg", {
      class: "chart",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "interactive chart",
      "aria-label": `${figure.title}, ${name}. ${chart.summary}`,
      "aria-describedby": "chart-keys",
    });
    this.element = dom.html("div", { class: "plot" }, this.svg, this.tip);
    this.listen();
  }

  get zoom() {
    return this.figure.sharesX ? this.figure.zoom : this.ownZoom;
  }

  setZoom(domain) {
    if (this.figure.sharesX) this.figure.setZoom(domain);
    else {
      this.ownZoom = domain;
      this.draw(this.width);
    }
  }

  shown() {
    return this.chart.series.filter((series) => !this.figure.hidden.has(series.key));
  }

  xDomain() {
    return this.zoom ?? this.fullX();
  }

  fullX() {
    return this.figure.sharesX ? this.figure.xDomain : LinesPanel.xDomainOf([this.chart]);
  }

  static xDomainOf(charts) {
    const axis = charts[0].x;
    const values = charts.flatMap((chart) => chart.series.flatMap((series) => series.x));
    const [low, high] = scales.domain(values, axis);
    if (axis.log) return [low, high];
    return [Math.min(...values), Math.max(...values) === Math.min(...values) ? high : Math.max(...values)];
  }

  static yDomainOf(charts, hidden, zoom) {
    const values = [];
    for (const chart of charts) {
      for (const series of chart.series) {
        if (hidden.has(series.key)) continue;
        for (let i = 0; i < series.x.length; i += 1) {
          if (zoom && (series.x[i] < zoom[0] || series.x[i] > zoom[1])) continue;
          values.push(series.y[i]);
          if (series.lower) values.push(series.lower[i], series.upper[i]);
        }
      }
    }
    return scales.domain(values, charts[0].y);
  }

  draw(width) {
    this.width = width;
    const height = Math.round(Math.min(300, Math.max(210, width * 0.62)));
    const { chart } = this;
    const labels = this.endLabels(width);
    const margin = { top: 26, right: labels.length ? labels.room : 14, bottom: 40, left: 46 };
    this.box = { x0: margin.left, x1: width - margin.right, y0: height - margin.bottom, y1: margin.top };
    this.x = scales.make(this.xDomain(), [this.box.x0, this.box.x1], chart.x.log, chart.x.whole);
    const yDomain = this.figure.sharesX ? this.figure.yDomain() : LinesPanel.yDomainOf(this.figure.charts, this.figure.hidden, null);
    this.y = scales.make(yDomain, [this.box.y0, this.box.y1], chart.y.log);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const clip = `clip-${this.figure.name}-${this.figure.panelId(this)}`;
    this.lines = new Map();
    const drawn = dom.svg("g", { "clip-path": `url(#${clip})` });
    for (const series of this.shown()) {
      const group = this.seriesGroup(series);
      this.lines.set(series.key, group);
      drawn.append(group);
    }
    this.marker = dom.svg("circle", { class: "marker", r: 4.5, visibility: "hidden" });
    this.selection = dom.svg("rect", { class: "selection", y: this.box.y1, height: this.box.y0 - this.box.y1, visibility: "hidden" });
    this.svg.replaceChildren(
      dom.svg("defs", {}, dom.svg("clipPath", { id: clip }, dom.svg("rect", {
        x: this.box.x0 - 3, y: this.box.y1 - 4, width: Math.max(0, this.box.x1 - this.box.x0 + 6), height: this.box.y0 - this.box.y1 + 8,
      }))),
      this.axes(width, height),
      drawn,
      ...this.placeLabels(labels),
      this.selection,
      this.marker,
    );
    this.element.classList.toggle("zoomed", this.zoom !== null);
  }

  axes(width, height) {
    const { box, chart } = this;
    const group = dom.svg("g", { class: "axes", "aria-hidden": "true" });
    for (const [tick, text] of numbers.ticks(this.y.ticks(5), this.y.log)) {
      const y = this.y.of(tick);
      group.append(
        dom.svg("line", { class: "grid", x1: box.x0, x2: box.x1, y1: y, y2: y }),
        dom.svg("text", { x: box.x0 - 7, y: y + 4, "text-anchor": "end" }, text),
      );
    }
    for (const [tick, text] of numbers.ticks(this.x.ticks(Math.max(2, Math.floor((box.x1 - box.x0) / 62))), this.x.log)) {
      const x = this.x.of(tick);
      group.append(
        dom.svg("line", { class: "tick", x1: x, x2: x, y1: box.y0, y2: box.y0 + 4 }),
        dom.svg("text", { x, y: box.y0 + 17, "text-anchor": "middle" }, text),
      );
    }
    for (const [value, label] of chart.levels) {
      const y = this.y.of(value);
      if (!(y <= box.y0 + 1 && y >= box.y1 - 1)) continue;
      group.append(
        dom.svg("line", { class: "level", x1: box.x0, x2: box.x1, y1: y, y2: y }),
        dom.svg("text", { class: "level-label", x: box.x1 - 2, y: y - 4, "text-anchor": "end" }, label),
      );
    }
    group.append(
      dom.svg("line", { class: "base", x1: box.x0, x2: box.x1, y1: box.y0, y2: box.y0 }),
      dom.svg("text", { class: "axis-title", x: 4, y: 13 }, chart.y.title),
      dom.svg("text", { class: "axis-title", x: box.x1, y: height - 5, "text-anchor": "end" }, chart.x.title),
    );
    return group;
  }

  seriesGroup(series) {
    const colour = dom.colour(series.colour);
    const group = dom.svg("g", { class: series.colour === null ? "series receding" : "series" });
    group.style.setProperty("--colour", colour);
    if (series.lower) group.append(dom.svg("path", { class: "band", d: this.bandPath(series) }));
    const few = !series.names && series.x.length <= 12;
    if (!series.names) {
      group.append(dom.svg("path", { class: series.dashed ? "line dashed" : "line", d: this.linePath(series) }));
    }
    if (series.names || few) {
      series.x.forEach((x, i) => {
        group.append(dom.svg("circle", { class: "point", r: series.names ? 4 : 2.2, cx: this.x.of(x), cy: this.y.of(series.y[i]) }));
      });
    }
    return group;
  }

  linePath(series) {
    return series.x.map((x, i) => `${i ? "L" : "M"}${this.x.of(x).toFixed(1)} ${this.y.of(series.y[i]).toFixed(1)}`).join("");
  }

  bandPath(series) {
    const point = (edge) => (i) => `${this.x.of(series.x[i]).toFixed(1)} ${this.y.of(edge[i]).toFixed(1)}`;
    const order = [...series.x.keys()];
    return `M${order.map(point(series.upper)).join("L")}L${order.reverse().map(point(series.lower)).join("L")}Z`;
  }

  // Names beside the ends of the lines that stand out, where there is room for them.
  endLabels(width) {
    const named = this.shown().filter((series) => series.colour !== null && series.key.startsWith("class ") && series.x.length);
    if (named.length === 0 || named.length > 10) return [];
    const labels = named.map((series) => ({ series, text: dom.cut(series.label, 12) }));
    labels.room = 16 + 6.6 * Math.max(...labels.map((label) => label.text.length));
    return labels.room < width * 0.3 ? labels : [];
  }

  placeLabels(labels) {
    const { box } = this;
    const placed = [];
    for (const { series, text } of labels) {
      const last = series.x.findLastIndex((x) => x <= this.x.domain[1] && x >= this.x.domain[0]);
      if (last >= 0) placed.push({ series, text, y: Math.min(box.y0, Math.max(box.y1, this.y.of(series.y[last]))) });
    }
    placed.sort((a, b) => a.y - b.y);
    const gap = 12;
    for (let i = 1; i < placed.length; i += 1) placed[i].y = Math.max(placed[i].y, placed[i - 1].y + gap);
    for (let i = placed.length - 1; i >= 0; i -= 1) {
      placed[i].y = Math.min(placed[i].y, i === placed.length - 1 ? box.y0 : placed[i + 1].y - gap);
    }
    return placed.map(({ series, text, y }) => {
      const label = dom.svg("text", { class: "end-label", x: box.x1 + 7, y: y + 4, "aria-hidden": "true" }, text);
      label.style.setProperty("--colour", dom.colour(series.colour));
      return label;
    });
  }

  listen() {
    let dragFrom = null;
    const at = (event) => {
      const bounds = this.svg.getBoundingClientRect();
      const factor = this.width / bounds.width;
      return [(event.clientX - bounds.left) * factor, (event.clientY - bounds.top) * factor];
    };
    this.svg.addEventListener("pointerdown", (event) => {
      const [x, y] = at(event);
      if (event.pointerType === "mouse" && event.button === 0 && x >= this.box.x0 && x <= this.box.x1 && y <= this.box.y0) {
        dragFrom = x;
        this.svg.setPointerCapture(event.pointerId);
      }
    });
    this.svg.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (dragFrom !== null && Math.abs(x - dragFrom) > 4) {
        const [from, to] = this.clampedRange(dragFrom, x);
        dom.fill(this.selection, { x: from, width: to - from, visibility: "visible" }, []);
        this.leave();
      } else this.point(this.nearest(x, y));
    });
    this.svg.addEventListener("pointerup", (event) => {
      const [x] = at(event);
      if (dragFrom !== null && Math.abs(x - dragFrom) > 8) this.setZoom(this.clampedRange(dragFrom, x).map(this.x.at));
      dragFrom = null;
      this.selection.setAttribute("visibility", "hidden");
    });
    this.svg.addEventListener("pointercancel", () => {
      dragFrom = null;
      this.selection.setAttribute("visibility", "hidden");
    });
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("dblclick", () => this.setZoom(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  clampedRange(a, b) {
    const inside = (x) => Math.min(this.box.x1, Math.max(this.box.x0, x));
    return [Math.min(inside(a), inside(b)), Math.max(inside(a), inside(b))];
  }

  nearest(px, py) {
    let best = null;
    for (const series of this.shown()) {
      for (let i = 0; i < series.x.length; i += 1) {
        const [x, y] = [this.x.of(series.x[i]), this.y.of(series.y[i])];
        if (x < this.box.x0 - 1 || x > this.box.x1 + 1) continue;
        const distance = Math.hypot(x - px, y - py);
        if (best === null || distance < best.distance) best = { series, i, distance };
      }
    }
    return best !== null && best.distance < 48 ? best : null;
  }

  // Show one point, and make its series stand out in all panels of the figure.
  point(found) {
    if (found === null) {
      this.leave();
      return;
    }
    const { series, i } = found;
    this.cursor = { key: series.key, i };
    const [x, y] = [this.x.of(series.x[i]), this.y.of(series.y[i])];
    dom.fill(this.marker, { cx: x, cy: y, visibility: "visible" }, []);
    this.marker.style.setProperty("--colour", dom.colour(series.colour));
    this.tip.replaceChildren(
      dom.html("strong", {}, series.names ? series.names[i] : series.label),
      dom.html("span", {}, this.value(series, i)),
      dom.html("span", { class: "where" }, `${this.chart.x.label} ${numbers.show(series.x[i], 6)}`),
    );
    this.tip.hidden = false;
    const factor = this.svg.getBoundingClientRect().width / this.width;
    const half = this.tip.offsetWidth / 2;
    const left = Math.min(this.width * factor - half, Math.max(half, x * factor));
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${y * factor}px`;
    this.tip.classList.toggle("below", y * factor < this.tip.offsetHeight + 12);
    this.figure.setFocus(series.key);
  }

  value(series, i) {
    const band = series.lower ? ` (10% to 90%: ${numbers.show(series.lower[i])} to ${numbers.show(series.upper[i])})` : "";
    return `${numbers.show(series.y[i], 4)} ${this.chart.y.unit}${band}`.trim();
  }

  leave() {
    this.tip.hidden = true;
    this.marker?.setAttribute("visibility", "hidden");
    this.figure.setFocus(null);
  }

  showFocus(key) {
    this.svg.classList.toggle("focused", key !== null && this.lines?.has(key));
    for (const [other, group] of this.lines ?? []) group.classList.toggle("focus", other === key);
  }

  key(event) {
    const shown = this.shown().filter((series) => series.x.length);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0], Home: [0, -1e9], End: [0, 1e9] };
    if (event.key === "Escape") {
      if (this.tip.hidden) this.setZoom(null);
      this.leave();
    } else if (event.key === "+" || event.key === "=") this.zoomBy(0.5);
    else if (event.key === "-") this.zoomBy(2);
    else if (event.key === "0") this.setZoom(null);
    else if (event.key in steps && shown.length && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const [acrossSeries, alongX] = steps[event.key];
      const before = shown.findIndex((series) => series.key === this.cursor?.key);
      const fresh = before < 0 || this.tip.hidden;
      const series = shown[fresh ? Math.max(before, shown.length - 1) : (before + acrossSeries + shown.length) % shown.length];
      let i = this.cursor?.i ?? series.x.length - 1;
      if (!fresh && acrossSeries) {
        const x = shown[before].x[i];
        i = series.x.reduce((best, other, j) => (Math.abs(other - x) < Math.abs(series.x[best] - x) ? j : best), 0);
      } else if (!fresh) i += alongX;
      i = Math.min(series.x.length - 1, Math.max(0, i));
      this.point({ series, i });
      this.figure.say(`${series.names ? series.names[i] : series.label}, ${this.chart.x.label} ${series.x[i]}: ${this.value(series, i)}`);
    } else return;
    event.preventDefault();
  }

  // Shorten or lengthen the x axis about the cursor, or its middle.
  zoomBy(factor) {
    const log = this.chart.x.log;
    const forth = log ? Math.log10 : (value) => value;
    const back = log ? (value) => 10 ** value : (value) => value;
    const [low, high] = this.xDomain().map(forth);
    const [fullLow, fullHigh] = this.fullX().map(forth);
    const series = this.cursor ? this.chart.series.find((other) => other.key === this.cursor.key) : null;
    const centre = Math.min(high, Math.max(low, series ? forth(series.x[this.cursor.i]) : (low + high) / 2));
    const [from, to] = [centre - (centre - low) * factor, centre + (high - centre) * factor];
    if (from <= fullLow && to >= fullHigh) this.setZoom(null);
    else this.setZoom([Math.max(fullLow, from), Math.min(fullHigh, to)].map(back));
  }

  rows() {
    const head = ["series", this.chart.x.title, this.chart.y.title];
    const bands = this.chart.series.some((series) => series.lower);
    if (bands) head.push("10% quantile", "90% quantile");
    const rows = this.chart.series.flatMap((series) =>
      series.x.map((x, i) => {
        const row = [series.names ? series.names[i] : series.label, x, series.y[i]];
        return bands ? [...row, series.lower?.[i] ?? null, series.upper?.[i] ?? null] : row;
      }),
    );
    return { head, rows };
  }

  // One row an x, one column a series: what a table for people looks like.
  table() {
    if (this.chart.series.some((series) => series.names)) return this.rows();
    const xs = [...new Set(this.chart.series.flatMap((series) => series.x))].sort((a, b) => a - b);
    const places = this.chart.series.map((series) => new Map(series.x.map((x, i) => [x, series.y[i]])));
    return {
      head: [this.chart.x.title, ...this.chart.series.map((series) => series.label)],
      rows: xs.map((x) => [x, ...places.map((place) => place.get(x) ?? null)]),
    };
  }
}
