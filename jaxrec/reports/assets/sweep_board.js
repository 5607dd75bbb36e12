// The leaderboard: sorted by any column, filtered by parts between commas, as many lines as are asked for; then the charts start.
function board() {
  const table = document.getElementById("board"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const columns = data.table.map((column, at) => ({ ...column, head: heads[at], kindClass: heads[at].className }));
  const texts = columns[1].cells.map((text, c) => (text + " " + columns.find((one) => one.head.dataset.name === "state").cells[c]).toLowerCase());
  const filter = document.getElementById("filter"), more = document.getElementById("more"), shown = document.getElementById("shown");
  let order = ranked.map((_, c) => c), sorted = 0, down = false, most = 10;

  columns.forEach((column, at) => {
    if (!column.keys && !["text", "point"].includes(column.kind)) return;
    const small = column.head.querySelector("small"), button = make("button", column.head.firstChild.textContent, { type: "button" });
    column.head.replaceChildren(button, ...(small ? [small] : []));
    button.addEventListener("click", () => {
      [sorted, down] = [at, sorted === at ? !down : objective.sign > 0 && sought(column)];
      sort();
      fill();
    });
  });

  // The objective, on validation or test targets, is first sorted from its good end; the rest from the small one.
  function sought(column) {
    return ["", "test "].some((before) => column.head.dataset.name === before + objective.name);
  }

  function sort() {
    const { keys, cells } = columns[sorted], way = down ? -1 : 1;
    order = ranked.map((_, c) => c).sort((a, b) => {
      if (!keys) return way * cells[a].localeCompare(cells[b]) || a - b;
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
      return way * (keys[a] - keys[b]) || a - b;
    });
  }

  function fill() {
    const words = filter.value.toLowerCase().split(",").map((text) => text.trim());
    const kept = order.filter((c) => (!brushed || brushed[c]) && words.every((text) => texts[c].includes(text)));
    body.replaceChildren(...kept.slice(0, most).map((c) => line(c)));
    columns.forEach((column, at) => column.head.setAttribute("aria-sort", at === sorted ? (down ? "descending" : "ascending") : "none"));
    shown.textContent = `${commas(Math.min(most, kept.length))} of ${commas(kept.length)} configurations` + (brushed ? ", those brushed below" : "");
    more.hidden = kept.length <= most;
  }

  function line(c) {
    const row = document.createElement("tr");
    for (const column of columns) {
      const cell = make("td", undefined, column.kindClass ? { class: column.kindClass } : {});
      FILL[column.kind](cell, column.cells[c], column.more, c);
      row.append(cell);
    }
    return row;
  }

  filter.addEventListener("input", () => {
    most = 10;
    fill();
  });
  more.addEventListener("click", () => {
    most += 50;
    fill();
  });
  document.addEventListener("brushed", fill);
  document.getElementById("tools").hidden = false;
  fill();
}

const FILL = {
  number: (cell, text) => (cell.textContent = text),
  text: (cell, text) => (cell.textContent = text),
  dots: (cell, { at, span }, { low, high }) => {
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const add = (tag, given) => {
      const node = picture.appendChild(document.createElementNS(picture.namespaceURI, tag));
      for (const [name, value] of Object.entries(given)) node.setAttribute(name, value);
    };
    picture.setAttribute("viewBox", "0 0 90 16");
    picture.setAttribute("class", "dots");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", at.map(short).join(", ") || "none");
    add("line", { x1: 0, x2: 90, y1: 8, y2: 8, class: "grid" });
    const across = (value) => 4 + Math.min(1, Math.max(0, (value - low) / (high - low || 1))) * 82;
    if (span) add("line", { x1: across(span[0]), x2: across(span[1]), y1: 8, y2: 8, class: "span" });
    for (const value of at) add("circle", { cx: across(value), cy: 8, r: 3 });
    cell.append(picture);
  },
  links: (cell, links) => cell.append(...links.map(([text, href]) => make("a", text, { href }))),
  point: (cell, told, { start, rest }, c) => {
    const box = make("details"), text = `${start} ${rest[c]}`.trim(), copy = make("button", "copy", { type: "button" });
    box.append(make("summary", told), make("code", text), copy);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(box.querySelector("code"));
        copy.textContent = "selected";
      }
    });
    cell.append(box);
  },
};

function start() {
  if (ranked.length) board();
  const draw = { history: [drawHistory, 300], curves: [drawCurves, 300], front: [drawFront, 300], slice: [drawSlice, 220] };
  for (const holder of document.querySelectorAll("[data-chart]")) {
    const kind = holder.dataset.chart;
    if (kind === "parallel") parallel(holder);
    else if (kind === "lanes") plot(holder, TOP + LANE * Math.min(data.lanes.names.length, data.lanesShown) + 42, drawLanes);
    else plot(holder, draw[kind][1], draw[kind][0]);
  }
  watch();
}

start();
