// The whole page: which runs, the filter, the theme, and one or two panes.
import { renderNothing } from "./banner.js";
import { debounce, el, replace } from "./dom.js";
import { Pane } from "./pane.js";

const MOST_CHIPS = 10; // more runs become a list
const POLL_MILLISECONDS = 600;
const FOLLOW_MILLISECONDS = 2000;
const MOST_LOOKS = 15;
const RANK = { critical: 0, warning: 1, error: 2, early: 3, healthy: 4, empty: 5, reading: 6 };

export class Page {
  constructor(root, source) {
    Object.assign(this, { root, source, runs: [], chosen: null, other: null });
    this.settings = { dark: false, matches: () => true, compared: false };
    this.panes = [new Pane(source, this.settings), new Pane(source, this.settings)];
    this.link();
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Runs" });
    this.compare = el("select", { "aria-label": "Compare with another run",
      onchange: () => { this.other = this.compare.value || null; this.render(); } });
    this.filter = el("input", { type: "search", placeholder: "Filter layers", "aria-label": "Filter layers by name",
      maxlength: 200, oninput: debounce(200, () => this.applyFilter()) });
    this.stamp = el("span", { class: "muted stamp" });
    this.main = el("main", { class: "panes" });
    replace(root, el("header", { class: "top" }, this.chips,
      el("div", { class: "tools" }, this.compare, this.filter, this.stamp)), this.main);
  }

  link() {
    const [left, right] = this.panes;
    const follow = (pane) => (step) => {
      if (!this.other || this.following) return;
      this.following = true;
      pane.goTo(step);
      this.following = false;
    };
    left.moved = follow(right);
    right.moved = follow(left);
  }

  async refresh() {
    try {
      const answer = await this.source.runs();
      this.runs = answer.runs;
      this.hasPlotly = answer.plotly;
      if (this.hasPlotly !== false) this.source.plotly().catch(() => null);
      this.render();
      const unread = !answer.settled && this.runs.every((run) => run.severity === "reading");
      const waiting = !answer.settled || this.runs.some((run) => run.severity === "reading");
      this.stamp.textContent = this.source.live ? `updated ${new Date().toLocaleTimeString()}` : "";
      if (waiting) setTimeout(() => this.refresh(), unread ? POLL_MILLISECONDS / 4 : POLL_MILLISECONDS);
      else if (this.isGrowing(answer)) setTimeout(() => this.refresh(), FOLLOW_MILLISECONDS);
    } catch (error) {
      this.stamp.textContent = `could not update: ${error.message}`;
    }
  }

  // TensorBoard reads a log in pieces: look once more after every change, and for runs that seem empty.
  isGrowing(answer) {
    const seen = JSON.stringify(answer.runs);
    const changed = seen !== this.seen;
    this.seen = seen;
    if (changed) this.looks = 0;
    this.looks += 1;
    return this.source.live && (changed || (this.looks < MOST_LOOKS && answer.runs.some((run) => run.severity === "empty")));
  }

  brief(name) {
    return this.runs.find((run) => run.run === name);
  }

  render() {
    if (!this.brief(this.chosen)) this.chosen = this.worst();
    if (!this.brief(this.other) || this.other === this.chosen) this.other = null;
    this.renderRuns();
    const shown = [this.chosen, this.other].map((name) => this.brief(name)).filter(Boolean);
    if (this.settings.compared !== shown.length > 1) this.panes.forEach((pane) => { pane.brief = null; });
    this.settings.compared = shown.length > 1;
    this.main.classList.toggle("compared", shown.length > 1);
    const nodes = shown.map((_, place) => this.panes[place].node);
    if (!shown.length) { replace(this.main, renderNothing()); return; }
    if (nodes.length !== this.main.children.length || nodes[0] !== this.main.firstChild) replace(this.main, nodes);
    shown.forEach((brief, place) => this.panes[place].show(brief));
  }

  worst() {
    const ranked = [...this.runs].sort((a, b) => RANK[a.severity] - RANK[b.severity]);
    return ranked.length ? ranked[0].run : null;
  }

  renderRuns() {
    const state = JSON.stringify([this.chosen, this.other, this.runs.map((run) => [run.run, run.severity])]);
    if (state === this.listed) return; // keep the focus where it is
    this.listed = state;
    const focused = this.chips.contains(document.activeElement) ? document.activeElement.dataset.run : null;
    replace(this.chips, this.runs.length > MOST_CHIPS ? this.runList() : this.runs.map((run) => this.chip(run)));
    if (focused !== null) [...this.chips.querySelectorAll("button")].find((one) => one.dataset.run === focused)?.focus();
    const others = this.runs.filter((run) => run.run !== this.chosen);
    this.compare.hidden = !others.length;
    replace(this.compare, el("option", { value: "" }, "Compare with …"),
      others.map((run) => el("option", { value: run.run, selected: run.run === this.other }, run.run)));
  }

  choose(name) {
    this.chosen = name;
    this.render();
  }

  said(run) {
    const count = run.findings ? run.findings.length : 0;
    if (count) return `${count} finding${count > 1 ? "s" : ""}`;
    return run.severity === "early" ? "too early to tell" : run.severity;
  }

  chip(run) {
    return el("button", { type: "button", class: `chip ${run.severity}`, "data-run": run.run, title: run.run,
      "aria-pressed": String(run.run === this.chosen), onclick: () => this.choose(run.run) },
    el("span", { class: "dot", "aria-hidden": "true" }), el("span", { class: "chip-name" }, run.run),
    el("span", { class: "visually-hidden" }, `, ${this.said(run)}`));
  }

  runList() {
    const select = el("select", { "aria-label": "Run", class: "runs", onchange: () => this.choose(select.value) },
      this.runs.map((run) => el("option", { value: run.run, selected: run.run === this.chosen },
        `${run.findings && run.findings.length ? "✕ " : ""}${run.run} (${this.said(run)})`)));
    return select;
  }

  applyFilter() {
    const wanted = this.filter.value.trim().toLowerCase();
    this.settings.matches = (name) => !wanted || name.toLowerCase().includes(wanted);
    this.panes.forEach((pane) => pane.redraw());
  }

  setTheme(dark) {
    this.settings.dark = dark;
    this.root.ownerDocument.documentElement.dataset.theme = dark ? "dark" : "light";
    this.panes.forEach((pane) => pane.redraw());
  }
}
