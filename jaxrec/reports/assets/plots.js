// What every drawn page stands on: colours, scales, and plots that are drawn when they are seen.
const FONT = '12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';

// At most so many, evenly spaced, the first among them.
const evenly = (some, most) => {
  const step = Math.max(1, some.length / most);
  return some.length <= most ? some : Array.from({ length: Math.floor(some.length / step) }, (_, n) => some[Math.floor(n * step)]);
};

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const found = {};
  for (const name of ["paper", "ink", "soft", "line", "c0", "c1", "c2", "c3", "c4", "c5"])
    found[name] = style.getPropertyValue("--" + name).trim();
  return found;
}

function short(value) {
  if (value === null) return "\u2013";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e15) return Number(value.toPrecision(2)).toExponential().replace("e+", "e");
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= limit) return Number((value / (unit === "k" ? 1e3 : limit)).toPrecision(3)) + unit;
  return String(Number(value.toPrecision(4)));
}

const commas = (value) => value.toLocaleString("en-US");

function clock(seconds) {
  if (seconds < 120) return short(Number(seconds.toFixed(seconds < 10 ? 1 : 0))) + " s";
  if (seconds < 7200) return short(Number((seconds / 60).toPrecision(3))) + " min";
  const minutes = Math.round(seconds / 60);
  return Math.floor(minutes / 60) + ":" + String(minutes % 60).padStart(2, "0") + " h";
}

// ---- from values to pixels

function extent(values, also = []) {
  let low = Infinity, high = -Infinity;
  for (const some of [values, also])
    for (const value of some) {
      if (value === null || value === undefined) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  return low <= high ? [low, high] : [0, 1];
}

function scale(low, high, start, end, log = false) {
  if (!(high > low)) {
    const half = (Math.abs(low) || 1) / 2;
    [low, high] = log ? [low / 2, high * 2] : [low - half, high + half];
  }
  const form = log ? Math.log : (value) => value;
  const from = form(low), span = form(high) - from;
  const to = (value) => start + ((form(value) - from) / span) * (end - start);
  return Object.assign(to, { low, high, start, end, log });
}

function ticks(to, about = 5) {
  if (to.log) {
    const first = Math.floor(Math.log10(to.low)), last = Math.ceil(Math.log10(to.high));
    for (const factors of [[1], [1, 3], [1, 2, 5]]) {
      const found = [];
      for (let power = first; power <= last; power++)
        for (const factor of factors) {
          const value = Number(factor + "e" + power);
          if (value >= to.low * 0.999 && value <= to.high * 1.001) found.push(value);
        }
      if (found.length >= 3) {
        const every = Math.ceil(found.length / Math.max(about, 2));
        return found.filter((_, place) => place % every === 0);
      }
    }
  }
  const rough = (to.high - to.low) / Math.max(about, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(to.low / step - 1e-9); n <= to.high / step + 1e-9; n++)
    found.push(Number((n * step).toPrecision(12)));
  return found;
}

// ---- plots: a canvas in a holder, drawn once it is near the window

const plots = [];
const tip = document.body.appendChild(make("div", "", { id: "tip", role: "status" }));
tip.hidden = true;

function plot(holder, height, draw) {
  const canvas = holder.querySelector("canvas");
  const one = { holder, canvas, draw, height, paint, dirty: true, seen: false, hits: null, at: -1 };
  one.ring = holder.appendChild(make("i", undefined, { class: "ring" }));
  one.ring.hidden = true;
  plots.push(one);
  canvas.addEventListener("pointermove", (event) => point(one, nearest(one, event.offsetX, event.offsetY)));
  canvas.addEventListener("pointerleave", () => point(one, -1));
  canvas.addEventListener("blur", () => point(one, -1));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") point(one, -1);
    if (!step || !one.hits || !one.hits.x.length) return;
    event.preventDefault();
    let at = one.at, left = one.hits.x.length;
    do at = (at + step + one.hits.x.length) % one.hits.x.length;
    while (Number.isNaN(one.hits.x[at]) && --left);
    point(one, at);
  });
  return one;
}

function paint(one) {
  const width = one.holder.clientWidth, height = typeof one.height === "function" ? one.height(width) : one.height;
  const wide = one.wide ? one.wide(width) : width, dots = window.devicePixelRatio || 1;
  if (!width) return;
  one.canvas.style.width = wide + "px";
  one.canvas.style.height = height + "px";
  one.canvas.width = Math.round(wide * dots);
  one.canvas.height = Math.round(height * dots);
  const pen = one.canvas.getContext("2d");
  pen.scale(dots, dots);
  pen.font = FONT;
  pen.lineJoin = "round";
  one.dirty = false;
  point(one, -1);
  one.hits = one.draw(pen, wide, height, colours(), one) || null;
}

let waiting = 0;
function refresh() {
  for (const one of plots) one.dirty = true;
  soon();
}
function soon() {
  waiting = waiting || requestAnimationFrame(() => {
    waiting = 0;
    for (const one of plots) if (one.dirty && one.seen) one.paint(one);
  });
}
function paintAll() {
  for (const one of plots) one.paint(one);
}
const watcher = new IntersectionObserver((found) => {
  for (const entry of found) plots.find((one) => one.holder === entry.target).seen = entry.isIntersecting;
  soon();
}, { rootMargin: "200px" });

function nearest(one, x, y) {
  let best = -1, least = 20 * 20;
  if (one.hits)
    for (let at = 0; at < one.hits.x.length; at++) {
      const across = one.hits.x[at] - x, down = one.hits.y[at] - y, far = across * across + down * down;
      if (far < least) [best, least] = [at, far];
    }
  return best;
}

function point(one, at) {
  one.at = at;
  one.ring.hidden = tip.hidden = at < 0;
  if (at < 0) return;
  const { x, y, text } = one.hits, frame = one.canvas.getBoundingClientRect(), base = one.holder.getBoundingClientRect();
  one.ring.style.left = frame.left - base.left + x[at] + "px";
  one.ring.style.top = frame.top - base.top + y[at] + "px";
  tip.textContent = text(at);
  const left = Math.min(frame.left + x[at] + 12, innerWidth - tip.offsetWidth - 8);
  const above = frame.top + y[at] - tip.offsetHeight - 10;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = (above > 4 ? above : frame.top + y[at] + 14) + "px";
}

function frame(pen, ink, across, up, labels, form = {}) {
  const { x: formX = short, y: formY = short } = form;
  pen.lineWidth = 1;
  pen.strokeStyle = ink.line;
  pen.fillStyle = ink.soft;
  pen.textAlign = "right";
  for (const value of ticks(up, Math.abs(up.end - up.start) / 44)) {
    const y = Math.round(up(value)) + 0.5;
    stroke(pen, across.start, y, across.end, y);
    pen.fillText(formY(value), across.start - 6, y + 4);
  }
  const base = Math.round(up.start) + 0.5;
  pen.textAlign = "center";
  if (form.x !== null)
    for (const value of ticks(across, Math.min(8, Math.abs(across.end - across.start) / 62)))
      pen.fillText(formX(value), across(value), base + 16);
  pen.strokeStyle = ink.soft;
  stroke(pen, across.start, base, across.end, base);
  pen.fillText(labels[0], (across.start + across.end) / 2, base + 34);
  pen.save();
  pen.translate(11, (up.start + up.end) / 2);
  pen.rotate(-Math.PI / 2);
  pen.fillText(labels[1], 0, 0);
  pen.restore();
}

function stroke(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function disc(pen, x, y, radius) {
  pen.moveTo(x + radius, y);
  pen.arc(x, y, radius, 0, 2 * Math.PI);
}

function label(pen, ink, text, x, y, align = "left") {
  pen.textAlign = align;
  [pen.strokeStyle, pen.lineWidth, pen.fillStyle] = [ink.paper, 3, ink.ink];
  pen.strokeText(text, x, y);
  pen.fillText(text, x, y);
}

function cut(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && pen.measureText(text.slice(0, end) + "\u2026").width > room) end--;
  return text.slice(0, end) + "\u2026";
}

// From now on: draw what is seen, again when the window, the colours or the paper change.
function watch() {
  for (const one of plots) watcher.observe(one.holder);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) refresh();
    width = innerWidth;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? paintAll() : refresh()));
}
