// History, learning curves, trade-offs, one option at a time, and the lanes of workers.
const LEFT = 58, RIGHT = 14, TOP = 10, BOTTOM = 42;

function drawHistory(pen, width, height, ink) {
  const across = scale(...extent(trials.number), LEFT + 4, width - RIGHT);
  const rug = trials.state.some((at) => at === DIVERGED || at === MEMORY || at === FAILED) ? 18 : 0;
  const up = scale(...extent(trials.value), height - BOTTOM - rug, TOP + 4);
  frame(pen, ink, Object.assign((v) => across(v), across), Object.assign((v) => up(v), up), ["", objective.unit], { x: null });
  return historyDots(pen, ink, across, up, height - BOTTOM, height);
}

function historyDots(pen, ink, across, up, base, height) {
  const x = new Float32Array(count).fill(NaN), y = new Float32Array(count).fill(NaN);
  const most = Math.max(1, extent(trials.epochs)[1]), radius = count > 3000 ? 1.6 : count > 400 ? 2.2 : 3;
  let best = null;
  const steps = [];
  for (let n = 0; n < count; n++) {
    const state = trials.state[n], value = trials.value[n];
    x[n] = across(trials.number[n]);
    if (value !== null) y[n] = up(value);
    else if (state >= DIVERGED && state <= FAILED) y[n] = base - 7;
    else x[n] = NaN;
    if (state === DONE && value !== null && (best === null || (value - best) * objective.sign > 0)) {
      best = value;
      steps.push([x[n], y[n]]);
    }
  }
  for (let n = 0; n < count; n++) {
    if (trials.state[n] === PRUNED && !Number.isNaN(y[n])) {
      pen.globalAlpha = 0.15 + 0.65 * Math.min(1, trials.epochs[n] / most);
      mark(pen, ink, PRUNED, x[n], y[n], count > 3000 ? 1.3 : 2.5);
    } else if (trials.state[n] >= DIVERGED && trials.state[n] <= FAILED) {
      pen.globalAlpha = 1;
      mark(pen, ink, trials.state[n], x[n], base - 7);
      y[n] = base - 7;
    }
  }
  const finished = (wanted) => {
    pen.globalAlpha = wanted ? 1 : 0.75;
    pen.fillStyle = wanted ? ink.c0 : ink.soft;
    pen.beginPath();
    for (let n = 0; n < count; n++)
      if (trials.state[n] === DONE && !Number.isNaN(y[n]) && inFocus(trials.config[n]) === wanted) disc(pen, x[n], y[n], radius);
    pen.fill();
  };
  finished(false);
  pen.globalAlpha = 1;
  pen.strokeStyle = ink.c1;
  pen.lineWidth = 2;
  pen.beginPath();
  steps.forEach(([left, level], at) => (at ? (pen.lineTo(left, steps[at - 1][1]), pen.lineTo(left, level)) : pen.moveTo(left, level)));
  if (steps.length) pen.lineTo(across.end, steps.at(-1)[1]);
  pen.stroke();
  finished(true);
  pen.fillStyle = ink.soft;
  pen.textAlign = "center";
  for (const value of ticks(across, Math.min(8, (across.end - across.start) / 62)))
    if (Number.isInteger(value)) pen.fillText(commas(value), across(value), base + 16);
  pen.strokeStyle = ink.soft;
  pen.lineWidth = 1;
  if (base !== up.start) stroke(pen, across.start, base + 0.5, across.end, base + 0.5);
  pen.fillText("trial, in the order they were proposed", (across.start + across.end) / 2, height - 8);
  return { x, y, text: told };
}

function drawCurves(pen, width, height, ink) {
  const total = curves.epoch.length, owner = new Int32Array(total), x = new Float32Array(total), y = new Float32Array(total);
  const [, last] = extent(curves.epoch);
  const across = scale(0, Math.max(1, last), LEFT, width - RIGHT);
  const up = scale(...extent(curves.value), height - BOTTOM, TOP);
  frame(pen, ink, across, up, ["epochs", objective.unit]);
  const starts = [];
  let at = 0;
  curves.count.forEach((some, n) => {
    starts.push(at);
    for (const end = at + some; at < end; at++) [owner[at], x[at], y[at]] = [n, across(curves.epoch[at]), up(curves.value[at])];
  });
  const line = (n) => {
    const from = starts[n], some = curves.count[n];
    if (!some) return;
    pen.beginPath();
    for (let i = from; i < from + some; i++) pen.lineTo(x[i], y[i]);
    pen.stroke();
    if (some === 1 || trials.state[n] !== DONE) {
      pen.beginPath();
      disc(pen, x[from + some - 1], y[from + some - 1], 1.6);
      pen.stroke();
    }
  };
  const thin = Math.max(0.09, Math.min(0.6, 60 / Math.max(1, count)));
  const layers = [
    [ink.soft, 1, Math.max(0.08, thin * 0.6), (n) => trials.state[n] !== DONE],
    [ink.soft, 1, thin, (n) => trials.state[n] === DONE && !inFocus(trials.config[n])],
    [ink.c0, 1.4, Math.max(0.25, Math.min(0.9, 12 / Math.sqrt(count || 1))), (n) => trials.state[n] === DONE && inFocus(trials.config[n])],
  ];
  for (const [colour, wide, alpha, wanted] of layers) {
    [pen.strokeStyle, pen.lineWidth, pen.globalAlpha] = [colour, wide, alpha];
    evenly([...curves.count.keys()].filter(wanted), colour === ink.c0 ? data.lines / 2 : data.lines).forEach(line);
  }
  pen.globalAlpha = 1;
  return { x, y, text: (i) => `epoch ${short(curves.epoch[i])}: ${short(curves.value[i])}\n` + told(owner[i]) };
}

function drawFront(pen, width, height, ink, one) {
  const place = Number(one.holder.dataset.place), { values, names, signs, members, knee } = data.fronts;
  const [low, high] = extent(values[place]), log = low > 0 && high / low > 30;
  const across = scale(low, high, LEFT + 6, width - RIGHT - 6, log);
  const up = scale(...extent(ranked), height - BOTTOM - 4, TOP + 6);
  const way = signs[place] > 0 ? "more is better" : "less is better";
  frame(pen, ink, across, up, [`${names[place]} (${way})`, objective.unit], { x: names[place].startsWith("seconds") ? clock : short });
  const x = new Float32Array(ranked.length).fill(NaN), y = new Float32Array(ranked.length).fill(NaN);
  for (let c = 0; c < ranked.length; c++)
    if (ranked[c] !== null && values[place][c] !== null) [x[c], y[c]] = [across(values[place][c]), up(ranked[c])];
  const dots = (some, colour, radius, alpha) => {
    [pen.fillStyle, pen.globalAlpha] = [colour, alpha];
    pen.beginPath();
    for (const c of some) if (!Number.isNaN(x[c])) disc(pen, x[c], y[c], radius);
    pen.fill();
    pen.globalAlpha = 1;
  };
  dots(ranked.keys(), ink.soft, ranked.length > 2000 ? 1.6 : 2.4, 0.45);
  if (values.length === 1) {
    [pen.strokeStyle, pen.lineWidth] = [ink.c0, 1.5];
    pen.beginPath();
    members.forEach((c, at) => {
      if (at) pen.lineTo(x[members[at - 1]], y[c]);
      pen.lineTo(x[c], y[c]);
    });
    pen.stroke();
  }
  dots(members, ink.c0, 4, 1);
  if (knee !== null) {
    [pen.strokeStyle, pen.lineWidth] = [ink.c1, 2.5];
    pen.beginPath();
    disc(pen, x[knee], y[knee], 7.5);
    pen.stroke();
    const right = x[knee] < width - 90;
    label(pen, ink, "knee", x[knee] + (right ? 12 : -12), y[knee] + 16, right ? "left" : "right");
  }
  return { x, y, text: (c) => [`${placed(c)}: ${objective.name} ${short(ranked[c])}`, `${names[place]} ${short(values[place][c])}`, ...described(c)].join("\n") };
}

// A fixed share between 0 and 1 for each trial, so that dots of a category do not lie on each other.
const jitter = (n) => (n * 0.6180339887) % 1;

function drawSlice(pen, width, height, ink, one) {
  const o = Number(one.holder.dataset.place), option = options[o], kinds = option.categories;
  const [low, high] = kinds ? [-0.5, kinds.length - 0.5] : [option.low, option.high];
  const across = scale(low, high, LEFT + 6, width - RIGHT - 6, option.log);
  const up = scale(...extent(trials.value), height - BOTTOM - 4, TOP + 4);
  frame(pen, ink, across, up, [option.log ? option.label + " (log)" : option.label, objective.unit].map((text) => cut(pen, text, width - 90)), kinds ? { x: null } : {});
  if (kinds) {
    const room = (across.end - across.start) / kinds.length, every = Math.ceil(30 / room);
    pen.textAlign = "center";
    kinds.forEach((kind, k) => k % every === 0 && pen.fillText(cut(pen, kind, room * every - 4), across(k), up.start + 20));
  }
  const x = new Float32Array(count).fill(NaN), y = new Float32Array(count).fill(NaN);
  for (let n = 0; n < count; n++) {
    const at = points[o][trials.config[n]], value = trials.value[n];
    if (at === null || value === null) continue;
    [x[n], y[n]] = [across(kinds ? at + (jitter(n) - 0.5) * 0.6 : at), up(value)];
  }
  sliceDots(pen, ink, x, y);
  sliceMiddle(pen, ink, o, kinds, across, up);
  return { x, y, text: told };
}

function sliceDots(pen, ink, x, y) {
  const radius = count > 3000 ? 1.3 : 2.2;
  for (const [colour, alpha, wanted] of [
    [ink.soft, 0.22, (n) => trials.state[n] !== DONE],
    [ink.soft, 0.5, (n) => trials.state[n] === DONE && !inFocus(trials.config[n])],
    [ink.c0, 0.9, (n) => trials.state[n] === DONE && inFocus(trials.config[n])],
  ]) {
    [pen.fillStyle, pen.globalAlpha] = [colour, alpha];
    pen.beginPath();
    for (let n = 0; n < count; n++) if (!Number.isNaN(x[n]) && wanted(n)) disc(pen, x[n], y[n], radius);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

// The median of finished trials: of each category, or of eight parts with as many trials each.
function sliceMiddle(pen, ink, o, kinds, across, up) {
  const held = [];
  for (let n = 0; n < count; n++) {
    const at = points[o][trials.config[n]];
    if (at !== null && trials.state[n] === DONE && trials.value[n] !== null) held.push([at, trials.value[n]]);
  }
  [pen.strokeStyle, pen.lineWidth] = [ink.c1, 2];
  if (kinds) {
    for (const k of kinds.keys()) {
      const some = held.filter((pair) => pair[0] === k).map((pair) => pair[1]);
      if (some.length) stroke(pen, across(k - 0.32), up(median(some)), across(k + 0.32), up(median(some)));
    }
    return;
  }
  if (held.length < 24) return;
  held.sort((a, b) => a[0] - b[0]);
  pen.beginPath();
  for (let part = 0; part < 8; part++) {
    const some = held.slice(Math.round((part * held.length) / 8), Math.round(((part + 1) * held.length) / 8));
    pen.lineTo(across(median(some.map((pair) => pair[0]))), up(median(some.map((pair) => pair[1]))));
  }
  pen.stroke();
}

const LANE = 22;

function drawLanes(pen, width, height, ink) {
  const { names, lane, start, end, compile, state, trial, said } = data.lanes;
  pen.textAlign = "left";
  const side = Math.min(150, width * 0.3, 12 + Math.max(...names.map((name) => pen.measureText(name).width)));
  const across = scale(0, Math.max(...end, 1e-3), side, width - RIGHT), hatch = hatching(pen, ink);
  const base = TOP + LANE * Math.min(names.length, data.lanesShown);
  const fill = { [DONE]: ink.c0, [PRUNED]: ink.soft, [RUNNING]: ink.c2, [STOPPED]: ink.c5, [DIVERGED]: ink.c4, [MEMORY]: ink.c3 };
  pen.fillStyle = ink.soft;
  names.slice(0, data.lanesShown).forEach((name, at) => pen.fillText(cut(pen, name, side - 8), 0, TOP + LANE * at + 15));
  const x = new Float32Array(start.length).fill(NaN), y = new Float32Array(start.length).fill(NaN);
  pen.strokeStyle = ink.line;
  for (const value of timeTicks(across)) {
    stroke(pen, across(value), TOP, across(value), base);
    pen.textAlign = "center";
    pen.fillText(clock(value), across(value), base + 16);
  }
  for (let n = 0; n < start.length; n++) {
    if (lane[n] >= data.lanesShown) continue;
    const top = TOP + LANE * lane[n] + 3, left = across(start[n]), wide = Math.max(1, across(end[n]) - left);
    const gap = wide > 4 ? 1 : wide > 1.5 ? 0.4 : 0;
    pen.fillStyle = fill[state[n]] || ink.c1;
    pen.globalAlpha = state[n] === PRUNED ? 0.55 : 0.85;
    pen.fillRect(left, top, wide - gap, LANE - 6);
    pen.globalAlpha = 1;
    const compiling = Math.min(across(start[n] + compile[n]) - left, wide - gap);
    if (compiling > 1) {
      pen.fillStyle = hatch;
      pen.fillRect(left, top, compiling, LANE - 6);
    }
    [x[n], y[n]] = [left + wide / 2, top + LANE / 2 - 3];
  }
  pen.lineWidth = 1.5;
  const crowd = state.filter((at) => ![DONE, PRUNED, RUNNING, STOPPED].includes(at)).length > 40 * Math.min(names.length, data.lanesShown);
  for (let n = 0; n < start.length; n++)
    if (!Number.isNaN(x[n]) && ![DONE, PRUNED, RUNNING, STOPPED].includes(state[n])) (crowd ? tick : cross)(pen, ink, across(end[n]), y[n]);
  pen.fillStyle = ink.soft;
  pen.textAlign = "center";
  pen.fillText("time since the first start", (side + width - RIGHT) / 2, base + 34);
  return { x, y, text: (n) => `trial ${trial[n]}: ${WORDS[said[n]] || said[n]}\n${names[lane[n]]}\n${clock(end[n] - start[n])}, of them ${clock(compile[n])} compiling` };
}

function timeTicks(across) {
  const units = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400];
  const about = Math.max(2, Math.min(8, (across.end - across.start) / 80)), rough = across.high / about;
  const step = units.find((unit) => unit >= rough) || 86400 * Math.ceil(rough / 86400), found = [];
  for (let value = 0; value <= across.high * 1.0001; value += step) found.push(value);
  return found;
}

function cross(pen, ink, x, y) {
  for (const [colour, wide] of [[ink.paper, 4], [ink.ink, 1.8]]) {
    [pen.strokeStyle, pen.lineWidth] = [colour, wide];
    stroke(pen, x - 4, y - 4, x + 4, y + 4);
    stroke(pen, x - 4, y + 4, x + 4, y - 4);
  }
}

// Where crosses would hide everything: a short line above the bar.
function tick(pen, ink, x, y) {
  [pen.strokeStyle, pen.lineWidth] = [ink.ink, 1];
  stroke(pen, x, y - LANE / 2 + 1, x, y - 3);
}

function hatching(pen, ink) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const small = tile.getContext("2d");
  [small.strokeStyle, small.lineWidth] = [ink.paper, 1.6];
  for (const shift of [-6, 0, 6]) stroke(small, shift, 6, shift + 6, 0);
  return pen.createPattern(tile, "repeat");
}
