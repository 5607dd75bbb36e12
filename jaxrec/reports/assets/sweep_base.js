// What every chart of a sweep's page stands on: the columns, and what marks and words stand for.
const data = JSON.parse(document.getElementById("sweep").textContent);
const { trials, curves, options, points, ranked, objective } = data;
const [DONE, PRUNED, DIVERGED, MEMORY, FAILED, RUNNING, , STOPPED] = data.states.keys();
const count = trials.number.length;
const WORDS = { out_of_memory: "out of memory" };
const word = (place) => WORDS[data.states[place]] || data.states[place];

// The configurations in focus: the brushed ones, else the best tenth.
let brushed = null;
const inFocus = (config) => (brushed ? brushed[config] === 1 : config < data.focus);

// Each state has a shape of its own, so that grey tells them apart too.
function mark(pen, ink, place, x, y, radius = 2.5) {
  pen.lineWidth = radius < 2 ? 0.8 : 1.5;
  pen.strokeStyle = { [DIVERGED]: ink.c1, [MEMORY]: ink.c3, [FAILED]: ink.c1 }[place] || ink.soft;
  pen.beginPath();
  if (place === DIVERGED) for (const [a, b] of [[0, -4], [4, 0], [0, 4], [-4, 0], [0, -4]]) pen.lineTo(x + a, y + b);
  else if (place === MEMORY) for (const [a, b] of [[0, -4], [4, 3], [-4, 3], [0, -4]]) pen.lineTo(x + a, y + b);
  else if (place === FAILED) {
    pen.moveTo(x - 3.5, y - 3.5);
    pen.lineTo(x + 3.5, y + 3.5);
    pen.moveTo(x + 3.5, y - 3.5);
    pen.lineTo(x - 3.5, y + 3.5);
  } else disc(pen, x, y, radius);
  pen.stroke();
}

// "place 3", or why a configuration has none.
const placed = (config) => {
  const text = data.table[0].cells[config];
  return /^\d/.test(text) ? "place " + text : text === "\u2013" ? "no number" : text;
};

const optionText = (option, at) =>
  at === null ? "n/a" : option.categories ? option.categories[at] : short(at);

function told(trial) {
  const config = trials.config[trial], value = trials.value[trial];
  const lines = [
    `trial ${trials.number[trial]}: ${word(trials.state[trial])}`,
    value === null ? "no number" : `${objective.name} ${short(value)}`,
    `${short(trials.epochs[trial])} epochs, ${clock(trials.seconds[trial] || 0)}`,
  ];
  return lines.concat(described(config)).join("\n");
}

function described(config) {
  const held = options.map((option, o) => [option, points[o][config]]).filter((pair) => pair[1] !== null);
  const lines = held.slice(0, 8).map(([option, at]) => `${option.label} ${optionText(option, at)}`);
  return held.length > 8 ? lines.concat(`and ${held.length - 8} more options`) : lines;
}
