// One run on the page: banner, findings, charts, slider, table.
import { nearest } from "./arrays.js";
import { renderBanner } from "./banner.js";
import { LayerChart, UnitsChart } from "./charts.js";
import { calmly, el, markPainted, replace } from "./dom.js";
import { themeColours } from "./layout.js";
import { renderFindings, renderLayers, renderTrials } from "./tables.js";

function card(title, subtitle, ...content) {
  return el("section", { class: "card" }, el("h2", {}, title), el("p", { class: "muted" }, subtitle), content);
}

// Two columns without a hole: what has nothing to draw comes first, and a last odd one is wide.
function arrangeCards(cards) {
  const slim = cards.filter((one) => !one.querySelector(".chart"));
  const drawn = cards.filter((one) => one.querySelector(".chart"));
  [slim, drawn].filter((row) => row.length % 2).forEach((row) => row[row.length - 1].classList.add("wide"));
  return el("div", { class: "grid" }, slim, drawn);
}

function nothing(text) {
  return el("p", { class: "none" }, text);
}

export class Pane {
  constructor(source, settings) {
    Object.assign(this, { source, settings, charts: [], column: 0 });
    this.top = el("div", { role: "status" });
    [this.first, this.words, this.rest] = ["first", "words", "rest"].map((name) => el("div", { class: name }));
    this.node = el("article", { class: "pane" }, this.top, this.first, this.words, this.rest);
  }

  // What charts need to know; read afresh at every draw.
  state() {
    const pane = this;
    return {
      get matches() { return pane.settings.matches; },
      get dark() { return pane.settings.dark; },
      get column() { return pane.column; },
      get chosen() { return pane.chosen || []; },
      step: () => pane.steps[pane.column],
      text: () => themeColours(pane.settings.dark).text,
      choose: (step) => pane.goTo(step),
    };
  }

  // The words first; charts follow when the library and the figures are here.
  show(brief) {
    const isNew = !this.brief || this.brief.run !== brief.run;
    // The same words again: a loading of the charts that is under way goes on.
    if (JSON.stringify(this.brief) === JSON.stringify(brief)) return null;
    this.brief = brief;
    this.node.setAttribute("aria-label", `Run ${brief.run}`);
    const go = (finding) => this.showFinding(finding);
    replace(this.top, this.settings.compared ? el("h2", { class: "run-name" }, brief.run) : null, renderBanner(brief, go));
    replace(this.words, brief.findings ? renderFindings(brief, go) : null, renderTrials(brief.trials));
    markPainted(brief.severity === "reading" ? "reading" : "banner");
    if (isNew) delete this.node.dataset.drawn;
    if (isNew) Object.assign(this, { chosen: [], charts: [], column: -1, atEnd: true, units: null });
    if (!brief.records) { replace(this.first); replace(this.rest); return null; }
    if (isNew) { replace(this.first, nothing("Loading the charts …")); replace(this.rest); }
    return this.load(brief);
  }

  async load(brief) {
    try {
      const [answer, plotly] = await Promise.all([
        this.source.figures(brief.run), this.source.plotly().catch(() => null)]);
      if (this.brief !== brief) return; // another run was chosen meanwhile
      await this.build(answer, plotly);
    } catch (error) {
      if (this.brief === brief) replace(this.first, nothing(`The charts could not be loaded: ${error.message}`));
    }
  }

  async build(answer, plotly) {
    const step = this.steps ? this.steps[this.column] : null;
    this.layers = renderLayers(answer.layers, (name) => this.settings.matches(name));
    const { profile } = answer.figures;
    this.charts = [];
    if (!plotly || !profile) {
      const hint = plotly ? "There is nothing to draw yet." : "For the charts, install plotly where TensorBoard runs: pip install 'gradwatch[plots]'";
      replace(this.first, nothing(hint));
      replace(this.rest, this.layers);
      return;
    }
    this.steps = profile.layout.meta.steps;
    this.column = this.atEnd || step === null ? this.steps.length - 1 : nearest(this.steps, step);
    replace(this.first, this.profileCard(profile, plotly));
    replace(this.rest, arrangeCards(answer.cards.map((one) => this.smallCard(one, answer, plotly))), this.layers);
    this.tellStep();
    await Promise.all(this.charts.map((chart) => chart.draw()));
    this.node.dataset.drawn = String(this.charts.length);
    markPainted("charts");
  }

  chartNode(label) {
    return el("div", { class: "chart", role: "img", "aria-label": `${label}. The table of layers below holds the numbers.` });
  }

  profileCard(figure, plotly) {
    const node = this.chartNode("Gradient by layer and step, and gain per layer");
    const chart = new LayerChart(node, figure, plotly, this.state());
    chart.drew = (left, width) => this.alignSlider(left, width);
    this.charts.push(chart);
    this.readout = el("output", { class: "readout" });
    this.slider = el("input", { type: "range", min: 0, max: this.steps.length - 1, value: this.column,
      disabled: this.steps.length < 2, "aria-label": "Step", oninput: () => this.moveTo(Number(this.slider.value)) });
    this.sliderRow = el("label", { class: "slider" }, el("span"), this.slider, el("span", { class: "at" }, "step ", this.readout));
    return card("How much gradient reaches each layer",
      "left: gradient against that of the last layers, input layer on top; right: what each layer multiplies it by on its way back",
      node, this.sliderRow,
      figure.layout.meta.gaps ? el("p", { class: "muted" }, "Grey: NaN, Inf, or no gradient recorded.") : null);
  }

  // The slider lies under the heatmap, so that its thumb and the dotted line move together.
  alignSlider(left, width) {
    this.sliderRow.style.gridTemplateColumns = `${left}px ${width}px minmax(5em, 1fr)`;
  }

  // Which cards there are, and their words, the server says.
  smallCard({ name, title, description, empty }, answer, plotly) {
    const figure = answer.figures[name];
    if (!figure) return card(title, description, nothing(empty));
    const node = this.chartNode(title);
    if (name === "units") return card(title, description, this.unitsControls(node, figure, plotly));
    this.charts.push(new LayerChart(node, figure, plotly, this.state()));
    return card(title, description, node);
  }

  unitsControls(node, figure, plotly) {
    const chart = new UnitsChart(node, figure, plotly, this.state());
    this.charts.push(chart);
    const said = el("p", { class: "said", role: "status" });
    chart.tell = (text) => { said.textContent = text; };
    const select = el("select", { "aria-label": "Activation", onchange: () => chart.choose(select.value) },
      figure.layout.meta.names.map((name) => el("option", { value: name }, name)));
    this.units = (layers) => {
      const name = layers.find((one) => figure.layout.meta.names.includes(one));
      if (name) { select.value = name; chart.name = name; }
    };
    this.units(this.brief.findings[0]?.layers || []);
    return [el("label", { class: "pick" }, "Activation ", select), node, said];
  }

  tellStep() {
    const step = this.steps[this.column].toLocaleString("en");
    this.slider.value = this.column;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.readout.textContent = step;
  }

  moveTo(column) {
    this.column = column;
    this.atEnd = column === this.steps.length - 1;
    this.tellStep();
    this.charts.forEach((chart) => chart.moveSoon());
    if (this.moved) this.moved(this.steps[column]);
  }

  goTo(step) {
    if (this.steps) this.moveTo(nearest(this.steps, step));
  }

  // A finding was chosen: its layers are framed and the slider stands where it began.
  showFinding(finding) {
    if (!this.steps) return;
    this.chosen = finding.layers;
    if (this.units) this.units(finding.layers);
    this.goTo(finding.first_step);
    this.first.scrollIntoView({ behavior: calmly(), block: "start" });
  }

  redraw() {
    if (this.layers) this.layers.refill();
    return Promise.all(this.charts.map((chart) => chart.draw()));
  }
}
