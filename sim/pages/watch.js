// Asks for the state every second and shows it. While nobody answers it says so, and goes on asking.
const main = document.getElementById("main"), connection = document.getElementById("connection");
let shown = "";

function make(tag, text = "", more = {}) {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  for (const [name, value] of Object.entries(more)) element.setAttribute(name, value);
  return element;
}

function time(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function table(caption, heads, rows) {
  const made = make("table");
  made.append(make("caption", caption));
  const top = made.createTHead().insertRow();
  for (const head of heads) top.append(make("th", head, { scope: "col" }));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, n) => line.append(n ? make("td", String(value), typeof value === "number" ? { class: "number" } : {}) : make("th", String(value), { scope: "row" })));
  }
  return made;
}

function show(run, number) {
  const section = make("section", "", { "aria-labelledby": `run-${number}`, "data-run": run.path });
  section.append(make("h2", run.path === "." ? run.name : `${run.path}: ${run.name}`, { id: `run-${number}` }));
  const unit = { training: "epochs", experiment: "trials" }[run.kind] ?? "cases";
  const line = make("p");
  line.append(make("span", run.status, { class: `status ${run.status}` }));
  let words = `: ${run.done.toLocaleString("en")}${run.total === null ? "" : ` of ${run.total.toLocaleString("en")}`} ${unit}`;
  if (run.left !== null) words += `, about ${time(run.left)} left`;
  if (run.status === "silent") words += `, no line for ${time(run.age)}: it takes long, or was killed (--resume goes on)`;
  if (run.message) words += `. ${run.message}`;
  line.append(words);
  section.append(line);
  if (run.total) section.append(make("progress", "", { value: run.done, max: run.total, "aria-label": `${unit} of ${run.name}` }));
  if (run.stages.length) section.append(table("Stages", ["stage", "epochs", "of", "loss", "validation %", "weights left %", "test %"], run.stages.map((stage) => {
    const last = stage.history.at(-1), figure = (value, scale, digits) => (value === null || value === undefined ? "–" : (scale * value).toFixed(digits));
    return [stage.stage, stage.history.length, stage.epochs ?? "–", figure(last?.loss, 1, 4), ...[last?.validation, last?.density, stage.test].map((value) => figure(value, 100, 2))];
  })));
  if (run.chart) {  // drawn by the server of this page; names in it are escaped there
    const figure = make("figure");
    figure.append(new DOMParser().parseFromString(run.chart, "text/html").body.firstChild);
    section.append(figure);
  }
  if (run.front?.length) section.append(table("Trials that no other beats", ["trial", ...run.objectives], run.front.map((each) => [each.trial, ...each.figures])));
  if (run.trials?.length) {
    const details = make("details");
    details.append(make("summary", `${run.trials.length} trials are through`), make("p", run.trials.join(", ")));
    section.append(details);
  }
  if (run.cases) section.append(make("p", `${Object.entries(run.cases).map(([name, count]) => `${count.toLocaleString("en")} ${name}`).join(", ") || "no case yet"}${run.values === undefined ? "" : `; ${run.values.toLocaleString("en")} values compared`}`));
  if (run.failures.length) section.append(table("Failures, the last ones", ["seed", "status", "what"], run.failures.map((each) => [each.seed ?? "–", each.status, each.message])));
  return section;
}

async function ask() {
  try {
    const answer = await fetch("/state", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const state = await answer.json();
    const said = state.error ?? (state.runs.length ? "Up to date." : "No run has begun in this folder yet.");
    if (connection.textContent !== said) connection.textContent = said;
    connection.className = state.error ? "lost" : "";
    document.getElementById("folder").textContent = state.folder;
    document.title = `${state.folder}: ${state.runs.map((run) => run.status).join(", ") || "no run"}`;
    for (const run of state.runs) if (run.status === "running") run.age = 0;  // a second more is no news
    const text = JSON.stringify(state.runs);
    if (text !== shown) {
      const open = [...main.querySelectorAll("details")].map((details) => details.open);
      main.replaceChildren(...state.runs.map(show));
      main.querySelectorAll("details").forEach((details, n) => { details.open = open[n] ?? false; });
      shown = text;
    }
  } catch {
    connection.textContent = "Nobody answers; eie watch may have ended. Asking again every second.";
    connection.className = "lost";
  }
  setTimeout(ask, 1000);
}
ask();
