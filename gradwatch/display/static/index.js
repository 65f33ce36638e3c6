// Entry point: TensorBoard calls render(); a report does so itself.
import { watchReload, watchTheme } from "./host.js";
import { Page } from "./page.js";
import { embeddedSource, remoteSource } from "./source.js";

export function render() {
  const embedded = document.getElementById("gradwatch-runs") !== null;
  document.documentElement.lang = "en";
  document.title = document.title || "gradwatch";
  const root = document.getElementById("gradwatch") || document.body;
  const page = new Page(root, embedded ? embeddedSource() : remoteSource());
  if (!embedded) {
    const style = document.createElement("link");
    Object.assign(style, { rel: "stylesheet", href: "style.css" });
    document.head.append(style);
    watchReload(() => page.refresh());
  }
  watchTheme((dark) => page.setTheme(dark));
  return page.refresh();
}
