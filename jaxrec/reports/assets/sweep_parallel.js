// Parallel coordinates: an axis an option and one for the objective; drag along an axis to brush. Narrow pages lie it
// on its side: axes from left to right, one below the other.
const LANE_SHARE = 0.13, ROOM = 92, ROW = 62, NARROW = 620, GRIP = 9;

function parallel(holder) {
  const goal = { name: objective.name, label: objective.name, ...range(ranked), goal: true };
  const axes = [...options, goal], columns = [...points, ranked];
  const lines = [...ranked.keys()].filter((c) => ranked[c] !== null);
  const some = columns.map((column) => lines.some((c) => column[c] === null));
  const lane = some.some(Boolean) ? LANE_SHARE : 0;
  const shares = axes.map((axis, i) => Float32Array.from(ranked.keys(), (c) => share(axis, columns[i][c], lane)));
  const brushes = axes.map(() => null);
  const one = plot(holder, (width) => (width < NARROW ? ROW * axes.length + 26 : 340), draw);
  one.wide = (width) => (width < NARROW ? width : Math.max(width, ROOM * axes.length));
  const handles = axes.map((axis, i) => handle(axis, i));
  const state = document.getElementById("brushed");
  document.getElementById("unbrush").addEventListener("click", () => {
    brushes.fill(null);
    changed();
  });

  function place(width, height) {
    const flat = width < NARROW, gap = flat ? ROW : (width - 90) / Math.max(1, axes.length - 1);
    const first = flat ? 34 : 34, from = flat ? 14 : height - 20, to = flat ? width - 20 : 40;
    const along = (i) => first + i * gap, across = (u) => from + u * (to - from);
    return { flat, gap, along, across, at: (i, u) => (flat ? [across(u), along(i)] : [along(i), across(u)]) };
  }

  function draw(pen, width, height, ink) {
    const room = place(width, height), keep = lines.filter((c) => inFocus(c));
    const rest = evenly(lines.filter((c) => !inFocus(c)), data.lines), near = evenly(keep, data.lines / 2);
    const path = (c) => {
      pen.beginPath();
      for (let i = 0; i < axes.length; i++) pen.lineTo(...room.at(i, shares[i][c]));
      pen.stroke();
    };
    [pen.strokeStyle, pen.lineWidth] = [ink.soft, 1];
    pen.globalAlpha = Math.max(0.05, Math.min(0.35, 50 / Math.max(1, rest.length)));
    rest.forEach(path);
    [pen.strokeStyle, pen.lineWidth] = [ink.c0, 1.3];
    pen.globalAlpha = Math.max(0.14, Math.min(0.85, 40 / Math.max(1, near.length)));
    near.forEach(path);
    pen.globalAlpha = 1;
    if (keep.length) {
      [pen.strokeStyle, pen.lineWidth] = [ink.c1, 2.4];
      path(keep[0]);
    }
    axes.forEach((axis, i) => drawAxis(pen, ink, axis, i, room));
    arrange(room, width, height);
    return null;
  }

  function drawAxis(pen, ink, axis, i, room) {
    [pen.strokeStyle, pen.lineWidth] = [ink.ink, 1.2];
    stroke(pen, ...room.at(i, lane), ...room.at(i, 1));
    const [x, y] = room.at(i, 1);
    const name = axis.goal ? axis.label : axis.log ? axis.label + " (log)" : axis.label;
    const align = room.flat ? "left" : i === axes.length - 1 ? "right" : i ? "center" : "left";
    const shift = room.flat ? 14 : i === axes.length - 1 ? x + 30 : i ? x : 2;
    label(pen, ink, cut(pen, name, room.flat ? 300 : room.gap - 8), shift, (room.flat ? y - 10 : 18), align);
    for (const [u, text] of axisTicks(axis, lane, room)) {
      const [left, top] = room.at(i, u);
      if (room.flat) label(pen, ink, text, left, top + 15, u > 0.93 ? "right" : "center");
      else label(pen, ink, cut(pen, text, room.gap - 12), left + 5, top + 4);
    }
    if (lane && some[i]) {
      const [left, top] = room.at(i, 0);
      pen.beginPath();
      disc(pen, left, top, 3);
      [pen.fillStyle, pen.strokeStyle] = [ink.paper, ink.ink];
      pen.fill();
      pen.stroke();
      label(pen, ink, "n/a", left + (room.flat ? 0 : 6), top + (room.flat ? 15 : 4), room.flat ? "center" : "left");
    }
  }

  // ---- brushing

  function handle(axis, i) {
    const node = holder.appendChild(make("div", undefined, { class: "axis", tabindex: "0", role: "group" }));
    node.band = node.appendChild(make("i", undefined, { class: "band" }));
    node.title = axis.name;
    let from = null;
    const at = (event) => {
      const box = node.getBoundingClientRect();
      const [far, long] = node.flat ? [event.clientX - box.left, box.width] : [box.bottom - event.clientY, box.height];
      return Math.min(1, Math.max(0, (far - GRIP) / (long - 2 * GRIP)));
    };
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      from = at(event);
      node.before = brushes[i];
    });
    node.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = at(event);
      brushes[i] = Math.abs(to - from) < 0.015 ? null : [Math.min(from, to), Math.max(from, to)];
      changed();
    });
    const release = () => {
      from = null;
    };
    node.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(at(event) - from) < 0.015) {
        const band = pressed(axis, from, lane, some[i]), held = node.before;
        brushes[i] = held && from >= held[0] && from <= held[1] ? null : band;
        changed();
      }
      release();
    });
    node.addEventListener("pointercancel", release);
    node.addEventListener("keydown", (event) => keyed(event, i));
    return node;
  }

  // Arrows move a band of a quarter of the axis, with shift its far end; escape takes it away.
  function keyed(event, i) {
    const step = { ArrowUp: 0.05, ArrowRight: 0.05, ArrowDown: -0.05, ArrowLeft: -0.05 }[event.key];
    if (event.key === "Escape" || event.key === "Delete") brushes[i] = null;
    else if (!step) return;
    else if (!brushes[i]) brushes[i] = [0.75, 1];
    else {
      let [low, high] = brushes[i];
      if (event.shiftKey) high = Math.min(1, Math.max(low + 0.05, high + step));
      else {
        const move = Math.min(1 - high, Math.max(-low, step));
        [low, high] = [low + move, high + move];
      }
      brushes[i] = [low, high];
    }
    event.preventDefault();
    changed();
  }

  function arrange(room, width, height) {
    handles.forEach((node, i) => {
      const [x, y] = room.at(i, 0), [x2, y2] = room.at(i, 1), band = brushes[i];
      node.flat = room.flat;
      const box = room.flat ? [x - GRIP, y - 13, x2 - x + 2 * GRIP, 26] : [x - 13, y2 - GRIP, 26, y - y2 + 2 * GRIP];
      ["left", "top", "width", "height"].forEach((side, k) => (node.style[side] = box[k] + "px"));
      node.style.touchAction = room.flat ? "pan-y" : "pan-x";
      node.band.hidden = !band;
      const ends = band ? band.map((u) => rounded(axes[i], u, lane)) : [];
      node.setAttribute("aria-label", `${axes[i].name}: ${band ? ends.join(" to ") : "not brushed"}; arrows brush, escape clears`);
      if (!band) return;
      const long = (room.flat ? x2 - x : y - y2), low = GRIP + band[0] * long + "px", wide = (band[1] - band[0]) * long + "px";
      const put = room.flat ? { left: low, top: 0, width: wide, height: "100%" } : { left: 0, bottom: low, width: "100%", height: wide };
      Object.assign(node.band.style, { left: "", top: "", bottom: "", width: "", height: "" }, put);
    });
  }

  function changed() {
    const active = brushes.map((band, i) => [band, shares[i]]).filter((pair) => pair[0]);
    brushed = active.length ? new Uint8Array(ranked.length) : null;
    let found = 0, best = -1;
    for (const c of active.length ? lines : [])
      if (active.every(([[low, high], at]) => at[c] >= low - 1e-6 && at[c] <= high + 1e-6)) {
        brushed[c] = 1;
        found++;
        if (best < 0) best = c;
      }
    document.getElementById("unbrush").hidden = !brushed;
    state.textContent = !brushed ? state.dataset.rest : `${commas(found)} of ${commas(lines.length)} configurations brushed` +
      (best < 0 ? "" : `; the best of them: ${placed(best)}, ${objective.name} ${short(ranked[best])}`);
    refresh();
    document.dispatchEvent(new Event("brushed"));
  }
  return one;
}

function range(values) {
  const [low, high] = extent(values);
  return { low, high, log: false };
}

function span(axis) {
  const [low, high] = axis.categories ? [0, axis.categories.length - 1] : [axis.low, axis.high];
  return high > low ? [low, high] : [low - 1, high + 1];
}

// What a press without a drag keeps: a category, or what has no value; elsewhere nothing.
function pressed(axis, u, lane, absent) {
  if (absent && u < lane / 2) return [0, lane / 2];
  if (!axis.categories) return null;
  const k = axis.categories.map((_, at) => Math.abs(share(axis, at, lane) - u)), best = k.indexOf(Math.min(...k));
  const step = axis.categories.length > 1 ? Math.abs(share(axis, 1, lane) - share(axis, 0, lane)) / 2.2 : 0.1;
  return [Math.max(0, share(axis, best, lane) - step), Math.min(1, share(axis, best, lane) + step)];
}

// Where a value lies on its axis, 0 to 1; the lane of those that have none lies at 0.
function share(axis, value, lane) {
  if (value === null) return 0;
  const [low, high] = span(axis), at = axis.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const inset = axis.categories ? 0.04 : 0;
  return lane + (1 - lane) * (inset + (1 - 2 * inset) * at);
}

function rounded(axis, u, lane) {
  const [low, high] = span(axis), t = Math.min(1, Math.max(0, (u - lane) / (1 - lane)));
  if (lane && u < lane / 2) return "n/a";
  if (axis.categories) return axis.categories[Math.round(t * (axis.categories.length - 1))];
  return short(axis.log ? low * (high / low) ** t : low + t * (high - low));
}

function axisTicks(axis, lane, room) {
  const most = room.flat ? 5 : 7;
  if (axis.categories) {
    const every = Math.ceil(axis.categories.length / (room.flat ? 5 : 14));
    return axis.categories.map((text, k) => [share(axis, k, lane), text]).filter((_, k) => k % every === 0);
  }
  const to = scale(...span(axis), 0, 1, axis.log);
  return ticks(to, most).map((value) => [share(axis, value, lane), short(value)]);
}
