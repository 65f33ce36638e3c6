// The cards of a run: which there are, made once, and given newer figures while the run goes on.
import { el } from "./dom.js";
import { LayerChart } from "./charts.js";
import { card, nothing, tools } from "./frame.js";
import { LinesChart } from "./lines.js";
import { UnitsChart } from "./units.js";

const TWO_COLUMNS_PIXELS = 900;
const KINDS = { units: UnitsChart, loss: LinesChart };

export function chartNode(label) {
  return el("div", { class: "chart", role: "img", "aria-label": `${label}. The table of layers below holds the numbers.` });
}

// Two columns without a hole: what has nothing to draw comes first, and a last odd one is wide.
export function arrangeCards(cards) {
  const slim = cards.filter((card) => !card.querySelector(".chart"));
  const drawn = cards.filter((card) => card.querySelector(".chart"));
  [slim, drawn].filter((row) => row.length % 2).forEach((row) => row[row.length - 1].classList.add("wide"));
  return el("div", { class: "grid" }, slim, drawn);
}

// Charts that stand beside each other are as tall as the taller one, so that no card is half empty.
export function fitRows(charts, width) {
  charts.forEach((chart) => { chart.tall = 0; });
  if (width < TWO_COLUMNS_PIXELS) return;
  for (let place = 0; place + 1 < charts.length; place += 2) {
    const pair = charts.slice(place, place + 2);
    const tall = Math.max(...pair.map((chart) => chart.natural() + (chart.below || 0)));
    pair.forEach((chart) => { chart.tall = tall - (chart.below || 0); });
  }
}

// One card: its node, and its chart where there is something to draw.
export function makeCard({ name, title, description, empty }, figure, plotly, pane) {
  if (!figure) return { node: labelled(card(title, description, nothing(empty)), name), chart: null };
  const node = chartNode(title);
  const chart = new (KINDS[name] || LayerChart)(node, figure, plotly, pane.state());
  const content = name === "units" ? unitsControls(node, figure, chart, pane) : [node];
  const made = labelled(card(title, description, content), name);
  made.append(tools(chart, name, (card) => pane.link(card)));
  return { node: made, chart };
}

export function labelled(node, name) {
  node.dataset.card = name;
  return node;
}

function unitsControls(node, figure, chart, pane) {
  const said = el("p", { class: "said", role: "status" });
  chart.below = 74; // pixels of the list above the chart and of the words below it
  chart.tell = (text) => { said.textContent = text; };
  const select = el("select", { "aria-label": "Activation", onchange: () => chart.choose(select.value) },
    figure.layout.meta.names.map((name) => el("option", { value: name }, name)));
  pane.units = (layers) => {
    const name = layers.find((layer) => figure.layout.meta.names.includes(layer));
    if (name) { select.value = name; chart.name = name; }
  };
  pane.units(pane.brief.findings[0]?.layers || []);
  return [el("label", { class: "pick" }, "Activation ", select), node, said];
}
