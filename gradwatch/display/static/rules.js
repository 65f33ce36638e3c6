// A press on a code such as GW101 opens what the rule looks for.
import { el, prose } from "./dom.js";

function paragraph(text) {
  if (text.startsWith("## ")) return el("h3", {}, text.slice(3));
  const items = text.split(/\n(?=- )/);
  if (items.length > 1 || text.startsWith("- ")) {
    return el("ul", {}, items.map((item) => el("li", {}, prose(item.replace(/^- /, "").replaceAll("\n", " ")))));
  }
  const plain = text.replaceAll("\n", " ").replace(/`[^`]*`|\*([^*`]+)\*/g, (whole, inner) => inner ?? whole); // no emphasis
  return el("p", {}, prose(plain));
}

// Rules are written in a small part of Markdown: headings, lists, paragraphs, code.
function writeDoc(doc) {
  return doc.trim().replace(/(## .*)\n/g, "$1\n\n").split(/\n{2,}/).map((part) => paragraph(part.trim()));
}

let dialog = null;

function openRule(code, rule) {
  dialog = dialog || document.body.appendChild(el("dialog", { class: "rule" }));
  const close = el("button", { type: "button", class: "tool", onclick: () => dialog.close() }, "Close");
  dialog.setAttribute("aria-label", `Rule ${code}`);
  dialog.replaceChildren(el("div", { class: "rule-head" }, el("h2", {}, `${code}: ${rule.title}`), close), ...writeDoc(rule.doc));
  dialog.showModal();
  dialog.scrollTop = 0;
}

export function ruleCode(code, rules) {
  const rule = (rules || {})[code];
  if (!rule) return el("span", { class: "muted" }, code);
  return el("button", { type: "button", class: "link code", title: `What ${code} looks for`, onclick: () => openRule(code, rule) }, code);
}
