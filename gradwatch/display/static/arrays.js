// Typed arrays as the Python side sends them: {dtype, bdata, shape}, base64, little-endian.

const ARRAYS = { f4: Float32Array, i2: Int16Array, i4: Int32Array, u1: Uint8Array };
const UNKNOWN = -32768; // of int16 thousandths of log10

export function decode(spec) {
  if (Array.isArray(spec)) return spec;
  const text = atob(spec.bdata);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new ARRAYS[spec.dtype](bytes.buffer);
}

// A matrix as one view per row; nothing is copied.
export function decodeRows(spec) {
  const flat = decode(spec);
  const [rows, columns] = spec.shape.split(",").map(Number);
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
}

// One column of int16 thousandths of log10, for some rows, as log10; `unknown` where not measured.
export function takeColumn(flat, columns, column, rows, unknown, offset = 0) {
  return rows.map((row) => {
    const value = flat[offset + row * columns + column];
    return value === UNKNOWN ? unknown : value / 1000;
  });
}

// The place of the step nearest to `step` in an ascending list.
export function nearest(steps, step) {
  let low = 0;
  let high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  return step - steps[low] <= steps[high] - step ? low : high;
}

// Columns on an even grid of steps, each showing the nearest recorded one: Plotly paints a heatmap
// with even columns several times faster.
export function evenColumns(steps, most) {
  const first = steps[0];
  const last = steps[steps.length - 1];
  const gaps = steps.slice(1).map((step, place) => step - steps[place]);
  const least = gaps.reduce((low, gap) => Math.min(low, gap), last - first || 1);
  const count = Math.min(most, Math.round((last - first) / least) + 1);
  const width = count > 1 ? (last - first) / (count - 1) : 1;
  return { first, width, columns: Array.from({ length: count }, (_, at) => nearest(steps, first + at * width)) };
}
