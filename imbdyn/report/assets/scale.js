// Scales: from numbers to pixels and back, and where their ticks stand.
"use strict";

const scales = {
  // A scale from `domain` to `range`; both ends of a logarithmic domain are above 0. Of a `whole` one, ticks are whole.
  make(domain, range, log, whole = false) {
    const forth = log ? Math.log10 : (value) => value;
    const back = log ? (value) => 10 ** value : (value) => value;
    const [from, to] = domain.map(forth);
    const [start, end] = range;
    const factor = to === from ? 0 : (end - start) / (to - from);
    return {
      domain,
      log,
      of: (value) => start + (forth(value) - from) * factor,
      at: (pixel) => back(factor === 0 ? from : from + (pixel - start) / factor),
      ticks: (most) => (log ? scales.logTicks(domain, most) : scales.linearTicks(domain, most, whole ? 1 : 0)),
    };
  },

  linearTicks([from, to], most, least = 0) {
    const rough = (to - from) / Math.max(1, most);
    if (!(rough > 0)) return [from];
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(least, [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power);
    const ticks = [];
    for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i += 1) ticks.push(Number((i * step).toPrecision(12)));
    return ticks;
  },

  logTicks([from, to], most) {
    const [low, high] = [Math.log10(from), Math.log10(to)];
    if (high - low < 0.7) return scales.linearTicks([from, to], most);
    const factors = high - low < 2 ? [1, 2, 5] : [1];
    const every = Math.max(1, Math.ceil((high - low) / most));
    const ticks = [];
    for (let power = Math.floor(low); power <= high; power += 1) {
      if (((power % every) + every) % every !== 0) continue;
      for (const factor of factors) {
        const tick = Number((factor * 10 ** power).toPrecision(12));
        if (tick >= from * 0.9999 && tick <= to * 1.0001) ticks.push(tick);
      }
    }
    return ticks;
  },

  // The domain of some values on an axis, with a little room; the axis may fix its ends.
  domain(values, axis) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) [low, high] = axis.log ? [0.1, 1] : [0, 1];
    if (axis.log) {
      const room = Math.max(1.15, (high / low) ** 0.04);
      [low, high] = [low / room, high * room];
    } else {
      const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
      [low, high] = [low - room, high + room];
    }
    return [axis.lower ?? low, axis.upper ?? high];
  },
};
