// The whole page: which runs, the filter, the theme, one pane per chosen run, and what is new.
import { readAddress, writeAddress, writeTitle } from "./address.js";
import { renderNothing } from "./banner.js";
import { Comparison, shareScales } from "./compare.js";
import { debounce, el, replace } from "./dom.js";
import { Pane } from "./pane.js";
import { sayState } from "./words.js";

const MOST_CHIPS = 10; // more runs become a list
const UNREAD_MILLISECONDS = 150;
const READING_MILLISECONDS = 600;
const FOLLOW_MILLISECONDS = 2000;
const BROKE = { crashed: "it crashed", failed: "gradwatch failed" };
const RANK = { critical: 0, warning: 0, error: 1, early: 2, noted: 2, healthy: 2, empty: 3, reading: 4 };

export class Page {
  constructor(root, source) {
    Object.assign(this, { root, source, runs: [], chosen: null, others: [], revision: 0, address: readAddress(), led: {} });
    this.settings = { dark: false, matches: () => true, compared: false, share: null, rules: {}, now: () => this.now(), placed: (card) => this.place(card) };
    this.panes = [];
    this.comparison = new Comparison(source, this.settings);
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Runs" });
    this.compare = el("select", { "aria-label": "Compare with another run", onchange: () => this.addRun(this.compare.value) });
    this.added = el("span", { class: "chips" });
    this.filter = el("input", { type: "search", placeholder: "Filter layers (regex)", "aria-label": "Filter layers by name or regular expression",
      maxlength: 200, oninput: debounce(200, () => this.applyFilter()) });
    this.stamp = el("span", { class: "muted stamp" });
    this.main = el("main", { class: "panes" });
    replace(root, el("header", { class: "top" }, this.chips,
      el("div", { class: "tools" }, this.added, this.compare, this.filter, this.stamp)), this.comparison.node, this.main);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
    setInterval(() => { if (!document.hidden) this.panes.forEach((pane) => pane.tick()); }, 1000);
  }

  // The server's clock, which the times in the log go by more than the reader's.
  now() {
    return this.source.live && this.clock !== undefined ? Date.now() / 1000 + this.clock : null;
  }

  // Nobody has to press anything: while the page is visible, it asks for news.
  async refresh() {
    clearTimeout(this.timer);
    if (this.asking) return;
    this.asking = true;
    let pause = FOLLOW_MILLISECONDS;
    try {
      const answer = await this.source.runs(this.revision);
      this.take(answer);
      const unread = !answer.settled && this.runs.every((run) => run.severity === "reading");
      if (unread) pause = UNREAD_MILLISECONDS;
      else if (!answer.settled || this.runs.some((run) => run.severity === "reading")) pause = READING_MILLISECONDS;
      this.stamp.textContent = answer.left_out ? `the newest ${this.runs.length.toLocaleString("en")} runs; ${answer.left_out.toLocaleString("en")} older ones left out` : "";
    } catch (error) {
      this.stamp.textContent = `could not update: ${error.message}`;
    }
    this.asking = false;
    if (this.source.live && !document.hidden) this.timer = setTimeout(() => this.refresh(), pause);
  }

  // Runs that are new or changed; all others stay as they are.
  take(answer) {
    if (answer.now) this.clock = answer.now - Date.now() / 1000;
    Object.assign(this.settings.rules, answer.rules || {});
    const fresh = new Map(answer.runs.map((run) => [run.run, run]));
    const known = new Map(this.runs.map((run) => [run.run, run]));
    const names = answer.names || [...fresh.keys()];
    this.runs = names.map((name) => fresh.get(name) || known.get(name)).filter(Boolean).sort(byInterest);
    this.revision = answer.revision || 0;
    this.hasPlotly = answer.plotly;
    if (this.hasPlotly !== false) this.source.plotly().catch(() => null);
    writeTitle(this.runs.filter((run) => run.findings?.length).length);
    this.render();
  }

  brief(name) {
    return this.runs.find((run) => run.run === name);
  }

  render() {
    this.followAddress();
    if (!this.brief(this.chosen)) this.chosen = this.worst();
    this.others = this.others.filter((name) => name !== this.chosen && this.brief(name));
    this.renderRuns();
    const shown = [this.chosen, ...this.others].map((name) => this.brief(name)).filter(Boolean);
    while (this.panes.length < shown.length) this.panes.push(this.makePane());
    if (this.settings.compared !== shown.length > 1) this.panes.forEach((pane) => { pane.brief = null; });
    this.settings.compared = shown.length > 1;
    if (!this.settings.compared) Object.assign(this.settings, { share: null });
    this.main.classList.toggle("compared", shown.length > 1);
    this.comparison.node.hidden = shown.length < 2;
    const nodes = shown.map((_, place) => this.panes[place].node);
    if (!shown.length) { replace(this.main, renderNothing()); return; }
    if (nodes.length !== this.main.children.length || nodes.some((node, place) => node !== this.main.children[place])) replace(this.main, nodes);
    shown.forEach((brief, place) => this.panes[place].show(brief, place ? {} : this.led));
    this.led = {};
  }

  // The runs that a link names may be read later than others; until then it is remembered.
  followAddress() {
    const { run, with: others = "" } = this.address;
    if (run && !this.brief(run)) return;
    const names = others.split("\n").filter(Boolean);
    this.led = this.address;
    if (run) this.chosen = run;
    this.others.push(...names.filter((name) => this.brief(name) && !this.others.includes(name)));
    const missing = names.filter((name) => !this.brief(name));
    this.address = missing.length ? { with: missing.join("\n") } : {};
  }

  makePane() {
    const pane = new Pane(this.source, this.settings);
    pane.loaded = () => this.shareSoon();
    pane.moved = (step) => {
      if (this.following || !this.others.length) return;
      this.following = true;
      this.shown().filter((other) => other !== pane).forEach((other) => other.goTo(step));
      this.following = false;
    };
    return pane;
  }

  shown() {
    return this.panes.slice(0, 1 + this.others.length);
  }

  // All chosen runs have their figures: one scale for all, and what differs.
  shareSoon() {
    const shown = this.shown();
    if (shown.length < 2 || shown.some((pane) => !pane.answer)) return;
    this.settings.share = shareScales(shown);
    shown.forEach((pane) => pane.redraw());
    this.comparison.show(shown);
  }

  worst() {
    return this.runs.length ? this.runs[0].run : null;
  }

  renderRuns() {
    const state = JSON.stringify([this.chosen, this.others, this.runs.map((run) => [run.run, this.tone(run), this.said(run)])]);
    if (state === this.listed) return; // keep the focus where it is
    this.listed = state;
    const focused = this.chips.contains(document.activeElement) ? document.activeElement.dataset.run : null;
    replace(this.chips, this.runs.length > MOST_CHIPS ? this.runList() : this.runs.map((run) => this.chip(run)));
    if (focused !== null) [...this.chips.querySelectorAll("button")].find((chip) => chip.dataset.run === focused)?.focus();
    const left = this.runs.filter((run) => run.run !== this.chosen && !this.others.includes(run.run));
    this.compare.hidden = !left.length;
    replace(this.compare, el("option", { value: "" }, "Compare with …"), left.map((run) => el("option", { value: run.run }, run.run)));
    replace(this.added, this.others.map((name) => el("button", { type: "button", class: "chip added", "aria-label": `Stop comparing with ${name}`,
      onclick: () => this.removeRun(name) }, el("span", { class: "chip-name" }, name), " ✕")));
  }

  addRun(name) {
    if (name) this.others.push(name);
    this.render();
    this.place();
  }

  removeRun(name) {
    this.others = this.others.filter((other) => other !== name);
    this.render();
    this.place();
    this.shareSoon();
  }

  choose(name) {
    this.address = {};
    this.chosen = name;
    this.render();
    this.place();
  }

  // Writes run, step, layer and card into the address; answers it.
  place(card) {
    const { step, layer } = this.panes[0] ? this.panes[0].place() : {};
    return writeAddress({ run: this.chosen, with: this.others.join("\n"), step, layer, card });
  }

  said(run) {
    const count = run.findings ? run.findings.length : 0;
    if (count) return `${count} finding${count > 1 ? "s" : ""}`;
    const words = { early: "too early to tell", noted: "healthy", empty: "no record yet" }[run.severity] || run.severity;
    const broke = BROKE[run.state?.how] || (this.state(run)?.tone === "bad" ? "it stopped answering" : "");
    return words === "healthy" && broke ? `healthy until ${broke}` : words;
  }

  state(run) {
    return sayState(run.state, run.last_step, this.now());
  }

  // A run that stopped answering is not green, whatever it has shown so far.
  tone(run) {
    const stopped = run.severity === "healthy" && this.state(run)?.tone === "bad";
    return stopped ? "noted" : run.severity;
  }

  chip(run) {
    return el("button", { type: "button", class: `chip ${this.tone(run)}`, "data-run": run.run, title: run.run,
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

  // A regular expression where it is one, else the text itself.
  applyFilter() {
    const wanted = this.filter.value.trim();
    let pattern = null;
    try {
      pattern = new RegExp(wanted, "i");
    } catch { /* taken as text */ }
    const plain = wanted.toLowerCase();
    this.filter.title = pattern ? "" : "Not a regular expression; taken as text";
    this.settings.matches = (name) => !wanted || (pattern ? pattern.test(name) : name.toLowerCase().includes(plain));
    this.redraw();
  }

  setTheme(dark) {
    this.settings.dark = dark;
    this.root.ownerDocument.documentElement.dataset.theme = dark ? "dark" : "light";
    this.redraw();
  }

  redraw() {
    this.shown().forEach((pane) => pane.redraw());
    if (this.others.length) this.shareSoon();
  }
}

// Unhealthy runs first, and of equal ones the newest.
function byInterest(a, b) {
  const time = (run) => run.state?.started ?? run.state?.last ?? 0;
  return RANK[a.severity] - RANK[b.severity] || time(b) - time(a) || (a.run < b.run ? -1 : 1);
}
