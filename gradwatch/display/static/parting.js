// Where two runs part: the first step, and there the first layer, from which on their gradients
// differ by the factor of the thresholds at several sampled steps in a row.
import { decode, decodeRows, nearest } from "./arrays.js";

// Rows and steps that both runs have, and log10 of b's gradient over a's.
export function subtract(a, b) {
  const [metaA, metaB] = [a.layout.meta, b.layout.meta];
  const placesB = new Map(metaB.names.map((name, row) => [name, row]));
  const rows = metaA.names.flatMap((name, row) => (placesB.has(name) ? [[name, row, placesB.get(name)]] : []));
  const [first, last] = [Math.max(metaA.steps[0], metaB.steps[0]), Math.min(metaA.steps.at(-1), metaB.steps.at(-1))];
  const columns = metaA.steps.flatMap((step, column) => {
    const other = nearest(metaB.steps, step);
    const gap = Math.max(1, (metaB.steps.at(-1) - metaB.steps[0]) / metaB.steps.length);
    return step >= first && step <= last && Math.abs(metaB.steps[other] - step) <= gap ? [[step, column, other]] : [];
  });
  const [left, right] = [decodeRows(a.data[0].z), decodeRows(b.data[0].z)];
  const differences = rows.map(([, rowA, rowB]) => Float32Array.from(columns, ([, atA, atB]) => right[rowB][atB] - left[rowA][atA]));
  return { names: rows.map(([name]) => name), steps: columns.map(([step]) => step), differences };
}

// Step and layer of the parting, or null where the runs go together.
export function findParting({ names, steps, differences }, { factor, records }) {
  const least = Math.log10(factor);
  const differs = (row, column) => Math.abs(differences[row][column]) >= least;
  for (let column = 0; column + records <= steps.length; column += 1) {
    for (let row = 0; row < names.length; row += 1) {
      let lasting = 0;
      while (lasting < records && differs(row, column + lasting)) lasting += 1;
      if (lasting === records) return { layer: names[row], step: steps[column], log: differences[row][column] };
    }
  }
  return null;
}

export function lastLoss(figure) {
  const trace = figure?.data.find((line) => line.name === "loss");
  return trace ? Array.from(decode(trace.y)).filter(Number.isFinite).at(-1) : undefined;
}
