// Line charts: uPlot draws, this says what; a chart is made when it is seen and again when something changes.
function lineChart(holder, height, build) {
  const one = { holder, dirty: true, seen: false, u: null };
  const frame = holder.appendChild(make("div"));
  const name = holder.getAttribute("aria-label");
  one.paint = () => {
    const width = holder.clientWidth;
    if (!width) return;
    one.dirty = false;
    one.u?.destroy();
    const made = build(width);
    one.u = null;
    frame.textContent = made ? "" : "no record of this";
    frame.className = made ? "" : "none";
    if (!made) return;
    one.u = new uPlot({ ...made, width, height }, made.data, frame);
    const canvas = one.u.root.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", made.alt || name);
  };
  plots.push(one);
}

function axis(ink, extra) {
  return { stroke: ink.soft, font: FONT, labelFont: FONT, labelSize: extra.label ? 18 : 0, labelGap: 0, gap: 4, size: 26, ticks: { show: false },
    grid: { show: false }, ...extra };
}

// What all line charts have in common. `x` and `y` say label, ticks, how a tick is written, and the range of y.
function lines(ink, { series, data: columns, x, y, say, draw, legend = false, bands, alt: words }) {
  const whole = [columns[0][0], columns[0].at(-1)];
  return {
    data: columns, alt: words, bands,
    padding: [10, RIGHT, 0, 0],
    legend: { show: legend, live: false },
    cursor: { drag: { x: true, y: false, dist: 8 }, points: { size: 7, width: 1.5 }, focus: { prox: 40 }, y: false },
    focus: { alpha: series.length > 4 ? 0.3 : 1 },
    scales: {
      x: { time: false, range: (u, low, high) => (low === whole[0] && high === whole[1] && x.range ? x.range : [low, high]) },
      y: { range: () => y.range },
    },
    axes: [
      axis(ink, { label: x.label, splits: (u, a, low, high) => x.ticks(low, high, u.bbox.width / devicePixelRatio), values: (u, all) => all.map(x.form) }),
      axis(ink, { label: y.label, size: LEFT - 18 + (y.label ? 0 : 18), splits: (u) => ticks(scale(...y.range, 0, 1), Math.max(2, u.bbox.height / devicePixelRatio / 24)),
        values: (u, all) => all.map(y.form || short), grid: { show: true, stroke: ink.line, width: 1 } }),
    ],
    series: [{}, ...series.map((one) => ({ spanGaps: false, points: { show: false }, width: 2, ...one }))],
    hooks: { draw: draw ? [draw] : [], setCursor: [(u) => hover(u, say)], ready: [leave] },
  };
}

const leave = (u) => u.over.addEventListener("mouseleave", () => (tip.hidden = true));

// Says what the nearest line is at the cursor.
function hover(u, say) {
  const { left: x, top: y, idxs } = u.cursor;
  if (x === undefined || x < 0 || !say) return void (tip.hidden = true);
  let best = 0, least = 40;
  for (let n = 1; n < u.series.length; n++) {
    const value = idxs[n] === null ? null : u.data[n][idxs[n]];
    if (!u.series[n].show || value === null || value === undefined || u.series[n].label === "") continue;
    const far = Math.abs(u.valToPos(value, "y") - y);
    if (far < least) [best, least] = [n, far];
  }
  tip.hidden = !best;
  if (!best) return;
  tip.textContent = say(best, u.data[0][idxs[best]], u.data[best][idxs[best]]);
  const box = u.over.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(box.left + x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, box.top + y - tip.offsetHeight - 10) + "px";
}

const joined = (tables) => uPlot.join(tables.map(([x, ...columns]) => [x, ...columns]));
const lagAxis = (label = "events back") => ({
  label, ticks: (low, high, room) => lagTicks(low, high, room).map(place), form: (value) => commas(Math.round(lagAt(value))),
});

// What fits all curves that are shown, in whole powers of ten, down to where the scale of colours ends.
function rangeOf(all) {
  const [low, high] = extent(all.flat(), []);
  return [Math.min(Math.max(Math.floor(low), data.low), -1), Math.max(Math.ceil(high), 1)];
}
const commonRange = () => rangeOf(shownSubjects().flatMap((s) => three(s).map(({ one }) => logs(one))));

// ---- a cell's gradient over lag: start, middle, end, with their half-lives written on them

const LOOKS = { start: { dash: [2, 3], width: 1.4 }, middle: { dash: [7, 4], width: 1.6 }, end: { width: 2.4 }, untrained: { width: 2.4 } };

function curveChart(holder) {
  const s = Number(holder.dataset.subject);
  lineChart(holder, 190, () => {
    const found = three(s), ink = colours(), own = hue(s);
    if (!found.length) return null;
    const last = found.at(-1).one, around = last.around || {}, wide = "0.25" in around && "0.75" in around;
    const tables = found.map(({ one }) => [lagsOf(one).map(place), logs(one)]);
    if (wide) tables.push([lagsOf(last).map(place), logs(last, around["0.75"]), logs(last, around["0.25"])]);
    const n = found.length, edge = { label: "", width: 0, stroke: "transparent" };
    return lines(ink, {
      data: joined(tables),
      series: [...found.map(({ name }) => ({ label: name, stroke: own, ...LOOKS[name] })), ...(wide ? [edge, edge] : [])],
      bands: wide ? [{ series: [n + 1, n + 2], fill: faint(own, 0.16) }] : undefined,
      x: { ...lagAxis(""), range: [0, place(lagsOf(last).at(-1))] },
      y: { label: state.relative ? "log10, against lag 0" : "log10 norm", range: commonRange() },
      say: (line, x, value) => {
        const one = found[line - 1].one, first = logs(one)[0];
        return `${subjects[s].name}, ${found[line - 1].name} (step ${commas(one.step)})\n${told(lagAt(x))} events back: ${power(value)}` +
          (first === null ? "" : `, ${left(10 ** (value - first))} of lag 0`);
      },
      draw: (u) => halves(u, found, own, ink),
      alt: `${subjects[s].name}, rows of ${commas(state.length)} events: ` + found.map(({ name, one }) => `${name} ${halfText(one)}`).join(", "),
    });
  });
}

const halfText = (one) => (one.label === "exploding" ? "grows" : one.half === null ? `half-life > ${commas(lagsOf(one).at(-1))}` : `half-life ${told(one.half)}`);

// A dot where half of the gradient is gone, and the number; numbers keep clear of each other.
function halves(u, found, own, ink) {
  const pen = u.ctx, dots = devicePixelRatio, placed = [];
  pen.save();
  pen.font = FONT.replace("12px", 11.5 * dots + "px");
  pen.lineJoin = "round";
  found.forEach(({ name, one }) => {
    const lag = one.label === "exploding" ? null : one.half, value = lag === null ? null : at(one, lag);
    if (value === null || value < u.scales.y.min) return;
    const x = u.valToPos(place(lag), "x", true), y = u.valToPos(value, "y", true);
    if (x < u.bbox.left - 1 || x > u.bbox.left + u.bbox.width + 1) return;
    pen.beginPath();
    pen.arc(x, y, 3.6 * dots, 0, 2 * Math.PI);
    [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [own, ink.paper, 1.5 * dots];
    pen.fill();
    pen.stroke();
    placed.push({ x, y, text: found.length > 1 ? `${name} ${told(lag)}` : `half-life ${told(lag)}` });
  });
  placed.sort((a, b) => a.y - b.y);
  let before = -Infinity;
  for (const one of placed) {
    const width = pen.measureText(one.text).width, right = one.x + 8 * dots + width < u.bbox.left + u.bbox.width;
    const y = Math.max(u.bbox.top + 9 * dots, one.y - (right ? 5 : 10) * dots, before + 13 * dots);
    before = y;
    pen.textAlign = right ? "left" : "right";
    [pen.strokeStyle, pen.lineWidth, pen.fillStyle] = [ink.paper, 3 * dots, ink.ink];
    const x = one.x + (right ? 7 : -7) * dots;
    pen.strokeText(one.text, x, y);
    pen.fillText(one.text, x, y);
  }
  pen.restore();
}

// ---- every chosen cell in one picture

function togetherChart(holder) {
  lineChart(holder, 340, () => {
    const found = shownSubjects().map((s) => ({ s, one: curvesOf(s).at(-1) })).filter(({ one }) => one);
    if (!found.length) return null;
    const ink = colours();
    return lines(ink, {
      data: joined(found.map(({ one }) => [lagsOf(one).map(place), logs(one)])),
      series: found.map(({ s }) => ({ label: subjects[s].name, stroke: hue(s), dash: dashes[s] })),
      legend: found.length <= 12,
      x: lagAxis(), y: { label: state.relative ? "log10, against lag 0" : "log10 norm", range: rangeOf(found.map(({ one }) => logs(one))) },
      say: (line, x, value) => {
        const { s, one } = found[line - 1], first = logs(one)[0];
        return `${subjects[s].name} (${subjects[s].family})\n${told(lagAt(x))} events back: ${power(value)}` + (first === null ? "" : `, ${left(10 ** (value - first))} of lag 0`);
      },
      alt: `gradient over lag of ${found.length} cells in rows of ${commas(state.length)} events`,
    });
  });
}

// ---- what is lost without older events

function informationChart(holder) {
  const name = holder.dataset.of, words = holder.dataset.label;
  lineChart(holder, 280, () => {
    const found = shownSubjects().filter((s) => data.information[s]?.[name]?.some((value) => value !== null));
    if (!found.length) return null;
    const all = found.map((s) => data.information[s]), low = all.flatMap((one) => one[name]);
    const [least, most] = extent(low, [0]);
    return lines(colours(), {
      data: joined(found.map((s) => [data.information[s].cutoffs.map(Math.log), data.information[s][name]])),
      series: found.map((s) => ({ label: subjects[s].name, stroke: hue(s), dash: dashes[s], points: { show: true, size: 5 } })),
      legend: found.length <= 12,
      x: { label: "last events that are left", ticks: (a, b, room) => kept(a, b, room).map(Math.log), form: (value) => commas(Math.round(Math.exp(value))) },
      y: { label: words, range: padded(least, most) },
      say: (line, x, value) => {
        const one = data.information[found[line - 1]], at = one.cutoffs.indexOf(Math.round(Math.exp(x)));
        const [from, to] = [one[name + "_low"]?.[at], one[name + "_high"]?.[at]];
        return `${subjects[found[line - 1]].name}\nthe last ${commas(Math.round(Math.exp(x)))} events alone: ${short(Number(value.toPrecision(3)))} lost` +
          (from === undefined || from === null ? "" : ` (${short(Number(from.toPrecision(2)))} to ${short(Number(to.toPrecision(2)))})`);
      },
    });
  });
}

const kept = (low, high, room) => ticks(scale(Math.max(1, Math.exp(low)), Math.exp(high), 0, 1, true), Math.max(3, room / 48));

function padded(low, high) {
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}

// ---- memory tasks

function taskChart(holder) {
  const task = holder.dataset.of;
  lineChart(holder, 260, () => {
    const mine = (s) => data.tasks[s].filter((one) => one.task === task);
    const found = shownSubjects().filter((s) => mine(s).length);
    if (!found.length) return null;
    const ink = colours(), chance = extent(found.flatMap((s) => mine(s).map((one) => one.chance)))[0];
    return lines(ink, {
      data: joined(found.map((s) => [mine(s).map((one) => Math.log(one.distance)), mine(s).map((one) => one.accuracy)])),
      series: found.map((s) => ({ label: subjects[s].name, stroke: hue(s), dash: dashes[s], points: { show: true, size: 5 } })),
      legend: found.length <= 12,
      x: { label: "events between cue and answer", ticks: (a, b, room) => kept(a, b, room).map(Math.log), form: (value) => commas(Math.round(Math.exp(value))) },
      y: { label: "accuracy", range: [0, 1.03], form: (value) => short(Math.round(100 * value)) + "%" },
      say: (line, x, value) => {
        const one = mine(found[line - 1]).find((other) => Math.abs(Math.log(other.distance) - x) < 1e-9);
        return `${subjects[found[line - 1]].name}\n${commas(one.distance)} events: ${short(Number((100 * value).toPrecision(3)))}% right` +
          (one.low === null ? "" : ` (${short(Math.round(100 * one.low))} to ${short(Math.round(100 * one.high))})`) +
          (one.seeds > 1 ? `\n${one.solved} of ${one.seeds} seeds solved it` : one.solved ? "\nsolved" : "");
      },
      draw: (u) => rule(u, chance, "chance", ink),
    });
  });
}

function rule(u, value, words, ink) {
  const y = u.valToPos(value, "y", true), pen = u.ctx, dots = devicePixelRatio;
  pen.save();
  [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [ink.soft, ink.soft, dots];
  pen.setLineDash([4 * dots, 3 * dots]);
  stroke(pen, u.bbox.left, y, u.bbox.left + u.bbox.width, y);
  pen.font = FONT.replace("12px", 11 * dots + "px");
  pen.textAlign = "left";
  pen.fillText(words, u.bbox.left + 4 * dots, y - 4 * dots);
  pen.restore();
}

// ---- exponents over training, and singular values over lag

function exponentChart(holder) {
  const s = Number(holder.dataset.subject);
  lineChart(holder, 190, () => {
    const all = data.exponents[s].filter((one) => one.layer === data.exponents[s][0].layer);
    if (!all.length) return null;
    const ink = colours(), own = hue(s), training = all.length > 2;
    const many = Math.max(...all.map((one) => one.values.length));
    const value = (one, n) => (one.values[n] === null || one.values[n] === undefined ? null : one.values[n] / 1e4);
    const columns = training
      ? [all.map((one) => one.step), ...Array.from({ length: many }, (_, n) => all.map((one) => value(one, n)))]
      : [Array.from({ length: many }, (_, n) => n + 1), ...all.map((one) => Array.from({ length: many }, (_, n) => value(one, n)))];
    const looks = training
      ? Array.from({ length: many }, (_, n) => ({ label: n ? "lower" : "largest", stroke: n ? faint(own, 0.45) : own, width: n ? 1 : 2.4 }))
      : all.map((one, n) => ({ label: `step ${commas(one.step)}`, stroke: own, dash: n < all.length - 1 ? [2, 3] : [], points: { show: true, size: 5 } }));
    return lines(ink, {
      data: columns, series: looks,
      x: { label: training ? "training step" : "rank", ticks: (a, b, room) => ticks(scale(a, b, 0, 1), Math.max(2, room / 60)), form: short },
      y: { label: "nats an event", range: padded(...extent(columns.slice(1).flat(), [0])) },
      say: (line, x, found) => `${subjects[s].name}, ${looks[line - 1].label}${training ? ` at step ${commas(x)}` : `, rank ${x}`}\n${found.toFixed(3)} nats an event`,
      draw: (u) => rule(u, 0, "neither grows nor fades", ink),
    });
  });
}

function singularChart(holder) {
  const s = Number(holder.dataset.subject);
  lineChart(holder, 190, () => {
    const one = data.singular[s][0];
    if (!one || !one.log10.length) return null;
    const own = hue(s), many = Math.max(...one.log10.map((row) => row.length));
    const columns = [one.lags.slice(0, one.log10.length).map(place), ...Array.from({ length: many }, (_, n) => one.log10.map((row) => (row[n] ?? null) === null ? null : row[n] / 100))];
    const [low, high] = extent(columns.slice(1).flat(), [0]);
    return lines(colours(), {
      data: columns,
      series: Array.from({ length: many }, (_, n) => ({ label: n ? "lower" : "largest", stroke: n ? faint(own, 0.5) : own, width: n ? 1 : 2.4 })),
      x: lagAxis(), y: { label: "log10 of values", range: [Math.max(Math.floor(low), -16), Math.ceil(high)] },
      say: (line, x, value) => `${subjects[s].name}, ${line === 1 ? "largest" : "a lower"} singular value\n${told(lagAt(x))} events back: ${power(value)}`,
    });
  });
}
