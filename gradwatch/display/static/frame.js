// A card: title, words, a chart and its tools (zoom hint, reset, PNG, CSV, link).
import { copyText } from "./address.js";
import { el } from "./dom.js";

export function card(title, subtitle, ...content) {
  return el("section", { class: "card" }, el("h2", {}, title), el("p", { class: "muted" }, subtitle), content);
}

export function nothing(text) {
  return el("p", { class: "none" }, text);
}

function tool(label, about, action) {
  return el("button", { type: "button", class: "tool", title: about, onclick: action }, label);
}

// What each card offers; `link()` gives the address that leads to it.
export function tools(chart, name, link) {
  const reset = tool("Reset zoom", "Show all again", () => chart.resetZoom());
  reset.hidden = true;
  chart.zoomed = (isZoomed) => { reset.hidden = !isZoomed; };
  const copied = el("span", { class: "muted", role: "status" });
  const share = tool("Link", "Copy a link to this card", async () => {
    copied.textContent = (await copyText(link(name))) ? "copied" : "";
    setTimeout(() => { copied.textContent = ""; }, 1500);
  });
  return el("div", { class: "card-tools" },
    chart.hint ? el("span", { class: "hint" }, "drag to zoom") : null, reset,
    tool("PNG", "Save this chart as a picture", () => chart.savePicture(name)),
    tool("CSV", "Save the numbers of this chart", () => saveTable(chart.table(), name)), share, copied);
}

// Text of a cell; one that a spreadsheet would take for a formula is marked as text.
function csvCell(value) {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  const text = String(value ?? "");
  return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
}

export function writeCsv(rows) {
  return rows.map((row) => row.map(csvCell).join(",")).join("\r\n");
}

function saveTable(rows, name) {
  const file = new Blob(["\ufeff", writeCsv(rows)], { type: "text/csv" });
  const link = el("a", { href: URL.createObjectURL(file), download: `gradwatch_${name}.csv` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A chart that is saved has a ground of its own: the page's is not part of it.
export function savePicture(plotly, node, name, dark) {
  const layout = { ...node.layout, paper_bgcolor: dark ? "#313539" : "#ffffff" };
  return plotly.downloadImage({ data: node.data, layout }, { format: "png", scale: 2, filename: `gradwatch_${name}`,
    width: node.clientWidth, height: node.clientHeight });
}

let tip = null;

// One tooltip for all heatmaps: words in place of the powers of ten that a chart library shows.
export function showTip(event, lines) {
  tip = tip || document.body.appendChild(el("div", { class: "tip", "aria-hidden": "true" }));
  tip.replaceChildren(...lines.map((text) => el("div", {}, text)));
  tip.hidden = false;
  const { innerWidth: width, innerHeight: height } = window;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, width - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, height - tip.offsetHeight - 8))}px`;
}

export function hideTip() {
  if (tip) tip.hidden = true;
}
