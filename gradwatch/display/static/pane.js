// One run on the page: how it stands, banner, charts, slider, findings, table.
import { nearest } from "./arrays.js";
import { renderBanner } from "./banner.js";
import { arrangeCards, chartNode, fitRows, makeCard, labelled } from "./cards.js";
import { LayerChart } from "./charts.js";
import { calmly, el, markPainted, replace, replaceCalmly } from "./dom.js";
import { card, nothing, tools } from "./frame.js";
import { themeColours } from "./layout.js";
import { renderAbout, renderFindings, renderLayers, renderTrials } from "./tables.js";
import { sayState } from "./words.js";

const PARTS = ["who", "first", "words", "rest"];

export class Pane {
  constructor(source, settings) {
    Object.assign(this, { source, settings, charts: [], column: 0 });
    this.title = el("div");
    this.status = el("div", { class: "state" });
    this.top = el("div", { role: "status" });
    PARTS.forEach((name) => { this[name] = el("div", { class: name }); });
    this.about = el("div");
    this.node = el("article", { class: "pane" }, this.title, this.status, this.top, PARTS.map((name) => this[name]), this.about);
  }

  // What charts need to know; read afresh at every draw.
  state() {
    const pane = this;
    return {
      get matches() { return pane.settings.matches; },
      get dark() { return pane.settings.dark; },
      get column() { return pane.column; },
      get chosen() { return pane.chosen || []; },
      get events() { return pane.answer?.events || []; },
      get share() { return pane.settings.share; },
      step: () => pane.steps[pane.column],
      text: () => themeColours(pane.settings.dark).text,
      choose: (step, layer) => { pane.chosen = layer ? [layer] : pane.chosen; pane.goTo(step); },
    };
  }

  // The words first; charts follow when the library and the figures are here.
  show(brief, address = {}) {
    const isNew = !this.brief || this.brief.run !== brief.run;
    // The same words again: a loading of the charts that is under way goes on.
    if (JSON.stringify(this.brief) === JSON.stringify(brief)) return null;
    this.brief = brief;
    this.node.setAttribute("aria-label", `Run ${brief.run}`);
    const go = (finding) => this.showFinding(finding);
    const { rules } = this.settings;
    replace(this.title, this.settings.compared ? el("h2", { class: "run-name" }, brief.run) : null);
    replaceCalmly(this.top, renderBanner(brief, go));
    replaceCalmly(this.words, brief.findings ? renderFindings(brief, go, rules) : null, renderTrials(brief.trials));
    replace(this.about, renderAbout(brief.about));
    this.tick();
    markPainted(brief.severity === "reading" ? "reading" : "banner");
    if (isNew) this.begin(address);
    if (!brief.records) { PARTS.filter((name) => name !== "words").forEach((name) => replace(this[name])); this.shape = null; return null; }
    if (isNew) replace(this.first, nothing("Loading the charts …"));
    return this.load(brief);
  }

  begin(address) {
    delete this.node.dataset.drawn;
    [this.who, this.rest].forEach((part) => replace(part));
    Object.assign(this, { chosen: address.layer ? [address.layer] : [], charts: [], shape: null, steps: null, units: null,
      wanted: address, atEnd: !address.step });
  }

  // How the run stands, by the clock.
  tick() {
    const said = this.brief && sayState(this.brief.state, this.brief.last_step, this.settings.now());
    this.status.className = said ? `state ${said.tone}` : "state";
    this.node.classList.toggle("broken", said?.tone === "bad"); // whose pass is no green one
    if (this.status.textContent !== (said ? said.text : "")) this.status.textContent = said ? said.text : "";
  }

  async load(brief) {
    try {
      const [answer, plotly] = await Promise.all([
        this.source.figures(brief.run), this.source.plotly().catch(() => null)]);
      if (this.brief !== brief) return; // another run was chosen meanwhile
      await this.build(answer, plotly);
    } catch (error) {
      if (this.brief === brief && !this.shape) replace(this.first, nothing(`The charts could not be loaded: ${error.message}`));
    }
  }

  // New figures go into the charts that are there; only when cards come or go are they made again.
  async build(answer, plotly) {
    const { profile } = answer.figures;
    this.answer = answer;
    if (!plotly || !profile) { this.buildWords(answer, plotly); return; }
    const step = this.steps ? this.steps[this.column] : this.wanted.step ? Number(this.wanted.step) : null;
    this.steps = profile.layout.meta.steps;
    this.column = this.atEnd || step === null ? profile.layout.meta.last : nearest(this.steps, step);
    const shape = JSON.stringify(answer.cards.map((card) => [card.name, card.empty, Boolean(answer.figures[card.name])]));
    if (shape === this.shape) this.refill(answer);
    else this.makeCards(answer, plotly);
    this.shape = shape;
    this.slider.max = this.steps.length - 1;
    this.slider.disabled = this.steps.length < 2;
    this.tellStep();
    await this.drawAll();
    this.node.dataset.drawn = String(this.charts.length);
    markPainted("charts");
    if (this.wanted.card) this.node.querySelector(`[data-card="${CSS.escape(this.wanted.card)}"]`)?.scrollIntoView({ block: "start" });
    this.wanted = {};
    if (this.loaded) this.loaded();
  }

  buildWords(answer, plotly) {
    const hint = plotly ? "There is nothing to draw yet." : "For the charts, install plotly where TensorBoard runs: pip install 'gradwatch[plots]'";
    this.layers = renderLayers(answer.layers, (name) => this.settings.matches(name));
    replace(this.first, nothing(hint));
    replace(this.rest, this.layers);
  }

  makeCards(answer, plotly) {
    const held = this.node.offsetHeight;
    this.node.style.minHeight = `${held}px`; // so that the page does not jump meanwhile
    const made = answer.cards.map((card) => ({ ...card, ...makeCard(card, answer.figures[card.name], plotly, this) }));
    const [above, below] = [made.filter((card) => card.first), made.filter((card) => !card.first)];
    this.layers = renderLayers(answer.layers, (name) => this.settings.matches(name));
    this.charts = [];
    replace(this.who, arrangeCards(above.map((card) => card.node)));
    replace(this.first, this.profileCard(answer.figures.profile, plotly));
    replace(this.rest, arrangeCards(below.map((card) => card.node)), this.layers);
    this.rows = [above, below].map((part) => part.map((card) => card.chart).filter(Boolean));
    this.named = Object.fromEntries(made.filter((card) => card.chart).map((card) => [card.name, card.chart]));
    this.charts.push(...this.rows.flat());
    this.node.style.minHeight = "";
  }

  refill(answer) {
    this.profile.take(answer.figures.profile);
    Object.entries(this.named).forEach(([name, chart]) => chart.take(answer.figures[name]));
    this.layers.take(answer.layers);
  }

  drawAll() {
    this.rows.forEach((row) => fitRows(row, this.node.clientWidth));
    return Promise.all(this.charts.map((chart) => chart.draw()));
  }

  profileCard(figure, plotly) {
    const node = chartNode("Gradient by layer and step, and gain per layer");
    const chart = new LayerChart(node, figure, plotly, this.state());
    this.profile = chart;
    chart.drew = (left, width) => this.alignSlider(left, width);
    this.charts.push(chart);
    this.readout = el("output", { class: "readout" });
    this.slider = el("input", { type: "range", min: 0, max: this.steps.length - 1, value: this.column,
      "aria-label": "Step", oninput: () => this.moveTo(Number(this.slider.value)) });
    this.sliderRow = el("label", { class: "slider" }, el("span"), this.slider, el("span", { class: "at" }, "step ", this.readout));
    return labelled(card("How much gradient reaches each layer",
      "left: gradient against that of the last layers, input layer on top, blue down to the limit of the rule; right: what each layer multiplies it by on its way back",
      node, this.sliderRow,
      figure.layout.meta.gaps ? el("p", { class: "muted" }, "Grey: NaN, Inf, or no gradient recorded.") : null,
      tools(chart, "profile", (name) => this.link(name))), "profile");
  }

  // The slider lies under the heatmap, so that its thumb and the dotted line move together.
  alignSlider(left, width) {
    this.sliderRow.style.gridTemplateColumns = `${left}px ${width}px minmax(5em, 1fr)`;
  }

  tellStep() {
    const step = this.steps[this.column].toLocaleString("en");
    this.slider.value = this.column;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.readout.textContent = step;
  }

  moveTo(column) {
    this.column = column;
    this.atEnd = column >= this.profile.meta.last;
    this.tellStep();
    this.charts.forEach((chart) => chart.moveSoon());
    if (this.moved) this.moved(this.steps[column]);
    this.settings.placed();
  }

  goTo(step) {
    if (this.steps) this.moveTo(nearest(this.steps, step));
  }

  // Where this pane stands, for the address.
  place() {
    const step = this.steps && !this.atEnd ? this.steps[this.column] : null;
    return { run: this.brief?.run, step, layer: this.chosen?.[0] };
  }

  link(name) {
    return this.settings.placed(name);
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
    return this.rows ? this.drawAll() : null;
  }
}
