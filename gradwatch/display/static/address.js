// Run, step, layer and card in the address, so that a link leads to what one sees. In TensorBoard
// the address is the outer window's: "#gradwatch&p.gradwatch.run=a", its form for plugins.
const PREFIX = "p.gradwatch.";
const KEYS = ["run", "with", "step", "layer", "card"];

function outerWindow() {
  try {
    return window.parent !== window && window.parent.location.href ? window.parent : window;
  } catch {
    return window; // framed by another origin
  }
}

function isFramed() {
  return outerWindow() !== window;
}

export function readAddress() {
  const found = {};
  const parts = outerWindow().location.hash.replace(/^#/, "").split("&");
  for (const part of parts) {
    const [key, value] = part.split(/=(.*)/s);
    const name = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : isFramed() ? "" : key;
    try {
      if (KEYS.includes(name) && value) found[name] = decodeURIComponent(value);
    } catch { /* not ours */ }
  }
  return found;
}

export function writeAddress(place) {
  const prefix = isFramed() ? PREFIX : "";
  const parts = KEYS.filter((key) => place[key] !== null && place[key] !== undefined && place[key] !== "")
    .map((key) => `${prefix}${key}=${encodeURIComponent(place[key])}`);
  const outer = outerWindow();
  try {
    outer.history.replaceState(outer.history.state, "", `#${[...(isFramed() ? ["gradwatch"] : []), ...parts].join("&")}`);
  } catch { /* an address that may not be written is no reason to stop */ }
  return outer.location.href;
}

let plainTitle = null;

// The browser's title carries the number of runs with findings.
export function writeTitle(count) {
  const outer = outerWindow();
  if (plainTitle === null) plainTitle = outer === window ? document.title || "gradwatch" : "gradwatch · TensorBoard";
  const title = `${count ? `(${count}) ` : ""}${plainTitle}`;
  document.title = title;
  try {
    if (outer.document.title !== title && (outer === window || outer.location.hash.startsWith("#gradwatch"))) outer.document.title = title;
  } catch { /* as above */ }
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    document.body.append(box);
    box.select();
    const copied = document.execCommand("copy");
    box.remove();
    return copied;
  }
}
