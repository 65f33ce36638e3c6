// Numbers as a person says them, the same as the headline does: "6 million times less".

const SIZES = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]];
const COUNT_AS_NONE = 15; // decades; beyond, no count means anything to a reader

export function sayNumber(value) {
  const rounded = Number(value.toPrecision(2));
  if (rounded >= 10 ** COUNT_AS_NONE) return "over 1,000 trillion";
  const [size, word] = SIZES.find(([least]) => rounded >= least) || [1, ""];
  const short = Number((rounded / size).toPrecision(2));
  return `${short >= 10 ? Math.round(short).toLocaleString("en") : short}${word ? ` ${word}` : ""}`;
}

// A log10 of a gradient against another one.
export function sayTimes(log, others) {
  if (log < -COUNT_AS_NONE) return `practically no gradient, unlike ${others}`;
  const factor = 10 ** Math.abs(log);
  if (factor < 1.3) return `about as much gradient as ${others}`;
  return `${sayNumber(factor)} times ${log < 0 ? "less" : "more"} gradient than ${others}`;
}

// A share from 0 to 1: a percentage while it can be read as one.
export function sayShare(share) {
  if (!(share > 0)) return "nothing";
  if (share >= 0.001) return `${Number((100 * share).toPrecision(2))} %`;
  return share < 10 ** -COUNT_AS_NONE ? "practically nothing" : `1 part in ${sayNumber(1 / share)}`;
}

export function sayStep(step) {
  return `step ${Math.round(step).toLocaleString("en")}`;
}

const SPANS = [[86400, "d"], [3600, "h"], [60, "min"]];

export function sayAge(seconds) {
  const [size, word] = SPANS.find(([least]) => seconds >= least) || [1, "s"];
  return `${Math.max(0, Math.floor(seconds / size))} ${word} ago`;
}

// How a run stands: a sign, a tone and words. `now` is null where nothing is live.
export function sayState(state, lastStep, now) {
  if (!state) return null;
  const at = (step) => `at ${sayStep(step ?? lastStep)}`;
  const detail = state.detail ? ` (${state.detail})` : "";
  if (state.how === "ended") return { tone: "over", text: `ended ${at(state.step)}` };
  if (state.how === "crashed") return { tone: "bad", text: `crashed ${at(state.step)}${detail}` };
  if (state.how === "failed") return { tone: "bad", text: `gradwatch itself failed ${at(state.step)}${detail}` };
  const since = state.last ?? state.started;
  if (now === null || since === null) return { tone: "over", text: state.last === null ? "no record yet" : `not ended; last record ${at()}` };
  const age = now - since;
  const last = state.last === null ? `started ${sayAge(age)}, no record yet` : `last record ${sayAge(age)}`;
  if (state.how === "unknown") return { tone: "over", text: last };
  if (age > state.patience) return { tone: "bad", text: `stopped answering: ${last}${state.last === null ? "" : `, ${at()}`}` };
  return { tone: "running", text: `running, ${last}` };
}
