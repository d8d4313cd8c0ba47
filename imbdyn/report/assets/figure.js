// One figure: its choices, its legend, a panel for each run, and its numbers as a table.
"use strict";

const PANELS = { lines: LinesPanel, spans: SpansPanel, matrix: MatrixPanel };

//: A table for people has at most so many rows; the CSV file has all.
const MOST_ROWS = 60;

class Figure {
  constructor(element, data, runs) {
    Object.assign(this, { element, data, runs, name: data.name, title: data.title });
    Object.assign(this, { hidden: new Set(), zoom: null, moment: 1, against: false, width: 0, drawn: false });
    this.chosen = Object.fromEntries(data.choices.map((choice) => [choice.name, choice.values[0].value]));
    const part = (name) => element.querySelector(`.${name}`);
    Object.assign(this, { controls: part("controls"), panelsBox: part("panels"), legend: part("legend"), notes: part("notes"), numbers: part("numbers") });
    this.numbers.addEventListener("toggle", () => this.fillTable());
  }

  // The charts of the runs that have one, under the present choices.
  get variant() {
    return this.data.variants[this.data.choices.map((choice) => this.chosen[choice.name]).join("|")];
  }

  start() {
    this.drawn = true;
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.panelsBox);
  }

  build() {
    const charts = this.against ? this.variant.against : this.variant.charts;
    this.panels = [];
    const boxes = charts.map((chart, run) => {
      if (chart === null) return null;
      const name = this.against ? this.variant.against_names[run] : this.runs[run];
      const heading = dom.html("h4", { class: this.runs.length > 1 ? "panel-title" : "panel-title hidden-text" }, name);
      if (chart.missing) return dom.html("div", { class: "panel" }, heading, dom.html("p", { class: "missing" }, chart.missing));
      const panel = new PANELS[chart.kind](this, chart, name);
      this.panels.push(panel);
      panel.box_ = dom.html("div", { class: "panel" }, heading, panel.element, dom.html("p", { class: "summary" }, chart.summary));
      return panel.box_;
    });
    this.panelsBox.replaceChildren(...boxes.filter((box) => box !== null));
    this.charts = this.panels.map((panel) => panel.chart);
    if (this.charts.length && this.charts[0].kind === "lines") this.shareX();
    this.buildControls();
    this.buildLegend();
    this.buildNotes();
    this.width = 0;
    this.draw();
    if (this.numbers.open) this.fillTable();
  }

  // Panels share their x axis, and its zoom, unless they count steps of trainings of different length.
  shareX() {
    const domains = this.charts.map((chart) => LinesPanel.xDomainOf([chart]));
    const ends = domains.map((domain) => domain[1]);
    this.sharesX = this.charts[0].x.label !== "optimizer step" || Math.max(...ends) <= 1.01 * Math.min(...ends);
    this.xDomain = LinesPanel.xDomainOf(this.charts);
    this.zoom = null;
  }

  yDomain() {
    return LinesPanel.yDomainOf(this.charts, this.hidden, this.zoom);
  }

  draw() {
    const panel = this.panels[0];
    if (panel === undefined) return;
    const width = Math.floor(panel.element.clientWidth);
    if (width === 0 || width === this.width) return;
    this.width = width;
    this.redraw();
  }

  redraw() {
    for (const panel of this.panels) panel.draw(this.width);
    const zoomed = this.zoom !== null || this.panels.some((panel) => panel.ownZoom);
    if (this.resetButton) this.resetButton.disabled = !zoomed;
  }

  panelId(panel) {
    return this.panels.indexOf(panel);
  }

  setZoom(domain) {
    this.zoom = domain;
    this.redraw();
  }

  setFocus(key) {
    for (const panel of this.panels) panel.showFocus(key);
    for (const button of this.legend.querySelectorAll("[data-key]")) button.classList.toggle("focus", button.dataset.key === key);
  }

  say(text) {
    document.getElementById("live").textContent = text;
  }

  buildControls() {
    const focused = this.controls.contains(document.activeElement) ? document.activeElement.id : null;
    const parts = this.data.choices.filter((choice) => choice.values.length > 1).map((choice) =>
      this.choice(choice.name, choice.label, choice.values, this.chosen[choice.name], (value) => {
        this.chosen[choice.name] = value;
        if (!this.variant.against) this.against = false;
        this.build();
      }),
    );
    if (this.variant.against) {
      const ways = [{ value: "runs", label: "Runs" }, { value: "against", label: this.data.against_label }];
      parts.push(this.choice("against", "Show", ways, this.against ? "against" : "runs", (value) => {
        this.against = value === "against";
        this.build();
      }));
    }
    this.resetButton = null;
    if (this.charts.some((chart) => chart.kind === "lines")) parts.push(this.zoomButtons());
    if (this.charts.some((chart) => chart.kind === "matrix")) parts.push(this.slider());
    this.controls.replaceChildren(...parts);
    if (focused) document.getElementById(focused)?.focus();
  }

  choice(name, label, values, chosen, onChoose) {
    const id = `${this.name}-${name}`;
    if (values.length > 3) {
      const select = dom.html("select", { id, onchange: (event) => onChoose(event.target.value) });
      for (const { value, label: text } of values) select.append(dom.html("option", { value, selected: value === chosen }, text));
      return dom.html("label", { class: "choice", for: id }, dom.html("span", {}, label), select);
    }
    const group = dom.html("fieldset", { class: "choice segmented" }, dom.html("legend", {}, label));
    values.forEach(({ value, label: text }, i) => {
      const radio = dom.html("input", { type: "radio", name: id, id: `${id}-${i}`, value, checked: value === chosen, onchange: () => onChoose(value) });
      group.append(radio, dom.html("label", { for: `${id}-${i}` }, text));
    });
    return group;
  }

  zoomButtons() {
    const all = (action) => () => {
      const panels = this.sharesX ? this.panels.slice(0, 1) : this.panels;
      panels.forEach(action);
      this.redraw();
    };
    const button = (text, label, action) => dom.html("button", { type: "button", class: "small", "aria-label": `${label}: ${this.title}`, title: label, onclick: action }, text);
    this.resetButton = button("Reset", "Show the whole axis", all((panel) => panel.setZoom(null)));
    return dom.html(
      "div",
      { class: "choice zoom", role: "group", "aria-label": `Zoom: ${this.title}` },
      button("−", "Zoom out", all((panel) => panel.zoomBy(2))),
      button("+", "Zoom in", all((panel) => panel.zoomBy(0.5))),
      this.resetButton,
    );
  }

  slider() {
    const most = Math.max(...this.charts.map((chart) => chart.frames.length)) - 1;
    const id = `${this.name}-moment`;
    const shown = dom.html("output", { for: id });
    const said = () => `moment ${Math.round(this.moment * most) + 1} of ${most + 1}`;
    const slider = dom.html("input", {
      type: "range", id, min: 0, max: most, step: 1,
      oninput: (event) => {
        this.moment = most ? Number(event.target.value) / most : 1;
        for (const panel of this.panels) panel.paint();
        shown.textContent = said();
        slider.setAttribute("aria-valuetext", `${said()}: ${this.panels.map((panel) => `${panel.name} ${panel.chart.frames[panel.frame]}`).join("; ")}`);
        if (this.numbers.open) this.fillTable();
      },
    });
    slider.value = Math.round(this.moment * most);
    shown.textContent = said();
    slider.setAttribute("aria-valuetext", said());
    return dom.html("div", { class: "choice slider" }, dom.html("label", { for: id }, "Step"), slider, shown);
  }

  buildLegend() {
    if (this.charts.some((chart) => chart.kind === "matrix")) {
      this.legend.replaceChildren(
        dom.html("div", { class: "scale" }, dom.html("span", {}, "−1 conflict"), dom.html("span", { class: "ramp" }), dom.html("span", {}, "agreement 1")),
      );
      return;
    }
    const families = new Map();
    for (const chart of this.charts) {
      for (const entry of chart.series ?? chart.spans) {
        if (!families.has(entry.family)) families.set(entry.family, new Map());
        families.get(entry.family).set(entry.key, entry);
      }
    }
    const order = [...families].reverse(); // what stands out is drawn last and named first
    const parts = order.map(([family, entries]) => this.legendFamily(family, [...entries.values()], order.length > 1));
    if (this.charts[0]?.kind === "spans") parts.push(this.spansKey());
    this.legend.replaceChildren(...parts);
  }

  legendFamily(family, entries, isOneOfSeveral) {
    const keys = entries.map((entry) => entry.key);
    const toggle = (switched) => {
      const all = switched.every((key) => !this.hidden.has(key));
      for (const key of switched) if (all) this.hidden.add(key); else this.hidden.delete(key);
      for (const button of this.legend.querySelectorAll("[data-key]")) button.setAttribute("aria-pressed", String(!this.hidden.has(button.dataset.key)));
      this.redraw();
    };
    const title = isOneOfSeveral && entries.length > 1
      ? dom.html("button", { type: "button", class: "family", title: `Show or hide ${family}`, onclick: () => toggle(keys) }, family)
      : dom.html("span", { class: entries.length > 1 ? "family" : "hidden-text" }, family);
    const items = entries.map((entry) => {
      const button = dom.html(
        "button",
        {
          type: "button", "data-key": entry.key, "aria-pressed": String(!this.hidden.has(entry.key)),
          onclick: () => toggle([entry.key]),
          onpointerenter: () => this.setFocus(entry.key), onpointerleave: () => this.setFocus(null),
          onfocus: () => this.setFocus(entry.key), onblur: () => this.setFocus(null),
        },
        this.swatch(entry),
        dom.cut(entry.label, 44),
      );
      if (entry.label.length > 44) button.title = entry.label;
      return dom.html("li", {}, button);
    });
    return dom.html("div", { class: "legend-family", role: "group", "aria-label": family }, title, dom.html("ul", {}, items));
  }

  swatch(entry) {
    const isPoint = entry.names || this.charts[0].kind === "spans";
    const shape = isPoint
      ? dom.svg("circle", { class: "point", cx: 11, cy: 6, r: 4 })
      : dom.svg("line", { class: entry.dashed ? "line dashed" : "line", x1: 1, x2: 21, y1: 6, y2: 6 });
    const swatch = dom.svg("svg", { class: "swatch", width: 22, height: 12, "aria-hidden": "true" }, shape);
    swatch.style.setProperty("--colour", dom.colour(entry.colour));
    return swatch;
  }

  spansKey() {
    const { start_label: start, end_label: end } = this.charts[0];
    return dom.html("p", { class: "spans-key" }, `○ ${start}   ● ${end}, with its 95% interval`);
  }

  buildNotes() {
    const notes = [...new Set(this.charts.flatMap((chart) => chart.notes))];
    this.notes.replaceChildren(...notes.map((note) => dom.html("p", {}, `${this.whose(note)}${note}`)));
  }

  // The names of the runs that a note is of, unless it is of all.
  whose(note) {
    const panels = this.panels.filter((panel) => panel.chart.notes.includes(note));
    return panels.length === this.panels.length ? "" : `${panels.map((panel) => panel.name).join(", ")}: `;
  }

  fillTable() {
    const box = this.numbers.querySelector(".tables");
    if (!this.numbers.open) {
      box.replaceChildren();
      return;
    }
    box.replaceChildren(...this.panels.map((panel) => this.tableOf(panel)));
  }

  tableOf(panel) {
    const { head, rows } = panel.table();
    const every = Math.ceil(rows.length / MOST_ROWS);
    const kept = rows.filter((_, i) => i % every === 0 || i === rows.length - 1);
    const caption = every > 1 ? `${panel.name}: ${kept.length} of ${rows.length} rows` : panel.name;
    const table = dom.html(
      "table",
      {},
      dom.html("caption", {}, caption),
      dom.html("thead", {}, dom.html("tr", {}, head.map((name) => dom.html("th", { scope: "col" }, String(name))))),
      dom.html("tbody", {}, kept.map((row) => dom.html("tr", {}, row.map((value, i) => this.tableCell(value, i))))),
    );
    const save = dom.html("button", { type: "button", class: "small", onclick: () => this.save(panel) }, `Save ${panel.name} as CSV`);
    return dom.html("div", {}, dom.html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers: ${this.title}, ${caption}` }, table), save);
  }

  tableCell(value, i) {
    const text = typeof value === "string" ? value : numbers.show(value, 4);
    return i === 0 ? dom.html("th", { scope: "row" }, text) : dom.html("td", {}, text);
  }

  // As `imbdyn export` writes it: names in quotes, and none that a spreadsheet would take for a formula.
  save(panel) {
    const cell = (value) => {
      if (value === null) return "";
      if (typeof value !== "string") return String(value);
      return `"${(/^[=+\-@\t\r']/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
    };
    const { head, rows } = panel.rows();
    const text = [head, ...rows].map((row) => row.map(cell).join(",")).join("\n");
    const link = dom.html("a", { href: URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" })), download: `${this.name}-${panel.name.replace(/[^\w.-]+/g, "_")}.csv` });
    link.click();
    URL.revokeObjectURL(link.href);
  }
}
