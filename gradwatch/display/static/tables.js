// Findings and layers as tables: what the charts show, for eyes, keyboards and screen readers.
import { mark, sourceLine } from "./banner.js";
import { el, nameNode, prose, sentence } from "./dom.js";
import { ruleCode } from "./rules.js";

function cell(label, ...content) {
  return el("td", { "data-label": label }, ...content);
}

function head(...titles) {
  return el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title))));
}

function findingRow(finding, go, rules) {
  const shown = finding.where.map(([text]) => text).join("");
  const jump = el(
    "button",
    { class: "link", type: "button", onclick: () => go(finding),
      title: `Show ${shown} at step ${finding.first_step}` },
    sentence(finding.where),
  );
  return el(
    "tr", { class: finding.severity },
    cell("Finding", mark(finding.severity), " ", finding.title, " ",
      ruleCode(finding.code, rules)),
    cell("Layers", jump),
    cell("Steps", `${finding.first_step.toLocaleString("en")} – ${finding.last_step.toLocaleString("en")}`),
    cell("Cause", finding.cause ? el("strong", {}, finding.cause) : null, finding.cause ? el("br") : null,
      prose(finding.message), finding.source ? [el("br"), "Code: ", sourceLine(finding.source)] : null),
    cell("Remedy", prose(finding.remedy)),
  );
}

export function renderFindings(brief, go, rules) {
  const parts = [];
  if (brief.findings && brief.findings.length) {
    parts.push(el("h2", {}, "Findings"), findingsTable(brief.findings, go, rules));
  }
  if (brief.notes && brief.notes.length) {
    parts.push(el("details", {},
      el("summary", {}, `${brief.notes.length} note${brief.notes.length > 1 ? "s" : ""}: seen, and no finding`),
      findingsTable(brief.notes, go, rules)));
  }
  if (brief.unseen && brief.unseen.length) {
    parts.push(el("details", {}, el("summary", {}, "What could not be measured"),
      el("ul", {}, brief.unseen.map((text) => el("li", {}, text)))));
  }
  return parts.length ? el("section", { class: "card" }, parts) : null;
}

function findingsTable(findings, go, rules) {
  return el("table", { class: "findings" }, head("Finding", "Layers", "Steps", "Cause", "Remedy"),
    el("tbody", {}, findings.map((finding) => findingRow(finding, go, rules))));
}

const OUTCOMES = { healthy: ["✓", "works"], better: ["+", "helps"], "no better": ["", "no better"], "blew up": ["✕", "blows up"] };

function trialRow(trial, place) {
  const isBest = place === 0 && ["healthy", "better"].includes(trial.outcome);
  const [sign, word] = OUTCOMES[trial.outcome] || ["", "without a change"];
  return el("tr", { class: trial.outcome ? null : "untouched" },
    el("th", { scope: "row" }, isBest ? el("strong", {}, trial.name) : trial.name, el("span", { class: "muted block" }, prose(trial.description))),
    cell("Result", el("span", { class: `mark ${trial.outcome.replace(" ", "-")}`, "aria-hidden": "true" }, sign, " "), word),
    cell("Early layers move", trial.moves || (trial.update ? `${trial.update} per step` : "–")),
    cell("Loss", trial.loss.join(" → ")),
    cell("Findings left", trial.findings));
}

// What each remedy did to a copy of this run's network.
export function renderTrials(trials) {
  if (!trials) return null;
  return el("section", { class: "card" }, el("h2", {}, "Remedies that were tried"),
    el("p", { class: "muted" }, `on copies of this network, ${trials.steps} steps each on the same batches; best first`),
    el("table", { class: "trials" }, head("Remedy", "Result", "Early layers move", `Loss, first → step ${trials.steps}`, "Findings left"),
      el("tbody", {}, trials.rows.map(trialRow))),
    trials.unfit.map((text) => el("p", { class: "muted" }, "Not applicable: ", text)));
}

function scientific(value) {
  if (value === null) return "–";
  if (value === 0) return "0";
  return Math.abs(value) >= 0.01 && Math.abs(value) < 1000 ? value.toPrecision(2) : value.toExponential(1);
}

function percent(value) {
  return value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
}

function layerRow([name, type, ratio, gain, saturated, dead, update, flagged]) {
  const numbers = [scientific(ratio), scientific(gain), percent(saturated), percent(dead), scientific(update)];
  return el("tr", { class: flagged ? "flagged" : null },
    el("th", { scope: "row" }, nameNode(name), flagged ? el("span", { class: "flag" }, " ◄ finding") : null),
    el("td", {}, type), numbers.map((text) => el("td", { class: "number" }, text)));
}

// Built when opened: hundreds of rows cost time that the banner needs.
export function renderLayers(first, matches) {
  let layers = first;
  const body = el("tbody");
  const table = el("table", { class: "layers" },
    head("Layer", "Type", "Gradient (1 = full)", "Gain", "Saturated", "Dead", "Update / weight"), body);
  const fill = () => body.replaceChildren(...layers.filter(([name]) => matches(name)).map(layerRow));
  const summary = el("summary");
  const title = () => { summary.textContent = `All ${layers.length} layers as a table, at the last step`; };
  const details = el("details", { class: "card" }, summary,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layers" }, table));
  details.addEventListener("toggle", () => { if (details.open) fill(); });
  details.refill = () => { if (details.open) fill(); };
  details.take = (newest) => { layers = newest; title(); details.refill(); };
  title();
  return details;
}

// What is trained, and where: label and text of each line.
export function renderAbout(rows) {
  if (!rows || !rows.length) return null;
  return el("section", { class: "card", "data-card": "about" }, el("h2", {}, "This run"),
    el("dl", { class: "about" }, rows.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text)))));
}
