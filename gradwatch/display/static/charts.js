// Charts that have layers as rows: drawn, filtered, moved to a step, coloured by theme.
import { decode, decodeRows, nearest, takeColumn } from "./arrays.js";
import { oncePerFrame } from "./dom.js";
import { hideTip, savePicture, showTip } from "./frame.js";
import { arrange, eventMarks, gainsAt, keepRows, layerFrame, makeRoom, noGains, plotHeight, sayGain, sayPercent, stepLine, ticksBetween } from "./layout.js";
import { sayShare, sayStep, sayTimes } from "./words.js";

const NARROW_PIXELS = 720; // of the heatmap with its bars
const NOTHING = -8; // log10 of a share: the heatmap of who learns ends there
export const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false, doubleClick: false };

// What all charts share: saving, zooming, and a figure that is replaced by a newer one.
export class Chart {
  constructor(node, figure, plotly, state) {
    Object.assign(this, { node, plotly, state, hint: true, tall: 0, zoom: {} });
    this.moveSoon = oncePerFrame(() => this.move());
    this.take(figure);
  }

  take(figure) {
    this.figure = figure;
    this.meta = figure.layout.meta;
  }

  natural() {
    return this.figure.layout.height;
  }

  savePicture(name) {
    return savePicture(this.plotly, this.node, name, this.state.dark);
  }

  // Where someone has zoomed in, newer records leave that view, and a button leads back.
  watchZoom() {
    this.node.on("plotly_relayout", (change) => {
      for (const [key, value] of Object.entries(change)) {
        const [, axis, end] = key.match(/^([xy]axis\d*)\.range\[([01])\]$/) || [];
        if (!axis) continue;
        this.zoom[axis] = this.zoom[axis] || [...this.node.layout[axis].range];
        this.zoom[axis][Number(end)] = value;
      }
      this.zoomed?.(Object.keys(this.zoom).length > 0);
    });
    this.node.on("plotly_doubleclick", () => { this.resetZoom(); });
  }

  // The layout as it is without a zoom is remembered, and the zoom put in.
  keepZoom(layout) {
    const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
    this.plain = Object.fromEntries(axes.map((key) => [key, layout[key].range && [...layout[key].range]]));
    Object.entries(this.zoom).forEach(([axis, range]) => { layout[axis] = { ...layout[axis], range: [...range], autorange: false }; });
  }

  resetZoom() {
    this.zoom = {};
    this.zoomed?.(false);
    return this.plotly.relayout(this.node, Object.fromEntries(Object.entries(this.plain).map(([axis, range]) => (
      range ? [`${axis}.range`, range] : [`${axis}.autorange`, true]))));
  }
}

export class LayerChart extends Chart {
  take(figure) {
    super.take(figure);
    this.numbers = this.meta.gains || this.meta.ratios ? decode(this.meta.gains || this.meta.ratios) : null;
  }

  natural() {
    const { t, b } = this.figure.layout.margin;
    return plotHeight(this.meta, keepRows(this.meta, this.state.matches).length) + t + b;
  }

  async draw() {
    this.rows = keepRows(this.meta, this.state.matches);
    this.node.classList.toggle("no-match", !this.rows.length);
    if (!this.rows.length) return;
    const drawn = arrange(this.figure, this.rows, this.state.dark, this.tall);
    if (this.meta.kind === "profile" && this.node.clientWidth < NARROW_PIXELS) makeRoom(drawn);
    this.state.share?.(this.meta.kind, drawn);
    this.drawn = drawn;
    this.stepData(drawn.data);
    Object.assign(drawn.layout, this.stepLayout(drawn.layout));
    this.keepZoom(drawn.layout);
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
    this.watchZoom();
    this.node.on("plotly_relayout", (change) => this.retick(change));
    this.node.on("plotly_hover", ({ points, event }) => this.tip(points[0], event));
    this.node.on("plotly_unhover", hideTip);
    this.node.on("plotly_click", ({ points }) => {
      const point = points[0];
      if (this.hasSteps() && point.data.type === "heatmap") this.state.choose(point.x, this.nameAt(point.pointIndex[0]));
    });
  }

  nameAt(place) {
    return this.meta.names[this.rows[place]];
  }

  // What a cell of a heatmap says, in the words of the headline.
  tip(point, event) {
    if (point.data.type !== "heatmap" || !event) return;
    const step = this.meta.steps[nearest(this.meta.steps, point.x)];
    showTip(event, [`${this.nameAt(point.pointIndex[0])}, ${sayStep(step)}`, this.sayCell(point.z)]);
  }

  sayCell(value) {
    const { kind, limit } = this.meta;
    if (kind === "profile") return sayTimes(value, "the last layers");
    if (kind === "who_learns") return value <= NOTHING ? "less than 1 part in 100 million of the loss change" : `${sayShare(10 ** value)} of the loss change`;
    if (limit) return `${sayPercent(value)} ${kind} units (can be a finding from ${sayPercent(limit)})`;
    return this.meta.say ? this.meta.say(value) : String(value);
  }

  // Another choice of labels when one has zoomed in or out.
  retick(change) {
    if (!Object.keys(change).some((key) => key.startsWith("yaxis.range"))) return;
    const [bottom, top] = this.node.layout.yaxis.range;
    const { categories, labels, height } = this.drawn;
    const ticks = ticksBetween(categories, labels, Math.min(top, bottom), Math.max(top, bottom), this.meta, height);
    this.plotly.relayout(this.node, { "yaxis.tickvals": ticks.tickvals, "yaxis.ticktext": ticks.ticktext });
  }

  hasSteps() {
    return this.meta.kind !== "updates";
  }

  shapes(marks) {
    const { column, dark, chosen } = this.state;
    if (!this.hasSteps()) return this.figure.layout.shapes;
    const domain = this.drawn.layout.xaxis.domain || [0, 1];
    const names = this.rows.map((row) => this.meta.names[row]);
    const step = this.state.step() ?? this.meta.steps[column];
    return [stepLine(step, dark), ...layerFrame(names, chosen, domain, dark), ...marks.shapes, ...(this.meta.backdrop || [])];
  }

  // What of the layout depends on the chosen step.
  stepLayout({ xaxis2, margin }) {
    const events = this.hasSteps() ? this.state.events : [];
    const marks = eventMarks(events, this.state.dark);
    const changed = { shapes: this.shapes(marks), ...(events.length ? { margin: { ...margin, t: Math.max(margin.t, 20) } } : {}) };
    if (this.meta.kind !== "profile") return this.hasSteps() ? { ...changed, annotations: marks.annotations } : changed;
    const step = this.meta.steps[this.state.column].toLocaleString("en");
    const known = this.drawn.data.some((trace) => trace.type === "bar" && trace.x.some((value) => value !== 0));
    return { ...changed, xaxis2: { ...xaxis2, title: { ...xaxis2.title, text: `gain at step ${step}` } },
      annotations: [...marks.annotations, ...(known ? [] : noGains(this.state.dark))] };
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
      const said = dots.map((log) => (log === null ? "" : `a step moves it by ${sayShare(10 ** log)} of its size`));
      Object.assign(data[1], { x: dots, customdata: said });
      return [{ x: [dots], customdata: [said] }, [1]];
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

  // Layers as rows, steps as columns.
  table() {
    const { steps, names } = this.meta;
    const rows = this.rows || names.map((_, row) => row);
    const read = this.numbers && this.meta.kind === "updates"
      ? (row) => steps.map((_, column) => takeColumn(this.numbers, steps.length, column, [row], NaN)[0])
      : ((z) => (row) => Array.from((Array.isArray(z) ? z : decodeRows(z))[row]))(this.figure.data[0].z);
    const plain = this.meta.limit ? (value) => value : (value) => 10 ** value;
    return [["layer", ...steps], ...rows.map((row) => [names[row], ...read(row).map(plain)])];
  }
}
