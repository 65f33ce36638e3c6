// The verdict in words, painted before anything else.
import { copyText } from "./address.js";
import { el, prose, sentence } from "./dom.js";

const MARKS = { critical: "✕", warning: "!", healthy: "✓", noted: "✓", early: "…", empty: "…", reading: "…", error: "?" };

export function mark(severity) {
  return el("span", { class: `mark ${severity}`, "aria-hidden": "true" }, MARKS[severity] || "!");
}

function box(severity, title, ...lines) {
  return el(
    "div", { class: `banner ${severity}` }, mark(severity),
    el("div", {}, el("h1", {}, title), ...lines),
  );
}

function line(label, ...content) {
  return el("p", {}, label ? el("strong", {}, `${label}: `) : null, content);
}

// Where and since when; a press leads to it in the charts.
function whereAndWhen(finding, others, go) {
  const where = el("button", { class: "link", type: "button", onclick: () => go(finding),
    title: "Show it in the charts" }, sentence(finding.where));
  const more = others ? ` ${others} further finding${others > 1 ? "s" : ""} below.` : "";
  return line("", finding.since.replace(/\.$/, ""), ", in ", where, ".", more);
}

// File and line that are to blame; a press copies them.
export function sourceLine(source) {
  if (!source) return null;
  const button = el("button", { class: "link", type: "button", title: "Copy file and line", onclick: async () => {
    const copied = await copyText(source);
    button.classList.toggle("copied", copied);
    setTimeout(() => button.classList.remove("copied"), 1500);
  } }, source);
  return button;
}

function unhealthyBox(brief, go) {
  const worst = brief.findings[0];
  const [[text, isName, short], ...others] = brief.headline;
  const begin = isName ? text : text.replace(/^(The|A|All|No|Every|Up) /, (word) => word.toLowerCase()); // it goes on after a colon
  const title = [`${worst.title}: `, ...sentence([[begin, isName, short], ...others])];
  const why = [worst.cause, worst.detail].filter(Boolean).join(/^[A-Z]/.test(worst.detail) ? ". " : ": ");
  return box(
    worst.severity, title,
    whereAndWhen(worst, brief.findings.length - 1, go),
    why ? line("Cause", prose(why)) : null,
    line("Remedy", prose(worst.remedy)),
    worst.source ? line("Code", sourceLine(worst.source)) : null,
    brief.trials ? line("Tried", brief.trials.advice) : null,
  );
}

export function renderBanner(brief, go) {
  if (brief.severity === "reading") return box("reading", "Reading this run …");
  if (brief.severity === "error") {
    return box("error", "This run cannot be read", line("", brief.error || ""));
  }
  if (brief.findings.length) return unhealthyBox(brief, go);
  const more = [...(brief.gone || []), ...(brief.events || [])];
  return box(brief.severity, sentence(brief.headline), line("", brief.summary), more.map((text) => line("", text)));
}

// No run has data of ours: say what to do, for there is nothing else to see.
export function renderNothing() {
  const code = 'with gradwatch.watch(model, optimizer, logdir="runs/exp") as watch:';
  return box(
    "empty", "No run with gradwatch data here",
    line("", "Train with the watch on, into this log directory; the run appears here by itself:"),
    el("pre", {}, code),
  );
}
