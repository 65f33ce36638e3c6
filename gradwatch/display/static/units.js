// Where the units of one activation sit, at one sampled step, over its curve and derivative.
import { decode, nearest } from "./arrays.js";
import { CONFIG, Chart } from "./charts.js";
import { sayPercent, shareAxis, tintTrace } from "./layout.js";

const LONGEST_NAME = 48; // the list above shows it
const FLAT = "rgba(240,138,75,0.2)";

export class UnitsChart extends Chart {
  take(figure) {
    super.take(figure);
    if (!this.name || !this.meta.units[this.name]) this.name = this.meta.chosen;
  }

  move() {
    return this.draw();
  }

  table() {
    const [step, shares] = this.sample();
    return [["z", `share of ${this.name} at step ${step}`], ...this.meta.z.map((z, place) => [z, shares[place]])];
  }

  choose(name) {
    Object.assign(this, { name, zoom: {} });
    this.zoomed?.(false);
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
    this.drawn = { data, layout: {
      ...layout, height: Math.max(this.natural(), this.tall), font: { ...layout.font, color: this.state.text() },
      xaxis: { ...layout.xaxis, range: view.z },
      yaxis: { ...layout.yaxis, ...shareAxis(shares, view.zero, this.meta.tick_shares) },
      yaxis2: { ...layout.yaxis2, range: view.phi },
      shapes: this.saturatedZones(curves), datarevision: Math.random(),
    } };
    this.keepZoom(this.drawn.layout);
    await this.plotly.react(this.node, data, this.drawn.layout, CONFIG);
    if (!this.listening) { this.listening = true; this.watchZoom(); }
    if (this.tell) this.tell(this.describe(step, shares, curves));
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
      fillcolor: FLAT, line: { width: 0 } }));
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
    const isFlat = (value) => curves.saturated[Math.max(0, z.findIndex((edge) => edge >= value))];
    const flat = shares.reduce((sum, share, place) => sum + (isFlat(this.meta.z[place]) ? share : 0), 0);
    if (curves.rectifies) return `${sayPercent(flat)} of the inputs lie where the unit is off (shaded); about half is normal.`;
    const count = flat < 0.0005 ? "No input lies" : `${sayPercent(flat)} of the inputs lie`;
    const limit = curves.steepest < 0.5 ? ` But φ′ is nowhere above ${curves.steepest}, so even the best unit passes on no more than that share of the gradient.` : "";
    const [low, high] = this.meta.views[this.name].z;
    const seen = z.some((value, place) => curves.saturated[place] && value > low && value < high);
    return `${count} where φ′ is near zero${seen ? " (shaded)" : ""}.${limit}`;
  }
}
