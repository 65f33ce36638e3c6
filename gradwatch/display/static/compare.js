// Several runs against each other: one table, their losses in one chart, where they part, and the
// difference of two of them by layer and step.
import { decode } from "./arrays.js";
import { chartNode, labelled } from "./cards.js";
import { CONFIG, LayerChart } from "./charts.js";
import { el, nameNode, replace, sentence } from "./dom.js";
import { card, nothing, tools } from "./frame.js";
import { themeColours } from "./layout.js";
import { findParting, lastLoss, subtract } from "./parting.js";
import { sayStep, sayTimes } from "./words.js";

const COLOURS = [["#0f8b8d", "#45c4c6"], ["#b5739d", "#dba3c6"], ["#5b6873", "#b9c4cd"], ["#8d6e3f", "#d3b27f"], ["#2b3a67", "#9fb0e6"]];
const DASHES = ["solid", "dash", "dot", "dashdot"];

// Runs as a table: verdict, last step and loss, and where each parts from the first one.
function runsTable(panes, limits) {
  const base = panes[0];
  const row = (pane) => {
    const parting = pane === base ? null : findParting(subtract(base.answer.figures.profile, pane.answer.figures.profile), limits);
    const loss = lastLoss(pane.answer.figures.loss);
    return el("tr", {}, el("th", { scope: "row" }, nameNode(pane.brief.run)), el("td", {}, sentence(pane.brief.headline)),
      el("td", { class: "number" }, pane.brief.last_step.toLocaleString("en")),
      el("td", { class: "number" }, loss === undefined ? "–" : Number(loss.toPrecision(3)).toString()),
      el("td", {}, pane === base ? "the others are compared with it" : parting
        ? [nameNode(parting.layer), ` at ${sayStep(parting.step)}: ${sayTimes(parting.log, base.brief.run)}`]
        : `nowhere: all layers within a factor of ${limits.factor}`));
  };
  return el("table", { class: "compared-runs" }, el("thead", {}, el("tr", {},
    ["Run", "Verdict", "Last step", "Last loss", "First layer that parts"].map((text) => el("th", { scope: "col" }, text)))),
  el("tbody", {}, panes.map(row)));
}

// Losses of all runs on one scale.
async function drawLosses(node, panes, plotly, dark) {
  const colours = themeColours(dark);
  const data = panes.flatMap((pane, place) => {
    const trace = pane.answer.figures.loss?.data.find((line) => line.name === "loss");
    return trace ? [{ ...trace, x: decode(trace.x), y: decode(trace.y), name: pane.brief.run.replace(/</g, "&lt;"), mode: "lines",
      line: { width: 2, color: COLOURS[place % COLOURS.length][dark ? 1 : 0], dash: DASHES[Math.floor(place / COLOURS.length) % DASHES.length] } }] : [];
  });
  if (!data.length) { replace(node, nothing("None of these runs has recorded its loss.")); return; }
  const figure = panes.find((pane) => pane.answer.figures.loss).answer.figures.loss;
  const steps = panes.flatMap((pane) => [pane.steps[0], pane.steps.at(-1)]);
  const { yaxis2, ...layout } = figure.layout; // the learning rate's
  await plotly.react(node, data, { ...layout, annotations: [], shapes: [], height: 260, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    margin: { l: 58, r: 12, t: 34, b: 44 }, font: { ...layout.font, color: colours.text },
    xaxis: { ...layout.xaxis, anchor: "y", range: [Math.min(...steps), Math.max(...steps)] },
    yaxis: { ...layout.yaxis, domain: [0, 1] } }, CONFIG);
}

// The heatmap of the gradient with b's values over a's in place of its own.
function differenceFigure(a, b, name) {
  const { names, steps, differences } = subtract(a, b);
  const rows = names.map((name) => a.layout.meta.names.indexOf(name));
  const { data: [heatmap], layout: { xaxis2, ...layout } } = a;
  const pick = (values) => rows.map((row) => values[row]);
  return {
    data: [{ ...heatmap, x: steps, y: pick(heatmap.y), z: differences, zmin: -4, zmax: 4,
      colorscale: [[0, "#67001f"], [0.25, "#f08a4b"], [0.5, "#e9ecef"], [0.75, "#6a51a3"], [1, "#3f007d"]],
      colorbar: { thickness: 12, len: 1, outlinewidth: 0, tickvals: [-4, -2, 0, 2, 4], ticktext: ["÷10,000", "÷100", "same", "×100", "×10,000"] } }],
    layout: { ...layout, showlegend: false, shapes: [], xaxis: { ...layout.xaxis, domain: [0, 1], range: [steps[0] - 0.5, steps.at(-1) + 0.5] },
      yaxis: { ...layout.yaxis, categoryarray: pick(layout.yaxis.categoryarray) },
      meta: { ...layout.meta, kind: "difference", names, labels: pick(layout.meta.labels), steps, gains: null, gaps: false,
        backdrop: layout.meta.backdrop, say: (log) => sayTimes(log, name) } },
  };
}

export class Comparison {
  constructor(source, settings) {
    Object.assign(this, { source, settings, against: null });
    this.node = el("section", { class: "comparison", "aria-label": "Comparison" });
  }

  // Once all panes have their figures.
  async show(panes) {
    const ready = panes.filter((pane) => pane.answer?.figures?.profile && pane.steps);
    if (ready.length < 2) { replace(this.node); return; }
    const plotly = await this.source.plotly().catch(() => null);
    if (!plotly) return;
    const base = ready[0];
    const limits = base.answer.compare;
    const other = ready.find((pane) => pane.brief.run === this.against) || ready[1];
    const losses = chartNode("Losses of the runs");
    const node = chartNode("Difference of the gradients");
    const choice = el("select", { "aria-label": "Difference to", onchange: () => { this.against = choice.value; this.show(panes); } },
      ready.slice(1).map((pane) => el("option", { value: pane.brief.run, selected: pane === other }, pane.brief.run)));
    const figure = differenceFigure(base.answer.figures.profile, other.answer.figures.profile, base.brief.run);
    const shared = figure.layout.meta.names.length && figure.layout.meta.steps.length;
    const chart = new LayerChart(node, figure, plotly, { ...base.state(), matches: this.settings.matches, dark: this.settings.dark,
      chosen: [], events: [], share: null, column: 0, step: () => base.steps[base.column], choose: (step) => base.goTo(step) });
    replace(this.node, labelled(card("Compared runs", `all on one scale; two runs part where a layer's gradient differs by a factor of ${limits.factor} at ${limits.records} sampled steps in a row`,
      runsTable(ready, limits)), "compare"),
    el("div", { class: "grid" }, labelled(card("Losses", "of all chosen runs", losses), "losses"),
      labelled(card("Difference", ["gradient of ", ready.length > 2 ? choice : nameNode(other.brief.run), " against ", nameNode(base.brief.run), ": orange and red less, violet more"],
        shared ? [node, tools(chart, "difference", (name) => this.settings.placed(name))] : nothing("These two runs share no layer or no step.")), "difference")));
    await drawLosses(losses, ready, plotly, this.settings.dark);
    if (shared) await chart.draw();
  }
}

// One scale for all: the widest axes, and violet for all where one run's gradients grow.
export function shareScales(panes) {
  const figures = (name) => panes.map((pane) => pane.answer?.figures?.[name]).filter(Boolean);
  const widest = (name, axis) => {
    const ranges = figures(name).map((figure) => figure.layout[axis]?.range).filter(Boolean);
    return ranges.length ? [Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))] : null;
  };
  const steps = widest("profile", "xaxis");
  const grown = figures("profile").map((figure) => figure.data[0]).find((heatmap) => heatmap.zmax > 0);
  return (kind, { data, layout }) => {
    if (steps && kind !== "updates" && kind !== "units") layout.xaxis = { ...layout.xaxis, range: steps };
    if (kind === "updates") layout.xaxis = { ...layout.xaxis, range: widest("updates", "xaxis") };
    if (kind !== "profile") return;
    layout.xaxis2 = { ...layout.xaxis2, range: widest("profile", "xaxis2") };
    if (grown) Object.assign(data[0], { zmin: grown.zmin, zmax: grown.zmax, colorscale: grown.colorscale, colorbar: { ...data[0].colorbar, ticktext: grown.colorbar.ticktext, tickvals: grown.colorbar.tickvals } });
  };
}
