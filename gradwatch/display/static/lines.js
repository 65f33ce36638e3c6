// The loss and the learning rate over the steps.
import { decode } from "./arrays.js";
import { CONFIG, Chart } from "./charts.js";
import { eventMarks, stepLine, themeColours, tintTrace } from "./layout.js";

export class LinesChart extends Chart {
  async draw() {
    const { dark } = this.state;
    const colours = themeColours(dark);
    const { layout } = this.figure;
    this.drawn = {
      data: this.figure.data.map((trace) => ({ ...tintTrace(trace, dark), x: decode(trace.x), y: decode(trace.y) })),
      layout: { ...layout, height: Math.max(this.natural(), this.tall), datarevision: Math.random(),
        font: { ...layout.font, color: colours.text },
        hoverlabel: { ...layout.hoverlabel, bgcolor: colours.hover, font: { color: colours.text } } },
    };
    this.state.share?.(this.meta.kind, this.drawn);
    Object.assign(this.drawn.layout, this.marks());
    this.keepZoom(this.drawn.layout);
    await this.plotly.react(this.node, this.drawn.data, this.drawn.layout, CONFIG);
    if (this.listening) return;
    this.listening = true;
    this.watchZoom();
    this.node.on("plotly_click", ({ points }) => this.state.choose(points[0].x, null));
  }

  marks() {
    const { dark, events } = this.state;
    const marks = eventMarks(events, dark);
    const { margin, annotations } = this.figure.layout;
    return { shapes: [stepLine(this.state.step(), dark), ...marks.shapes],
      annotations: [...(annotations || []), ...marks.annotations],
      margin: events.length ? { ...margin, t: 20 } : margin };
  }

  move() {
    if (this.drawn) this.plotly.relayout(this.node, this.marks());
  }

  table() {
    const columns = this.figure.data.map((trace) => Array.from(decode(trace.y)));
    return [["step", ...this.figure.data.map((trace) => trace.name)],
      ...this.meta.steps.map((step, place) => [step, ...columns.map((column) => column[place])])];
  }
}
