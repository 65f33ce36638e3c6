// Charts that have layers as rows: drawn, filtered, moved to a step, coloured by theme.
import { decode, nearest, takeColumn } from "./arrays.js";
import { oncePerFrame } from "./dom.js";
import { arrange, gainsAt, keepRows, layerFrame, makeRoom, noGains, sayGain, sayPercent, shareAxis, stepLine, ticksBetween, tintTrace } from "./layout.js";

const LONGEST_NAME = 48; // the list above shows it
const NARROW_PIXELS = 720; // of the heatmap with its bars
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false, doubleClick: "reset" };

export class LayerChart {
  constructor(node, figure, plotly, state) {
    Object.assign(this, { node, figure, plotly, state });
    this.meta = figure.layout.meta;
    this.numbers = this.meta.gains || this.meta.ratios ? decode(this.meta.gains || this.meta.ratios) : null;
    this.moveSoon = oncePerFrame(() => this.move());
  }

  async draw() {
    this.rows = keepRows(this.meta, this.state.matches);
    this.node.classList.toggle("no-match", !this.rows.length);
    if (!this.rows.length) return;
    const drawn = arrange(this.figure, this.rows, this.state.dark);
    if (this.meta.kind === "profile" && this.node.clientWidth < NARROW_PIXELS) makeRoom(drawn);
    this.drawn = drawn;
    this.stepData(drawn.data);
    Object.assign(drawn.layout, this.stepLayout(drawn.layout));
    await this.plotly.react(this.node, drawn.data, drawn.layout, CONFIG);
    this.listen();
  }

  listen() {
    if (this.listening) return;
    this.listening = true;
    const tell = () => {
      const { _size: size, xaxis } = this.node._fullLayout;
      this.drew(size.l, xaxis._length);
    };
    if (this.drew) { this.node.on("plotly_afterplot", tell); tell(); }
    this.node.on("plotly_relayout", (change) => this.retick(change));
    this.node.on("plotly_click", ({ points }) => {
      const point = points[0];
      if (this.hasSteps() && point.data.type === "heatmap") this.state.choose(point.x);
    });
  }

  // Another choice of labels when one has zoomed in or out.
  retick(change) {
    if (!Object.keys(change).some((key) => key.startsWith("yaxis.range") || key === "yaxis.autorange")) return;
    const [bottom, top] = this.node.layout.yaxis.range;
    const { categories, labels, height } = this.drawn;
    const ticks = ticksBetween(categories, labels, Math.min(top, bottom), Math.max(top, bottom), this.meta, height);
    this.plotly.relayout(this.node, { "yaxis.tickvals": ticks.tickvals, "yaxis.ticktext": ticks.ticktext });
  }

  hasSteps() {
    return this.meta.kind !== "updates";
  }

  shapes() {
    const { column, dark, chosen } = this.state;
    if (!this.hasSteps()) return this.figure.layout.shapes;
    const domain = this.drawn.layout.xaxis.domain || [0, 1];
    const names = this.rows.map((row) => this.meta.names[row]);
    return [stepLine(this.meta.steps[column], dark), ...layerFrame(names, chosen, domain, dark), ...(this.meta.backdrop || [])];
  }

  // What of the layout depends on the chosen step.
  stepLayout({ xaxis2 }) {
    const changed = { shapes: this.shapes() };
    if (this.meta.kind !== "profile") return changed;
    const step = this.meta.steps[this.state.column].toLocaleString("en");
    const known = this.drawn.data.some((trace) => trace.type === "bar" && trace.x.some((one) => one !== 0));
    return { ...changed, xaxis2: { ...xaxis2, title: { ...xaxis2.title, text: `gain at step ${step}` } },
      annotations: known ? [] : noGains(this.state.dark) };
  }

  // Puts this step's numbers into traces; answers which traces and which numbers.
  stepData(data) {
    const columns = this.meta.steps.length;
    const { column } = this.state;
    if (this.meta.kind === "profile") {
      const bars = data.filter((trace) => trace.type === "bar");
      const gains = gainsAt(this.numbers, bars.length, this.meta.names.length, columns, column, this.rows);
      bars.forEach((bar, place) => { Object.assign(bar, { x: gains[place], customdata: gains[place].map(sayGain) }); });
      return [{ x: gains, customdata: bars.map((bar) => bar.customdata) }, bars.map((_, place) => place + 1)];
    }
    if (this.meta.kind === "updates") {
      const dots = takeColumn(this.numbers, columns, column, this.rows, null);
      data[1].x = dots;
      return [{ x: [dots] }, [1]];
    }
    return [{}, []];
  }

  move() {
    if (!this.drawn) return;
    const [values, traces] = this.stepData(this.drawn.data);
    const layout = this.stepLayout(this.drawn.layout);
    if (traces.length) this.plotly.update(this.node, values, layout, traces);
    else this.plotly.relayout(this.node, layout);
  }
}

// Where the units sit: one activation at one sampled step over its curves.
export class UnitsChart {
  constructor(node, figure, plotly, state) {
    Object.assign(this, { node, figure, plotly, state });
    this.meta = figure.layout.meta;
    this.name = this.meta.chosen;
    this.moveSoon = oncePerFrame(() => this.draw());
  }

  choose(name) {
    this.name = name;
    return this.draw();
  }

  // The sampled step nearest to the chosen one.
  sample() {
    const samples = this.meta.units[this.name];
    return samples[nearest(samples.map(([step]) => step), this.state.step())];
  }

  async draw() {
    const [step, shares] = this.sample();
    const curves = this.meta.curves.by_type[this.meta.curves.types[this.name]];
    const { dark } = this.state;
    const [bars, phi, slope] = this.figure.data.map((trace) => tintTrace(trace, dark));
    const data = [
      { ...bars, x: decode(bars.x), width: decode(bars.width), y: shares },
      { ...phi, x: this.meta.curve_z, y: curves.phi || [], line: { ...phi.line, color: this.state.text() } },
      { ...slope, x: this.meta.curve_z, y: curves.slope || [] },
    ];
    const { layout } = this.figure;
    const view = this.meta.views[this.name];
    await this.plotly.react(this.node, data, {
      ...layout, font: { ...layout.font, color: this.state.text() },
      xaxis: { ...layout.xaxis, range: view.z },
      yaxis: { ...layout.yaxis, ...shareAxis(shares, view.zero, this.meta.tick_shares) },
      yaxis2: { ...layout.yaxis2, range: view.phi },
      shapes: this.saturatedZones(curves), datarevision: `${this.name} ${step} ${dark}`,
    }, CONFIG);
    this.told = this.describe(step, shares, curves);
    if (this.tell) this.tell(this.told);
  }

  // Spans of z on which the derivative is near zero, shaded.
  saturatedZones(curves) {
    const spans = [];
    (curves.saturated || []).forEach((isFlat, place) => {
      const z = this.meta.curve_z[place];
      const last = spans[spans.length - 1];
      if (!isFlat) return;
      if (last && last.end === place - 1) Object.assign(last, { end: place, x1: z });
      else spans.push({ end: place, x0: z, x1: z });
    });
    return spans.map(({ x0, x1 }) => ({ type: "rect", yref: "paper", x0, x1, y0: 0, y1: 1, layer: "below",
      fillcolor: "rgba(213,94,0,0.13)", line: { width: 0 } }));
  }

  // The picture in words, for those who do not see it and those who do not know it.
  describe(step, shares, curves) {
    const name = this.name.length > LONGEST_NAME ? "" : `${this.name} at `;
    const where = `${name}step ${step.toLocaleString("en")}: `;
    if (!shares.some((share) => share > 0)) return `${where}no input was a number.`;
    const outside = shares[0] + shares[shares.length - 1];
    const beyond = outside > 0.01 ? ` The outermost bars hold the ${sayPercent(outside)} beyond them.` : "";
    if (!curves.phi) return `${where}its curve is not known here.${beyond}`;
    return `${where}${this.judge(shares, curves)}${beyond}`;
  }

  judge(shares, curves) {
    const z = this.meta.curve_z;
    const isFlat = (value) => curves.saturated[Math.max(0, z.findIndex((one) => one >= value))];
    const flat = shares.reduce((sum, share, place) => sum + (isFlat(this.meta.z[place]) ? share : 0), 0);
    if (curves.rectifies) return `${sayPercent(flat)} of the inputs lie where the unit is off (shaded); about half is normal.`;
    const count = flat < 0.0005 ? "No input lies" : `${sayPercent(flat)} of the inputs lie`;
    const limit = curves.steepest < 0.5 ? ` But φ′ is nowhere above ${curves.steepest}, so even the best unit passes on no more than that share of the gradient.` : "";
    const [low, high] = this.meta.views[this.name].z;
    const seen = z.some((value, place) => curves.saturated[place] && value > low && value < high);
    return `${count} where φ′ is near zero${seen ? " (shaded)" : ""}.${limit}`;
  }
}
