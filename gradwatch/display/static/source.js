// Where the page's data comes from: TensorBoard's server, or the report's own file.

async function fetchJson(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

function loadScript(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  });
}

// All addresses are relative, so that --path_prefix works.
export function remoteSource() {
  let plotly = null;
  return {
    live: true,
    runs: (since) => fetchJson(since ? `runs?since=${since}` : "runs"),
    figures: (run) => fetchJson(`figures?run=${encodeURIComponent(run)}`),
    plotly: () => {
      plotly = plotly || loadScript("plotly.min.js").catch((error) => {
        plotly = null; // the next reload tries again
        throw error;
      });
      return plotly;
    },
  };
}

async function unzip(text) {
  if (!window.DecompressionStream) {
    throw new Error("This browser is too old to unpack the charts; the tables hold the numbers.");
  }
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).blob();
}

export function embeddedSource() {
  const read = (id) => document.getElementById(id).textContent;
  const briefs = JSON.parse(read("gradwatch-runs"));
  let plotly = null;
  return {
    live: false,
    runs: async () => briefs,
    figures: async (run) => {
      const index = briefs.runs.findIndex((brief) => brief.run === run);
      return JSON.parse(await (await unzip(read(`gradwatch-figures-${index}`))).text());
    },
    plotly: () => {
      plotly = plotly || unzip(read("gradwatch-plotly")).then((script) => {
        const typed = new Blob([script], { type: "text/javascript" });
        return loadScript(URL.createObjectURL(typed));
      });
      return plotly;
    },
  };
}
