// The page: figures are drawn when they come near the window, or all of them for paper.
"use strict";

const page = {
  start() {
    const data = JSON.parse(document.getElementById("data").textContent);
    for (const figure of data.figures) page.unpack(figure);
    page.figures = data.figures.map((figure) => new Figure(document.getElementById(`figure-${figure.name}`), figure, data.runs));
    const near = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          const figure = page.figures.find((other) => other.element === target);
          if (isIntersecting && !figure.drawn) {
            near.unobserve(target);
            figure.start();
          }
        }
      },
      { rootMargin: "800px" },
    );
    for (const figure of page.figures) near.observe(figure.element);
    window.addEventListener("beforeprint", page.drawAll);
    page.offerThemes();
  },

  // The x of a series are places in the grid of its chart; without any they are the grid.
  unpack(figure) {
    for (const variant of Object.values(figure.variants)) {
      for (const chart of [...variant.charts, ...(variant.against ?? [])]) {
        for (const series of chart?.series ?? []) series.x = series.at ? series.at.map((i) => chart.grid[i]) : chart.grid;
      }
    }
  },

  drawAll() {
    for (const figure of page.figures) if (!figure.drawn) figure.start();
  },

  // The system's theme, unless the reader chose one on an earlier visit or now.
  offerThemes() {
    const select = document.getElementById("theme");
    const kept = (() => {
      try {
        return localStorage.getItem("imbdyn-theme");
      } catch {
        return null; // a file opened without storage: the choice holds for this visit
      }
    })();
    const show = (theme) => {
      if (theme === "auto") document.documentElement.removeAttribute("data-theme");
      else document.documentElement.dataset.theme = theme;
    };
    if (kept === "light" || kept === "dark") select.value = kept;
    show(select.value);
    select.addEventListener("change", () => {
      show(select.value);
      try {
        localStorage.setItem("imbdyn-theme", select.value);
      } catch {
        // as above
      }
    });
  },
};

page.start();
