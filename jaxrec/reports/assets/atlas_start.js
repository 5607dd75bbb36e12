// Choosing cells, lengths and scales; taking the numbers away; and then the charts start.
const LINES = { curve: curveChart, together: togetherChart, information: informationChart, task: taskChart, exponents: exponentChart, singular: singularChart };
const MAPS = { heat: [drawHeat, heatHeight], matrix: [drawMatrix, () => 300], horizon: [drawHorizon, () => 360], ridges: [drawRidges, null],
  circle: [drawCircle, () => 250], strip: [drawStrip, () => 210] };

function choosing() {
  const boxes = [...document.querySelectorAll("#cells input")], said = document.getElementById("chosen");
  const follow = () => {
    if (!boxes.length) return;
    state.chosen = new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)));
    for (const node of document.querySelectorAll("[data-subject]:not(.plot)")) node.hidden = !state.chosen.has(Number(node.dataset.subject));
    for (const node of document.querySelectorAll(".family")) node.hidden = ![...node.querySelectorAll("[data-subject]:not(.plot)")].some((one) => !one.hidden);
    said.textContent = state.chosen.size === subjects.length ? `all ${commas(subjects.length)} cells` : `${commas(state.chosen.size)} of ${commas(subjects.length)} cells`;
    document.getElementById("every").hidden = state.chosen.size === subjects.length;
    refresh();
  };
  const only = (wanted) => {
    for (const box of boxes) box.checked = wanted(Number(box.value));
    follow();
  };
  for (const box of boxes) box.addEventListener("change", follow);
  for (const button of document.querySelectorAll("button[data-only]"))
    button.addEventListener("click", () => only((s) => s === Number(button.dataset.only)));
  for (const button of document.querySelectorAll("button[data-family]"))
    button.addEventListener("click", () => only((s) => subjects[s].family === button.dataset.family));
  document.getElementById("every")?.addEventListener("click", () => only(() => true));
  follow();
}

function telling() {
  const follow = (id, read) => document.getElementById(id)?.addEventListener("change", (event) => {
    read(event.target);
    refresh();
  });
  follow("length", (node) => (state.length = Number(node.value)));
  follow("layer", (node) => (state.layer = Number(node.value)));
  follow("relative", (node) => (state.relative = node.value === "relative"));
  follow("even", (node) => (state.even = node.value === "even"));
  follow("horizon", (node) => (state.horizon = node.value));
}

// ---- the numbers as files

const plain = (value) => (value === null || value === data.zero ? null : value / 100);
const quoted = (value) => (value === null || value === undefined ? "" : /[",\r\n]/.test(String(value)) ? '"' + String(value).replaceAll('"', '""') + '"' : String(value));

function curveTable() {
  const heads = ["subject", "family", "cell", "length", "layer", "step", "phase", "events_back", "log10_median", "exactly_zero", "log10_q05", "log10_q25", "log10_q75", "log10_q95"];
  const found = [heads];
  data.curves.forEach((all, s) => all.forEach((one) => lagsOf(one).forEach((lag, n) => found.push([subjects[s].name, subjects[s].family, subjects[s].cell,
    one.length, one.layer, one.step, one.phase, lag, plain(one.median[n]), one.median[n] === data.zero ? 1 : 0,
    ...["0.05", "0.25", "0.75", "0.95"].map((name) => (one.around?.[name] ? plain(one.around[name][n]) : null))]))));
  return found;
}

function rowTable() {
  const reaches = ["half_life", "e_fold", "one_percent", "area", "lyapunov", "information_horizon"];
  const flatHeads = reaches.flatMap((name) => [name, name + "_low", name + "_high", name + "_beyond"]);
  const own = ["subject", "family", "cell", "run", "length", "inputs", "layer", "step", "phase", "examples", "label"];
  return [[...own, ...flatHeads, "ndcg@10", "ndcg@10_low", "ndcg@10_high", "ndcg@10_of"], ...data.rows.map((row) => [...own.map((name) => row[name]),
    ...reaches.flatMap((name) => ["value", "low", "high", "beyond"].map((end) => row[name][end])), ...["value", "low", "high", "of"].map((end) => row["ndcg@10"][end])])];
}

function everything() {
  const [heads, ...lines] = curveTable();
  const { rows, gates, spectra, exponents, singular, information, tasks, traces, matrices } = data;
  return JSON.stringify({ rows, curves: lines.map((line) => Object.fromEntries(line.map((value, n) => [heads[n], value]))),
    subjects: subjects.map(({ name, family, cell }, s) => ({ name, family, cell, gates: gates[s], spectra_in_thousandths: spectra[s],
      exponents_in_ten_thousandths: exponents[s], singular_in_hundredths: singular[s], information: information[s], tasks: tasks[s], traces: traces[s], matrices_in_hundredths: matrices[s] })) });
}

function taking() {
  const csv = (table) => table.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  const files = { "atlas.csv": () => csv(rowTable()), "atlas-curves.csv": () => csv(curveTable()), "atlas.json": everything };
  for (const button of document.querySelectorAll("button[data-file]"))
    button.addEventListener("click", () => {
      const name = button.dataset.file, kind = name.endsWith("json") ? "application/json" : "text/csv";
      const link = make("a", "", { href: URL.createObjectURL(new Blob([files[name]()], { type: kind })), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
}

function start() {
  for (const holder of document.querySelectorAll("[data-chart]")) {
    const kind = holder.dataset.chart;
    if (LINES[kind]) LINES[kind](holder);
    else plot(holder, kind === "ridges" ? ridgeHeight(holder) : () => MAPS[kind][1](holder), MAPS[kind][0]);
  }
  for (const node of document.querySelectorAll(".scripted")) node.hidden = false;
  choosing();
  telling();
  taking();
  watch();
}

start();
