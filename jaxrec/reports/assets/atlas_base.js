// What every chart of the atlas stands on: the records, what was chosen, the scale of colours, and lags as places.
const data = JSON.parse(document.getElementById("atlas").textContent);
const subjects = data.subjects;
const state = { length: data.main, layer: null, relative: false, even: false, chosen: new Set(subjects.keys()), horizon: "half_life" };
const LEFT = 58, RIGHT = 20;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [4, 2], [1, 3]];

// Cells of one family share its hue; their dashes tell them apart.
const dashes = (() => {
  const seen = {};
  return subjects.map((one) => DASHES[(seen[one.ink] = (seen[one.ink] ?? -1) + 1) % DASHES.length]);
})();
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const hue = (s) => css(subjects[s].ink);

function faint(colour, alpha) {
  const at = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  return `rgba(${at.join(",")},${alpha})`;
}

// ---- records

const layerOf = (s) => {
  const layers = [...new Set(data.curves[s].map((one) => one.layer))];
  return layers.includes(state.layer) ? state.layer : layers[0];
};
const curvesOf = (s, length = state.length) => data.curves[s].filter((one) => one.length === length && one.layer === layerOf(s));

// The curves at the start, the middle and the end, as far as they are there.
function three(s) {
  const all = curvesOf(s), last = all.at(-1);
  if (!last) return [];
  const first = all.find((one) => one.phase === "start"), between = all.filter((one) => one.phase === "during" && one !== last);
  const far = (one) => Math.abs(one.step - last.step / 2);
  const middle = between.reduce((best, one) => (best && far(best) <= far(one) ? best : one), null);
  const found = [["start", first !== last && first], ["middle", middle], [subjects[s].trained ? "end" : "untrained", last]];
  return found.filter((pair) => pair[1]).map(([name, one]) => ({ name, one }));
}

// Logarithms of a curve; null where there is none, of a zero too. Against lag 0 where that was asked for.
const level = (one) => (state.relative && one.median[0] !== null && one.median[0] !== data.zero ? one.median[0] : 0);
const logs = (one, values = one.median) =>
  values.map((value) => (value === null || value === data.zero ? null : (value - level(one)) / 100));
const lagsOf = (one) => data.lags[one.lags];

// ---- lags as places: even, or logarithmic with room for zero

const place = (lag) => (state.even ? lag : Math.log1p(lag));
const lagAt = (at) => (state.even ? at : Math.expm1(at));

function lagTicks(low, high, room) {
  if (state.even) return ticks(scale(low, high, 0, 1), Math.max(2, room / 50));
  const found = [0];
  for (let power = 1; power < 1e7; power *= 10) for (const factor of [1, 2, 5]) found.push(power * factor);
  const inside = found.filter((lag) => place(lag) >= low - 1e-9 && place(lag) <= high + 1e-9);
  const kept = [];
  for (const lag of inside) {
    const at = ((place(lag) - low) / (high - low || 1)) * room;
    if (!kept.length || at - kept.at(-1)[1] >= 34) kept.push([lag, at]);
  }
  return kept.map(([lag]) => lag);
}

// The logarithm of a curve at a lag between two of those that it has.
function at(one, lag) {
  const lags = lagsOf(one), values = logs(one);
  const after = lags.findIndex((other) => other >= lag);
  if (after < 0) return null;
  if (after === 0 || lags[after] === lag) return values[after];
  const [low, high] = [values[after - 1], values[after]];
  if (low === null || high === null) return low ?? high;
  return low + ((lag - lags[after - 1]) / (lags[after] - lags[after - 1])) * (high - low);
}

const told = (value) => (value === null ? "\u2013" : Math.abs(value) < 10 ? String(Number(value.toPrecision(2))) : commas(Math.round(value)));
const power = (value) => "10^" + value.toFixed(2).replace("-", "\u2212");
const left = (share) => (share > 10 ? told(share) + " times" : short(Number((100 * share).toPrecision(2))) + " %");

// ---- colours of the scale

const TABLE = Array.from({ length: 256 }, (_, n) => {
  const u = (n / 255) * (data.scale.length - 1), low = Math.min(Math.floor(u), data.scale.length - 2);
  const parts = [1, 3, 5].map((from) => {
    const [a, b] = [data.scale[low], data.scale[low + 1]].map((one) => parseInt(one.slice(from, from + 2), 16));
    return Math.round(a + (b - a) * (u - low));
  });
  return `rgb(${parts.join(",")})`;
});
const shade = (value, low = data.low, high = data.high) =>
  TABLE[Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low))))];

// One field of a map; zero and what is not a number have colours and strokes that the scale does not have.
function field(pen, raw, base, x, y, wide, tall) {
  const zero = raw === data.zero, absent = raw === null;
  pen.fillStyle = zero ? data.zeroInk[0] : absent ? data.nanInk[0] : shade((raw - base) / 100);
  pen.fillRect(x, y, wide + 0.5, tall + 0.5);
  if (!zero && !absent) return;
  pen.save();
  pen.beginPath();
  pen.rect(x, y, wide, tall);
  pen.clip();
  pen.strokeStyle = zero ? data.zeroInk[1] : data.nanInk[1];
  pen.lineWidth = 1;
  pen.beginPath();
  for (let shift = Math.floor((x - tall) / 5) * 5; shift < x + wide; shift += 5) {
    pen.moveTo(shift, y + tall);
    pen.lineTo(shift + tall, y);
    if (absent) {
      pen.moveTo(shift, y);
      pen.lineTo(shift + tall, y + tall);
    }
  }
  pen.stroke();
  pen.restore();
}

const saying = (raw, base) => (raw === data.zero ? "exactly zero" : raw === null ? "not a number" : power((raw - base) / 100));
const alt = (holder, text) => holder.querySelector("canvas")?.setAttribute("aria-label", text);
const shownSubjects = () => [...subjects.keys()].filter((s) => state.chosen.has(s));
