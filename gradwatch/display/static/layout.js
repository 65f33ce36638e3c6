// From a figure of the Python side to what Plotly draws: theme, filter, ticks. No drawing here.
import { decode, decodeRows, evenColumns, takeColumn } from "./arrays.js";
import { sayNumber } from "./words.js";

const THEMES = {
  light: { text: "#3b444d", line: "#1f2428", grid: "rgba(90,100,110,0.22)", hover: "#ffffff" },
  dark: { text: "#d7dce1", line: "#f2f4f6", grid: "rgba(200,210,220,0.2)", hover: "#2b2f33" },
};

// Colours of the traces, made for white, and what is as clear on dark grey.
const TINTS = { "#0f8b8d": "#45c4c6", "#5b6873": "#b9c4cd", "#b5739d": "#dba3c6", "#a9b1b8": "#7d868e" };

const MOST_COLUMNS = 600; // a screen shows no more
const NOTHING_LEFT = -20; // log10 of a gain: below, it is zero but for rounding

export function themeColours(dark) {
  return dark ? THEMES.dark : THEMES.light;
}

// Places of the layers whose name matches.
export function keepRows(meta, matches) {
  return meta.names.flatMap((name, row) => (matches(name) ? [row] : []));
}

export function plotHeight(meta, rows) {
  const { row, least, most } = meta.pixels;
  return Math.max(least, Math.min(most, rows * row));
}

// Tick labels for the rows from `low` to `high`, as many as fit the height.
export function ticksBetween(all, labels, low, high, meta, height) {
  const first = Math.max(0, Math.ceil(low - 1e-9));
  const last = Math.min(all.length - 1, Math.floor(high + 1e-9));
  const stride = Math.max(1, Math.ceil(((high - low) * meta.pixels.tick) / height));
  const vals = [];
  const texts = [];
  for (let row = first; row <= last; row += stride) {
    vals.push(all[row]);
    texts.push(labels[row]);
  }
  return { tickvals: vals, ticktext: texts };
}

export function tintTrace(trace, dark) {
  if (!dark) return trace;
  const tint = (part) => (part && TINTS[part.color] ? { ...part, color: TINTS[part.color] } : part);
  return { ...trace, ...(trace.marker ? { marker: tint(trace.marker) } : {}), ...(trace.line ? { line: tint(trace.line) } : {}) };
}

export function sayPercent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

// On a narrow page the colours' legend needs a larger part of the width.
export function makeRoom({ data, layout }) {
  Object.assign(data[0], { colorbar: { ...data[0].colorbar, x: 0.555 } });
  Object.assign(layout, { xaxis: { ...layout.xaxis, domain: [0, 0.55] }, xaxis2: { ...layout.xaxis2, domain: [0.72, 1] } });
}

// Range and ticks of the shares of units, whose 0 lies at the height of the curves' 0.
export function shareAxis(shares, zero, strides) {
  const top = 1.06 * Math.max(0.02, ...shares);
  const stride = strides.find((size) => top / size <= 5) || strides[strides.length - 1];
  return { range: [(-zero / (1 - zero)) * top, top], tickvals: Array.from({ length: Math.floor(top / stride) + 1 }, (_, at) => at * stride) };
}

// A gain as the axis has it: "÷4.2", "×1.3".
export function sayGain(log) {
  if (log < NOTHING_LEFT) return "nothing gets through";
  const factor = 10 ** Math.abs(log);
  return `${log < 0 ? "÷" : "×"}${sayNumber(factor)}`;
}

export function noGains(dark) {
  return [{ text: "none measured<br>at this step", xref: "x2 domain", x: 0.5, yref: "paper", y: 0.5, showarrow: false,
    font: { color: themeColours(dark).text } }];
}

function pick(values, rows) {
  return rows.map((row) => values[row]);
}

function filterTrace(trace, rows, scale) {
  if (trace.type === "heatmap") return filterHeatmap(trace, rows, scale);
  if (trace.mode === "lines") return filterLines(trace, rows);
  return { ...trace, x: pick(decode(trace.x), rows), y: pick(trace.y, rows) };
}

function filterHeatmap({ x, ...trace }, rows, scale) {
  const grid = evenColumns(Array.from(decode(x)), MOST_COLUMNS);
  const matrix = Array.isArray(trace.z) ? trace.z : decodeRows(trace.z);
  const z = rows.map((row) => Float32Array.from(grid.columns, (column) => matrix[row][column]));
  return { ...trace, x0: grid.first, dx: grid.width, y: pick(trace.y, rows), z, colorscale: scale || trace.colorscale,
    hoverinfo: "none", hovertemplate: null };
}

// A line of two points and a gap per row.
function filterLines(trace, rows) {
  const places = rows.flatMap((row) => [3 * row, 3 * row + 1, 3 * row + 2]);
  return { ...trace, x: pick(trace.x, places), y: pick(trace.y, places) };
}

// The figure with only some rows and this theme's colours; the original stays as it is.
// `tall` is the height of the whole chart where its neighbour needs more than its own.
export function arrange(figure, rows, dark, tall = 0) {
  const { meta, margin } = figure.layout;
  const colours = themeColours(dark);
  const height = Math.max(plotHeight(meta, rows.length), tall - margin.t - margin.b);
  const categories = pick(figure.layout.yaxis.categoryarray, rows);
  const labels = pick(meta.labels, rows);
  const layout = {
    ...figure.layout,
    height: height + margin.t + margin.b,
    font: { ...figure.layout.font, color: colours.text },
    hoverlabel: { ...figure.layout.hoverlabel, bgcolor: colours.hover, font: { color: colours.text } },
    yaxis: {
      ...figure.layout.yaxis, categoryarray: categories, range: [rows.length - 0.5, -0.5],
      ...ticksBetween(categories, labels, -0.5, rows.length - 0.5, meta, height),
    },
    annotations: (figure.layout.annotations || []).map((note) => ({ ...note, font: { color: colours.text } })),
    datarevision: Math.random(),
  };
  const scale = dark ? meta.dark_scale : null;
  return { data: figure.data.map((trace) => filterTrace(tintTrace(trace, dark), rows, scale)), layout, categories, labels, height };
}

export function stepLine(step, dark, until = 1) {
  return { type: "line", xref: "x", yref: "paper", x0: step, x1: step, y0: 0, y1: until,
    line: { color: themeColours(dark).line, width: 2, dash: "dot" } };
}

// A frame around the layers of a finding.
export function layerFrame(rows, names, domain, dark) {
  const chosen = new Set(names);
  const places = rows.flatMap((name, place) => (chosen.has(name) ? [place] : []));
  if (!places.length) return [];
  return [{ type: "rect", xref: "paper", yref: "y", x0: domain[0], x1: domain[1],
    y0: Math.min(...places) - 0.5, y1: Math.max(...places) + 0.5,
    line: { color: themeColours(dark).line, width: 2 } }];
}

// The gain bars of one step: one list of log10 values per share.
export function gainsAt(gains, shares, total, columns, column, rows) {
  return Array.from({ length: shares }, (_, share) =>
    takeColumn(gains, columns, column, rows, 0, share * total * columns));
}

const WORSE = { light: "#c0352b", dark: "#ff9b90" };

// Sudden changes: a dashed line each, and a mark above the plot that tells on hover.
export function eventMarks(events, dark) {
  const colour = (event) => (event.worse ? WORSE[dark ? "dark" : "light"] : themeColours(dark).text);
  return {
    shapes: events.map((event) => ({ type: "line", xref: "x", yref: "paper", x0: event.step, x1: event.step, y0: 0, y1: 1,
      line: { color: colour(event), width: 1.5, dash: "dash" } })),
    annotations: events.map((event) => ({ text: "▼", xref: "x", x: event.step, yref: "paper", y: 1, yanchor: "bottom", showarrow: false,
      captureevents: true, hovertext: event.text, font: { size: 11, color: colour(event) } })),
  };
}
