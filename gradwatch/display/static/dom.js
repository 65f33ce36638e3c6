// Building elements. Layer and run names are untrusted, so text only ever goes in as text.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
}

// A name that may break after its dots, and looks like code; a shortened one tells the whole on hover.
export function nameNode(name, shown = name) {
  const parts = shown.split(/(?<=[.:/_])/);
  return el("code", { title: shown === name ? null : name },
    parts.flatMap((part, place) => (place ? [document.createElement("wbr"), part] : [part])));
}

// Pieces of a sentence as written by the Python side: [text, isName, short name].
export function sentence(pieces) {
  return pieces.map(([text, isName, short]) => (isName ? nameNode(text, short) : text));
}

export function calmly() {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
}

// Prose of the Python side: what stands between backticks is a name.
export function prose(text) {
  return text.split(/`([^`]*)`/).map((part, place) => (place % 2 ? nameNode(part) : part));
}

// A mark for measurements, once what was built last is on the screen.
export function markPainted(name) {
  requestAnimationFrame(() => setTimeout(() => performance.mark(`gradwatch-${name}`), 0));
}

export function debounce(milliseconds, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

// At most one call per painted frame, with the latest values.
export function oncePerFrame(action) {
  let latest = null;
  return (...values) => {
    if (!latest) requestAnimationFrame(() => { const now = latest; latest = null; action(...now); });
    latest = values;
  };
}

// Replaces children, and keeps which details are open and where the focus is.
export function replaceCalmly(parent, ...children) {
  const open = [...parent.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
  const active = parent.contains(document.activeElement) ? document.activeElement : null;
  const focused = active && [active.tagName, active.textContent];
  replace(parent, ...children);
  parent.querySelectorAll("details > summary").forEach((summary) => { if (open.includes(summary.textContent)) summary.parentNode.open = true; });
  if (focused) [...parent.querySelectorAll(focused[0])].find((element) => element.textContent === focused[1])?.focus();
}
