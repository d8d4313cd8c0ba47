// Elements, numbers and names: what every chart needs. Text reaches the page as text nodes only.
"use strict";

const dom = {
  svg(tag, attributes = {}, ...children) {
    return dom.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  },

  html(tag, attributes = {}, ...children) {
    return dom.fill(document.createElement(tag), attributes, children);
  },

  fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  },

  // A colour of the palette as a CSS value: it follows the theme, and paper.
  colour(position) {
    return position === null ? "var(--grey)" : `var(--c${position % 6})`;
  },

  cut(text, most) {
    return text.length > most ? `${text.slice(0, most - 1)}…` : text;
  },
};

const numbers = {
  superscript: (power) => String(power).replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]),

  // Four digits at most, as people write them; powers of ten where there would be more than four zeros.
  show(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) {
      const power = Math.floor(Math.log10(size));
      const mantissa = Number((value / 10 ** power).toPrecision(digits));
      const shown = Math.abs(mantissa) >= 10 ? [mantissa / 10, power + 1] : [mantissa, power];
      return `${shown[0] === 1 ? "" : `${numbers.minus(shown[0])}×`}10${numbers.superscript(shown[1])}`;
    }
    if (Number.isInteger(value)) return numbers.minus(value.toLocaleString("en"));
    return numbers.minus(Number(value.toPrecision(digits)));
  },

  // Ticks with their texts; all of a long logarithmic axis are powers of ten, so that they read alike.
  ticks(ticks, log) {
    const powers = log && ticks.length > 1 && (ticks[0] < 1e-3 || ticks.at(-1) >= 1e5) && ticks.at(-1) / ticks[0] >= 99;
    return ticks.map((tick) => [tick, powers ? `10${numbers.superscript(Math.round(Math.log10(tick)))}` : numbers.show(tick)]);
  },

  minus: (value) => String(value).replace("-", "−"),
};
