// The calibration scores as a histogram, with the threshold and the score of the image at hand.

import { count, number } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 250;
const MARGIN = { top: 56, right: 18, bottom: 46, left: 48 };
const BIN_PX = 13;
const TEXT_PX = 6.6;

/**
 * Return an <svg> element.
 *
 * values are the calibration's (score, rank) pairs, ascending; tau the threshold; score the score
 * of the image or null; width in pixels.
 */
export function distributionChart({ values, tau, score, scoreName, width }) {
  const frame = {
    left: MARGIN.left,
    right: width - MARGIN.right,
    top: MARGIN.top,
    bottom: HEIGHT - MARGIN.bottom,
  };
  const bins = histogram(
    values,
    tau,
    Math.max(12, Math.floor((frame.right - frame.left) / BIN_PX)),
  );
  const domain = visibleDomain(bins, score);
  const x = (value) =>
    frame.left + ((value - domain.low) / (domain.high - domain.low)) * (frame.right - frame.left);
  const yTicks = ticks(0, Math.max(...bins.counts), 4).filter(Number.isInteger);
  const top = Math.max(yTicks.at(-1) ?? 1, ...bins.counts);
  const y = (value) => frame.bottom - (value / top) * (frame.bottom - frame.top);

  const svg = element("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    width,
    height: HEIGHT,
    role: "img",
    class: "distribution",
  });
  svg.append(element("title", {}, summary(values, tau, score, scoreName)));
  svg.append(
    ...regions(frame, x(tau)),
    ...yAxis(frame, yTicks, y),
    ...bars(bins, tau, x, y, frame),
  );
  svg.append(...xAxis(frame, domain, x, scoreName), ...threshold(frame, x(tau), tau, width));
  if (score !== null) svg.append(...marker(frame, x, domain, score, tau, width));
  return svg;
}

/** Bins with an edge at tau, so that no bar is partly in and partly out. */
function histogram(values, tau, target) {
  const low = Math.min(values[0][0], tau);
  const high = Math.max(values.at(-1)[0], tau);
  const step = high > low ? (high - low) / target : Math.max(1, Math.abs(tau)) / target;
  const below = Math.ceil((tau - low) / step - 1e-9);
  const above = Math.floor((high - tau) / step + 1e-9) + 1;
  const start = tau - below * step;
  const counts = new Array(below + above).fill(0);
  let previous = 0;
  for (const [value, rank] of values) {
    // Measured from tau, so that rounding cannot move a score across it.
    const index =
      below +
      (value < tau
        ? -Math.max(1, Math.ceil((tau - value) / step - 1e-9))
        : Math.floor((value - tau) / step + 1e-9));
    counts[Math.min(counts.length - 1, Math.max(0, index))] += rank - previous;
    previous = rank;
  }
  return { start, step, counts, end: start + counts.length * step };
}

/** The range of the bins, stretched to a score a little outside; a far one is shown at the edge. */
function visibleDomain({ start, end }, score) {
  const span = end - start;
  let [low, high] = [start - 0.03 * span, end + 0.03 * span];
  const off = score === null ? 0 : score < low - span ? -1 : score > high + span ? 1 : 0;
  if (score !== null && off === 0) {
    low = Math.min(low, score - 0.03 * span);
    high = Math.max(high, score + 0.03 * span);
  } else if (off !== 0) {
    [low, high] = [low - (off < 0 ? 0.12 * span : 0), high + (off > 0 ? 0.12 * span : 0)];
  }
  return { low, high, off };
}

function regions(frame, tauX) {
  const height = frame.bottom - frame.top;
  const shapes = [
    element("rect", {
      x: frame.left,
      y: frame.top,
      width: Math.max(0, tauX - frame.left),
      height,
      class: "region-out",
    }),
    element("rect", {
      x: tauX,
      y: frame.top,
      width: Math.max(0, frame.right - tauX),
      height,
      class: "region-in",
    }),
  ];
  if (tauX - frame.left > 34)
    shapes.push(
      element(
        "text",
        { x: tauX - 8, y: frame.top + 15, "text-anchor": "end", class: "side side-out" },
        "OUT",
      ),
    );
  if (frame.right - tauX > 24)
    shapes.push(element("text", { x: tauX + 8, y: frame.top + 15, class: "side side-in" }, "IN"));
  return shapes;
}

function bars({ start, step, counts }, tau, x, y, frame) {
  return counts.flatMap((size, i) => {
    if (size === 0) return [];
    const [left, right] = [x(start + i * step), x(start + (i + 1) * step)];
    // A single image stays visible beside a tall bar.
    const height = Math.max(2, frame.bottom - y(size));
    const gap = right - left > 4 ? 1 : 0;
    const kind = start + (i + 0.5) * step < tau ? "bar bar-out" : "bar bar-in";
    return [
      element("rect", {
        x: left + gap / 2,
        y: frame.bottom - height,
        width: Math.max(1, right - left - gap),
        height,
        class: kind,
      }),
    ];
  });
}

function yAxis(frame, values, y) {
  const lines = values.map((value) =>
    element("line", { x1: frame.left, x2: frame.right, y1: y(value), y2: y(value), class: "grid" }),
  );
  const labels = values.map((value) =>
    element(
      "text",
      { x: frame.left - 7, y: y(value) + 4, "text-anchor": "end", class: "tick" },
      count(value),
    ),
  );
  const middle = (frame.top + frame.bottom) / 2;
  const title = element(
    "text",
    {
      x: 12,
      y: middle,
      "text-anchor": "middle",
      transform: `rotate(-90 12 ${middle})`,
      class: "axis",
    },
    "known images",
  );
  return [...lines, ...labels, title];
}

function xAxis(frame, { low, high }, x, scoreName) {
  const room = Math.max(3, Math.floor((frame.right - frame.left) / 65));
  const values = ticks(low, high, room).filter((value) => value >= low && value <= high);
  const labels = values.flatMap((value) => [
    element("line", {
      x1: x(value),
      x2: x(value),
      y1: frame.bottom,
      y2: frame.bottom + 4,
      class: "edge",
    }),
    element(
      "text",
      { x: x(value), y: frame.bottom + 17, "text-anchor": "middle", class: "tick" },
      tickLabel(value, values),
    ),
  ]);
  const edge = element("line", {
    x1: frame.left,
    x2: frame.right,
    y1: frame.bottom,
    y2: frame.bottom,
    class: "edge",
  });
  const middle = (frame.left + frame.right) / 2;
  const title = element(
    "text",
    { x: middle, y: HEIGHT - 8, "text-anchor": "middle", class: "axis" },
    frame.right - frame.left < 330
      ? `${scoreName} score (right: more known)`
      : `${scoreName} score: larger is more like the known images`,
  );
  return [edge, ...labels, title];
}

function threshold(frame, tauX, tau, width) {
  const text = `threshold τ ${number(tau)}`;
  return [
    element("line", {
      x1: tauX,
      x2: tauX,
      y1: frame.top - 8,
      y2: frame.bottom,
      class: "tau",
      "data-testid": "tau-line",
    }),
    element(
      "text",
      {
        x: clampText(tauX, text, width),
        y: frame.top - 13,
        "text-anchor": "middle",
        class: "tau-text",
      },
      text,
    ),
  ];
}

function marker(frame, x, { low, high, off }, score, tau, width) {
  const kind = score < tau ? "out" : "in";
  const at =
    off < 0 ? frame.left + 9 : off > 0 ? frame.right - 9 : x(Math.min(high, Math.max(low, score)));
  const text = `this image ${number(score)}${off === 0 ? "" : ", off the scale"}`;
  const room = text.length * TEXT_PX + 18;
  const middle = Math.min(width - 2 - room / 2, Math.max(2 + room / 2, at));
  const group = element("g", {
    class: `marker marker-${kind}`,
    "data-testid": "marker",
    "data-off-scale": off !== 0,
  });
  group.append(
    element("line", { x1: at, x2: at, y1: 22, y2: frame.bottom, "data-testid": "marker-line" }),
    element("rect", {
      x: middle - room / 2,
      y: 2,
      width: room,
      height: 21,
      rx: 10.5,
      class: "tag",
    }),
    element("text", { x: middle, y: 16.5, "text-anchor": "middle", class: "tag-text" }, text),
    pointer(at, frame.bottom, off),
  );
  return [group];
}

/** A diamond at the score; an arrow where the score lies beyond the edge. */
function pointer(at, bottom, off) {
  if (off === 0) return element("path", { d: `M${at} ${bottom - 7}l6 7-6 7-6-7z` });
  return element("path", { d: `M${at} ${bottom - 27}l${9 * off} 8 ${-9 * off} 8z` });
}

function clampText(at, text, width) {
  const half = (text.length * TEXT_PX) / 2;
  return Math.min(width - 2 - half, Math.max(2 + half, at));
}

/** Round values (steps of 1, 2 or 5 times a power of ten), about `target` of them, that enclose high. */
function ticks(low, high, target) {
  const raw = (high - low) / Math.max(1, target);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= 0.8 * raw) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function tickLabel(value, values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  const text = Math.abs(value) >= 1e6 ? value.toExponential(1) : value.toFixed(digits);
  return text.replace(/^-(?=0(\.0*)?$)/, "").replace("-", "−");
}

function summary(values, tau, score, scoreName) {
  const known = `Histogram of the ${scoreName} score of ${count(values.at(-1)[1])} known images, from ${number(values[0][0])} to ${number(values.at(-1)[0])}. Threshold ${number(tau)}.`;
  if (score === null) return known;
  return `${known} This image: ${number(score)}, ${score < tau ? "below the threshold, OUT" : "not below the threshold, IN"}.`;
}

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
