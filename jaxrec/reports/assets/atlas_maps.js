// Maps, clouds, ridges and strips: canvases of our own.

// ---- steps back by training step

function heatOf(s) {
  const steps = (length) => curvesOf(s, length).length;
  const length = [state.length, data.main, ...data.lengths].find((one) => steps(one) > 1) ?? [state.length, data.main, ...data.lengths].find(steps);
  return { length, rows: length === undefined ? [] : curvesOf(s, length) };
}

const heatHeight = (holder) => {
  const { rows } = heatOf(Number(holder.dataset.subject));
  return rows.length > 1 ? Math.max(110, Math.min(rows.length * 12, 240)) + 44 : 66;
};

function drawHeat(pen, width, height, ink, one) {
  const s = Number(one.holder.dataset.subject), { length, rows } = heatOf(s);
  if (!rows.length) return nothing(pen, ink, width, height);
  const last = Math.max(...rows.map((row) => lagsOf(row).at(-1)));
  const top = 4, base = height - 38, tall = (base - top) / rows.length;
  const across = scale(0, place(last), LEFT, width - RIGHT), x = [], y = [], texts = [];
  rows.forEach((row, r) => {
    const lags = lagsOf(row), edges = borders(lags.map((lag) => across(place(lag))), across.start, across.end);
    row.median.forEach((raw, n) => {
      field(pen, raw, level(row), edges[n], top + r * tall, edges[n + 1] - edges[n], tall);
      x.push((edges[n] + edges[n + 1]) / 2);
      y.push(top + (r + 0.5) * tall);
      texts.push(() => `${subjects[s].name}, step ${commas(row.step)}\n${commas(lags[n])} events back: ${saying(raw, level(row))}`);
    });
  });
  contour(pen, rows, (row) => row.half, across, top, tall, []);
  contour(pen, rows, (row) => row.one, across, top, tall, [4, 3]);
  mapAxes(pen, ink, rows.map((row) => row.step), across, top, base, tall);
  alt(one.holder, `${subjects[s].name}: gradient by steps back (up to ${commas(last)}) and ${commas(rows.length)} training steps, rows of ${commas(length)} events; ` +
    `half-life ${rows.length > 1 ? `${told(rows[0].half)} at first, ` : ""}${told(rows.at(-1).half)} at last`);
  return { x, y, text: (n) => texts[n]() };
}

// Where fields meet: halfway between the places of their lags.
function borders(places, start, end) {
  return [start, ...places.slice(1).map((at, n) => (at + places[n]) / 2), end];
}

// A line through the rows where half, or one per cent, of the gradient is left.
function contour(pen, rows, read, across, top, tall, dash) {
  const line = rows.map((row, r) => [read(row), r]).filter(([lag]) => lag !== null);
  for (const [colour, wide] of [["rgba(0,0,0,.75)", 3.4], ["#fff", 1.6]]) {
    pen.beginPath();
    line.forEach(([lag, r], n) => {
      const x = Math.min(across(place(lag)), across.end);
      if (!n || line[n - 1][1] !== r - 1) pen.moveTo(x, top + r * tall);
      pen.lineTo(x, top + (r + 0.5) * tall);
      if (n === line.length - 1 || line[n + 1][1] !== r + 1) pen.lineTo(x, top + (r + 1) * tall);
    });
    [pen.strokeStyle, pen.lineWidth] = [colour, wide];
    pen.setLineDash(dash);
    pen.stroke();
  }
  pen.setLineDash([]);
}

function mapAxes(pen, ink, steps, across, top, base, tall) {
  pen.fillStyle = ink.soft;
  pen.textAlign = "right";
  let used = -Infinity;
  steps.forEach((step, r) => {
    const y = top + (r + 0.5) * tall + 4;
    if (y - used < 14 || (r && r < steps.length - 1 && top + (steps.length - 0.5) * tall + 4 - y < 14)) return;
    used = y;
    pen.fillText(short(step), LEFT - 5, y);
  });
  pen.textAlign = "center";
  for (const lag of lagTicks(place(0), across.high, across.end - across.start)) pen.fillText(commas(lag), across(place(lag)), base + 15);
  pen.fillText("events back", (across.start + across.end) / 2, base + 31);
  turned(pen, steps.length > 1 ? "training step" : "", 11, (top + base) / 2);
}

function turned(pen, text, x, y) {
  pen.save();
  pen.translate(x, y);
  pen.rotate(-Math.PI / 2);
  pen.textAlign = "center";
  pen.fillText(text, 0, 0);
  pen.restore();
}

function nothing(pen, ink, width, height) {
  pen.fillStyle = ink.soft;
  pen.textAlign = "center";
  pen.fillText("no record of this", width / 2, height / 2);
  return null;
}

// ---- the loss of every step by the state of every step

function drawMatrix(pen, width, height, ink, one) {
  const s = Number(one.holder.dataset.subject), { steps, log10 } = data.matrices[s][0];
  const top = 4, base = height - 38, side = Math.min((width - LEFT - RIGHT) / steps.length, (base - top) / steps.length);
  const x = [], y = [], texts = [];
  log10.forEach((row, t) => row.forEach((raw, at) => {
    field(pen, raw, 0, LEFT + at * side, top + t * side, side, side);
    x.push(LEFT + (at + 0.5) * side);
    y.push(top + (t + 0.5) * side);
    texts.push(`loss of event ${commas(steps[t] + 1)} by the state after event ${commas(steps[at] + 1)}: ${saying(raw, 0)}`);
  }));
  pen.fillStyle = ink.soft;
  const each = Math.ceil(34 / side);
  steps.forEach((step, n) => {
    if (n % each) return;
    pen.textAlign = "right";
    pen.fillText(commas(step + 1), LEFT - 5, top + (n + 0.5) * side + 4);
    pen.textAlign = "center";
    pen.fillText(commas(step + 1), LEFT + (n + 0.5) * side, top + steps.length * side + 15);
  });
  pen.fillText("state after event", LEFT + (steps.length * side) / 2, top + steps.length * side + 31);
  turned(pen, "loss of event", 11, top + (steps.length * side) / 2);
  return { x, y, text: (n) => texts[n] };
}

// ---- how far back against how good

const HORIZONS = { half_life: "half-life of the gradient, events", one_percent: "1 % of the gradient, events", information_horizon: "information horizon, events" };

function drawHorizon(pen, width, height, ink) {
  const found = shownSubjects().map((s) => ({ s, row: rowOf(s) })).filter(({ row }) => row && row["ndcg@10"].value !== null)
    .map(({ s, row }) => ({ s, row, reach: row[state.horizon], good: row["ndcg@10"] })).filter(({ reach }) => (reach.value ?? reach.beyond) !== null);
  if (!found.length) return nothing(pen, ink, width, height);
  const ends = found.flatMap(({ reach }) => [reach.value ?? reach.beyond, reach.low, reach.high]).filter((v) => v !== null).map((v) => Math.max(v, 0.3));
  const across = scale(...extent(ends), 58, width - 26, true);
  const up = scale(...padded(...extent(found.flatMap(({ good }) => [good.value, good.low, good.high]))), height - 42, 12);
  frame(pen, ink, across, up, [HORIZONS[state.horizon], "NDCG@10"]);
  const x = [], y = [];
  for (const { s, reach, good } of found) {
    const at = across(Math.max(reach.value ?? reach.beyond, 0.3)), level = up(good.value);
    x.push(at);
    y.push(level);
    [pen.strokeStyle, pen.lineWidth, pen.globalAlpha] = [hue(s), 1, found.length > 12 ? 0.35 : 0.7];
    if (good.low !== null && good.high !== null) stroke(pen, at, up(good.low), at, up(good.high));
    if (reach.low !== null && reach.value !== null) stroke(pen, across(Math.max(reach.low, 0.3)), level, reach.high === null ? across.end : across(reach.high), level);
    pen.globalAlpha = 1;
    if (reach.value === null) {
      pen.lineWidth = 2;
      stroke(pen, at + 6, level, at + 16, level);
      pen.beginPath();
      for (const [dx, dy] of [[12, -4], [16, 0], [12, 4]]) pen.lineTo(at + dx, level + dy);
      pen.stroke();
    }
    shape(pen, subjects[s], at, level, hue(s), ink.paper);
  }
  names(pen, ink, found.map(({ s }, n) => ({ text: subjects[s].name, x: x[n], y: y[n] })), width);
  return { x, y, text: (n) => pointed(found[n]) };
}

const rowOf = (s) => {
  const mine = data.rows.filter((row) => row.subject === subjects[s].name);
  return mine.find((row) => row.length === state.length) || mine.at(-1);
};

function pointed({ s, row }) {
  const span = (one) => (one.value === null ? (one.beyond === null ? "\u2013" : "> " + told(one.beyond)) : told(one.value) + (one.low === null ? "" : ` (${told(one.low)} to ${one.high === null ? "\u2013" : told(one.high)})`));
  const good = row["ndcg@10"];
  return [`${subjects[s].name} (${subjects[s].family}), rows of ${commas(row.length)}: ${row.label}`, `half-life ${span(row.half_life)}`, `1 % left after ${span(row.one_percent)}`,
    `information horizon ${span(row.information_horizon)}`, `NDCG@10 ${good.value.toFixed(4)}` + (good.low === null ? ` (${good.of})` : ` (${good.low.toFixed(4)} to ${good.high.toFixed(4)})`)].join("\n");
}

function shape(pen, subject, x, y, fill, edge, size = 1) {
  pen.save();
  pen.translate(x, y);
  pen.scale(size, size);
  [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [fill, edge, 1.2];
  const outline = new Path2D(subject.shape);
  pen.fill(outline);
  pen.stroke(outline);
  pen.restore();
}

// As many names as there is room for, none on another.
function names(pen, ink, wanted, width) {
  const taken = wanted.map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
  const clear = ([a, b, c, d]) => a > 50 && c < width && taken.every(([e, f, g, h]) => c < e || a > g || d < f || b > h);
  for (const { text, x, y } of wanted) {
    const words = text.length > 24 ? text.slice(0, 23) + "\u2026" : text, wide = pen.measureText(words).width;
    const boxes = [["left", x + 8, -4], ["right", x - 8, -4], ["left", x + 8, 14], ["right", x - 8, 14], ["center", x, -10], ["center", x, 20]]
      .map(([side, from, down]) => ({ side, from, down, box: [from - (side === "left" ? 0 : side === "right" ? wide : wide / 2), y + down - 10, from + (side === "left" ? wide : side === "right" ? 0 : wide / 2), y + down + 2] }));
    const one = boxes.find(({ box }) => clear(box));
    if (!one) continue;
    taken.push(one.box);
    label(pen, ink, words, one.from, y + one.down, one.side);
  }
}

// ---- gates: a ridge a step of training

const RIDGE = 26;
const ridgesOf = (holder) => data.gates[Number(holder.dataset.subject)].filter((gate, n, all) => gate.layer === all[0].layer);
const ridgeColumns = (holder, width) => Math.max(1, Math.min(ridgesOf(holder).length, Math.floor((width - LEFT) / 110)));
const ridgeHeight = (holder) => (width) => {
  const gates = ridgesOf(holder), deep = Math.max(...gates.map((gate) => gate.steps.length));
  return Math.ceil(gates.length / ridgeColumns(holder, width)) * (RIDGE * deep + 62);
};

function drawRidges(pen, width, height, ink, one) {
  const s = Number(one.holder.dataset.subject), gates = ridgesOf(one.holder), columns = ridgeColumns(one.holder, width);
  const deep = Math.max(...gates.map((gate) => gate.steps.length)), block = RIDGE * deep + 62, wide = (width - LEFT) / columns;
  const own = hue(s), x = [], y = [], texts = [];
  gates.forEach((gate, g) => {
    const left = LEFT + (g % columns) * wide, top = Math.floor(g / columns) * block + 34;
    const across = scale(gate.edges[0], gate.edges.at(-1), left, left + wide - 12), most = Math.max(1, ...gate.density.flat());
    gate.steps.forEach((step, r) => {
      const base = top + (r + 1) * RIDGE - 8, row = gate.density[r];
      const to = (value) => base - (value / most) * RIDGE * 1.5;
      pen.beginPath();
      pen.moveTo(across(gate.edges[0]), base);
      row.forEach((value, n) => {
        const middle = (across(gate.edges[n]) + across(gate.edges[n + 1])) / 2;
        pen.lineTo(middle, to(value));
        x.push(middle);
        y.push(to(value));
        texts.push(`${gate.name} at step ${commas(step)}\n${short(gate.edges[n])} to ${short(gate.edges[n + 1])}: ${short(Number((value / 100).toPrecision(2)))} %`);
      });
      pen.lineTo(across(gate.edges.at(-1)), base);
      const late = gate.steps.length > 1 ? r / (gate.steps.length - 1) : 1;
      pen.fillStyle = ink.paper;
      pen.fill();
      pen.fillStyle = faint(own, 0.18 + 0.5 * late);
      pen.fill();
      [pen.strokeStyle, pen.lineWidth] = [own, 1 + late * 0.8];
      pen.stroke();
      [pen.fillStyle, pen.textAlign] = [ink.soft, "right"];
      if (g % columns === 0) pen.fillText(short(step), LEFT - 8, base);
    });
    [pen.fillStyle, pen.textAlign] = [ink.ink, "left"];
    pen.fillText(cut(pen, gate.kind ? `${gate.name} (${gate.kind})` : gate.name, wide - 12), left, top - 22);
    [pen.fillStyle, pen.textAlign] = [ink.soft, "center"];
    for (const value of [gate.edges[0], (gate.edges[0] + gate.edges.at(-1)) / 2, gate.edges.at(-1)]) {
      pen.textAlign = value === gate.edges[0] ? "left" : value === gate.edges.at(-1) ? "right" : "center";
      pen.fillText(short(value), across(value), top + deep * RIDGE + 8);
    }
  });
  turned(pen, "training step", 11, 34 + (RIDGE * deep) / 2);
  return { x, y, text: (n) => texts[n] };
}

// ---- eigenvalues on the unit circle

const CLOUDS = ["circle", "square", "triangle", "diamond", "down", "hexagon", "star", "plus"];

function drawCircle(pen, width, height, ink, one) {
  const s = Number(one.holder.dataset.subject), all = data.spectra[s], layer = all[0].layer, own = hue(s);
  const stages = all.filter((stage) => stage.layer === layer), lastStage = stages.at(-1);
  const points = stages.flatMap((stage) => stage.clouds.flatMap((cloud) => cloud.points));
  const far = Math.min(3, Math.max(1.15, ...points.map(([a, b]) => Math.hypot(a, b) / 1000 + 0.05)));
  const side = Math.min(width, height - 40) / 2 - 6, middle = [width / 2, side + 6], pixels = side / far;
  pen.strokeStyle = ink.line;
  stroke(pen, middle[0] - side, middle[1], middle[0] + side, middle[1]);
  stroke(pen, middle[0], middle[1] - side, middle[0], middle[1] + side);
  pen.strokeStyle = ink.soft;
  pen.lineWidth = 1.4;
  pen.beginPath();
  disc(pen, ...middle, pixels);
  pen.stroke();
  const kinds = [...new Set(stages.flatMap((stage) => stage.clouds.map((cloud) => cloud.name)))], x = [], y = [], texts = [];
  for (const stage of stages)
    for (const cloud of stage.clouds) {
      const outline = new Path2D(data.shapes[CLOUDS[kinds.indexOf(cloud.name) % CLOUDS.length]]), latest = stage === lastStage;
      for (const [a, b] of cloud.points) {
        const size = Math.hypot(a, b) / 1000, inside = Math.min(1, far / (size || 1));
        x.push(middle[0] + (a / 1000) * inside * pixels);
        y.push(middle[1] - (b / 1000) * inside * pixels);
        texts.push(`${cloud.name} at step ${commas(stage.step)}\n${(a / 1000).toFixed(3)} ${b < 0 ? "\u2212" : "+"} ${Math.abs(b / 1000).toFixed(3)}i, modulus ${size.toFixed(3)}`);
        pen.save();
        pen.translate(x.at(-1), y.at(-1));
        pen.scale(latest ? 0.72 : 0.62, latest ? 0.72 : 0.62);
        [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [latest ? faint(own, 0.75) : "transparent", latest ? ink.paper : ink.soft, latest ? 0.8 : 1.6];
        pen.fill(outline);
        pen.stroke(outline);
        pen.restore();
      }
    }
  label(pen, ink, "1", middle[0] + pixels + 3, middle[1] - 4);
  cloudKey(pen, ink, kinds, own, 8, height - 24, width);
  return { x, y, text: (n) => texts[n] };
}

function cloudKey(pen, ink, kinds, own, x, y, width) {
  pen.textAlign = "left";
  kinds.forEach((name, n) => {
    const words = cut(pen, name, 120), wide = pen.measureText(words).width + 26;
    if (x + wide > width && x > 8) [x, y] = [8, y + 16];
    shape(pen, { shape: data.shapes[CLOUDS[n % CLOUDS.length]] }, x + 5, y, faint(own, 0.8), ink.paper, 0.9);
    pen.fillStyle = ink.soft;
    pen.fillText(words, x + 14, y + 4);
    x += wide;
  });
}

// ---- one person: which past events moved this prediction

// One scale for the gradients of all strips; what is smaller than its end is as dark as that.
function strips() {
  const [low, high] = extent(data.traces.flatMap((some) => some.flatMap((one) => one.gradient)));
  return [Math.max(low, high - 800), high > low ? high : low + 1];
}

function drawStrip(pen, width, height, ink, one) {
  const s = Number(one.holder.dataset.subject), { titles, gradient, influence } = data.traces[s][0], many = titles.length;
  const wide = (width - LEFT - RIGHT) / many, base = height - 62, most = Math.max(1e-9, ...influence.map((value) => Math.abs(value ?? 0)));
  const negative = influence.some((value) => value < 0), zero = negative ? 10 + (base - 10) / 2 : base;
  const [low, high] = strips(), own = hue(s), x = [], y = [];
  const up = scale(negative ? -most : 0, most, base, 10);
  pen.fillStyle = ink.soft;
  pen.textAlign = "right";
  for (const value of ticks(up, 5)) {
    pen.fillText(short(value), LEFT - 6, up(value) + 4);
    pen.strokeStyle = ink.line;
    stroke(pen, LEFT, Math.round(up(value)) + 0.5, width - RIGHT, Math.round(up(value)) + 0.5);
  }
  titles.forEach((_, n) => {
    const left = LEFT + n * wide, value = influence[n] ?? 0, to = up(value);
    pen.fillStyle = own;
    pen.fillRect(left + Math.min(1, wide * 0.1), Math.min(zero, to), Math.max(wide - Math.min(2, wide * 0.2), 1), Math.max(Math.abs(to - zero), 1));
    pen.fillStyle = gradient[n] === null ? ink.line : shade(gradient[n], low, high);
    pen.fillRect(left, base + 6, wide + 0.5, 12);
    x.push(left + wide / 2);
    y.push((zero + to) / 2);
  });
  pen.strokeStyle = ink.soft;
  stroke(pen, LEFT, Math.round(zero) + 0.5, width - RIGHT, Math.round(zero) + 0.5);
  pen.fillStyle = ink.soft;
  pen.textAlign = "left";
  pen.fillText(`${commas(many - 1)} events back`, LEFT, base + 34);
  pen.textAlign = "right";
  pen.fillText("the last event", width - RIGHT, base + 34);
  pen.textAlign = "left";
  pen.fillText(cut(pen, `colours: gradient, ${power(low / 100)} or less (dark) to ${power(high / 100)} (bright)`, width - LEFT), LEFT, base + 52);
  turned(pen, "score lost without it", 11, (10 + base) / 2);
  return { x, y, text: (n) => `${titles[n]}\n${n === many - 1 ? "the last event" : `${commas(many - 1 - n)} events back`}\n` +
    `without it the score falls by ${influence[n] === null ? "\u2013" : short(Number(influence[n].toPrecision(3)))}\ngradient ${gradient[n] === null ? "\u2013" : power(gradient[n] / 100)}` };
}
