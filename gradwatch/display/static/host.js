// TensorBoard around us: its theme and its reload button. Elsewhere: the browser's own theme.

function parentBody() {
  try {
    return window.parent !== window ? window.parent.document.body : null;
  } catch {
    return null; // framed by another origin
  }
}

export function watchTheme(changed) {
  const outer = parentBody();
  if (outer) {
    const tell = () => changed(outer.classList.contains("dark-mode"));
    new MutationObserver(tell).observe(outer, { attributes: true, attributeFilter: ["class"] });
    tell();
    return;
  }
  const query = window.matchMedia("(prefers-color-scheme: dark)");
  query.addEventListener("change", () => changed(query.matches));
  changed(query.matches);
}

// The experimental protocol of TensorBoard's dynamic plugins: a message port, JSON both ways;
// each message wants a reply with the same id.
export function watchReload(reloaded) {
  if (window.parent === window) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.isReply) return;
    if (message.type === "experimental.DataReloaded") reloaded();
    const reply = { type: message.type, id: message.id, payload: null, error: null, isReply: true };
    channel.port1.postMessage(JSON.stringify(reply));
  };
  window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
}
