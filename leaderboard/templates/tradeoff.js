"use strict";
/* The scatter of two measures: who is best at both, and what a defense costs. */
const MOST_FAMILIES = 7; /* The eighth colour is gray, which the other families have. */
const LABELLED = 12; /* Up to so many entrants all have their names beside them. */
const CROWD = 80; /* Beyond so many, intervals and arrows are faint. */
const axesOf = () => COLUMNS.filter((column) => column.name !== "model" && isMeasured(column) && board().entrants.some((one) => one.stats[column.name]));
function axisColumn(key) {
  const every = axesOf();
  const named = (name) => every.find((column) => column.name === name);
  return named(state[key]) || named(DEFAULTS[key]) || every.find((column) => key === "x" || column !== axisColumn("x")) || every[0];
}
const rankedIn = (one, column) => !column.ranked_among || one[column.ranked_among];

/* The families of a board, those with most entrants first, each with the colour of its best entrant. */
function familiesOf(which) {
  if (!which.families) {
    const found = new Map();
    for (const one of standing(which)) {
      const key = one.family ?? "";
      if (!found.has(key)) found.set(key, { key, text: one.family ?? "unknown", look: one.look[0] % 8 % MOST_FAMILIES, count: 0 });
      found.get(key).count += 1;
    }
    which.families = [...found.values()].sort((a, b) => b.count - a.count || (a.key < b.key ? -1 : 1));
  }
  return which.families;
}
/* The families in colour: the reader's choice, or else all of a few, or else those on the front. */
function colouredFamilies(which, front) {
  const every = familiesOf(which);
  let chosen;
  if (state.families === "-") chosen = [];
  else if (state.families) {
    const wanted = new Set(state.families.split(",").map(decoded));
    chosen = every.filter((one) => wanted.has(one.key));
  } else if (every.length <= MOST_FAMILIES) chosen = every;
  else {
    const best = new Set(front.map((one) => one.family ?? ""));
    chosen = every.filter((one) => best.has(one.key));
  }
  const colours = new Map();
  const taken = new Set();
  for (const one of chosen.slice(0, MOST_FAMILIES)) {
    let look = one.look;
    while (taken.has(look)) look = (look + 1) % MOST_FAMILIES;
    taken.add(look);
    colours.set(one.key, look);
  }
  return colours;
}
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}
function setFamily(key, coloured, value) {
  const keys = familiesOf(board()).map((one) => one.key).filter((one) => (one === key ? value : coloured.has(one)));
  state.families = keys.length ? keys.map(encodeURIComponent).join(",") : "-";
  update();
}

/* The entrants that no ranked entrant beats in one measure without losing in the other, from left to right. */
function frontOf(entrants, x, y) {
  const better = (column, a, b) => (columnOf(column.name).higher_is_better ? stat(a, column.name) - stat(b, column.name) : stat(b, column.name) - stat(a, column.name));
  const ranked = entrants.filter((one) => rankedIn(one, x) && rankedIn(one, y));
  ranked.sort((a, b) => better(x, b, a) || better(y, b, a) || (a.id < b.id ? -1 : 1));
  const front = [];
  for (const one of ranked) {
    const last = front[front.length - 1];
    if (!last || better(y, one, last) > 0) front.push(one);
  }
  return front.sort((a, b) => stat(a, x.name) - stat(b, x.name));
}

/* A scale of one axis: its positions, and its ticks as [value, text]. Counts and rates have a logarithmic one. */
function scaleOf(entrants, column, from, to) {
  const every = entrants.flatMap((one) => one.stats[column.name].filter((value) => value !== null));
  let [least, most] = [Math.min(...every), Math.max(...every)];
  const logarithmic = ["count", "significant"].includes(column.notation) && least > 0;
  const turn = logarithmic ? Math.log10 : (value) => value;
  const room = 0.05 * (turn(most) - turn(least)) || (logarithmic ? 0.1 : 0.05 * Math.abs(most) || 0.01);
  const [low, high] = [turn(least) - room, turn(most) + room];
  const at = (value) => from + ((turn(value) - low) / (high - low)) * (to - from);
  const ticks = [];
  if (logarithmic) {
    const steps = high - low > 2.2 ? [1] : high - low > 1 ? [1, 2, 5] : high - low > 0.35 ? [1, 2, 3, 5, 7] : [1, 1.2, 1.5, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9];
    for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) for (const step of steps) ticks.push(step * 10 ** power);
  } else {
    const raw = (high - low) / 5;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(i * step);
  }
  const decimals = column.notation === "percent" && high - low < 0.05 ? 1 : 0;
  const text = (value) => column.notation === "percent" ? (100 * value).toFixed(decimals) : logarithmic ? short(value) : String(Number(value.toPrecision(3)));
  return { at, ticks: ticks.filter((value) => turn(value) >= low && turn(value) <= high).map((value) => [value, text(value)]) };
}
const short = (value) => (value >= 1e9 ? `${+(value / 1e9).toPrecision(3)} G` : value >= 1e6 ? `${+(value / 1e6).toPrecision(3)} M` : value >= 1e3 ? `${+(value / 1e3).toPrecision(3)} k` : String(+value.toPrecision(3)));
const axisText = (column) => [column.heading, unitOf(column)].filter(Boolean).join(", ");

let points = []; /* What is drawn: the entrants with their positions, from left to right. */
let pointed = null;
let drawnWidth = 0;

function showTradeoff() {
  const which = board();
  const [x, y] = [axisColumn("x"), axisColumn("y")];
  for (const [key, column] of [["x", x], ["y", y]]) options($(`axis-${key}`), axesOf().map((one) => [one.name, one.heading]), column ? column.name : "");
  const entrants = !x || !y ? [] : filtered().filter((one) => one.stats[x.name] && one.stats[y.name]);
  const front = entrants.length ? frontOf(entrants, x, y) : [];
  const coloured = colouredFamilies(which, front);
  showFamilies(which, coloured);
  pointed = null;
  $("tradepoint").textContent = "";
  points = [];
  if (!entrants.length) {
    $("scatter").replaceChildren(make("p", { class: "note" }, "No entrant has both measures: choose other axes, or clear the search."));
    $("front").replaceChildren();
    return;
  }
  drawnWidth = $("tradeplot").clientWidth;
  const width = Math.max(300, drawnWidth || 900);
  const height = Math.round(Math.min(600, Math.max(340, 0.55 * width)));
  const [left, right, top, bottom] = [52, 14, 14, 46];
  const [across, up] = [scaleOf(entrants, x, left, width - right), scaleOf(entrants, y, height - bottom, top)];
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  for (const [value, text] of across.ticks) svg.append(draw("line", { class: "grid", x1: across.at(value), x2: across.at(value), y1: top, y2: height - bottom }), draw("text", { x: across.at(value), y: height - bottom + 17, "text-anchor": "middle" }, text));
  for (const [value, text] of up.ticks) svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: up.at(value), y2: up.at(value) }), draw("text", { x: left - 7, y: up.at(value) + 4, "text-anchor": "end" }, text));
  svg.append(draw("text", { class: "axisname", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, x.higher_is_better ? `${axisText(x)} (better →)` : `(← better) ${axisText(x)}`));
  const middle = (top + height - bottom) / 2;
  svg.append(draw("text", { class: "axisname", transform: `rotate(-90 13 ${middle})`, x: 13, y: middle, "text-anchor": "middle" }, y.higher_is_better ? `${axisText(y)} (better →)` : `(← better) ${axisText(y)}`));
  points = entrants.map((one) => ({ one, at: [across.at(stat(one, x.name)), up.at(stat(one, y.name))], look: coloured.get(one.family ?? "") }));
  points.sort((a, b) => a.at[0] - b.at[0] || a.at[1] - b.at[1]);
  const pointOf = new Map(points.map((point) => [point.one.id, point]));
  const layers = [...points].sort((a, b) => (a.look !== undefined) - (b.look !== undefined));
  for (const point of layers) svg.append(...intervalLines(point, x, y, across, up));
  if (front.length > 1) svg.append(draw("polyline", { class: "front", points: front.map((one) => pointOf.get(one.id).at.join(",")).join(" ") }));
  for (const point of points) if (point.one.undefended && pointOf.has(point.one.undefended)) svg.append(arrow(pointOf.get(point.one.undefended), point));
  for (const point of layers) svg.append(pointMark(point, rankedIn(point.one, x) && rankedIn(point.one, y)));
  const others = points.length <= LABELLED ? points.map((point) => point.one).filter((one) => !front.includes(one)) : [];
  svg.append(...labels([...front, ...others].map((one) => pointOf.get(one.id)), new Set(front), { left, right: width - right, top, bottom: height - bottom, most: width < 600 ? 22 : 40 }));
  svg.append(draw("circle", { id: "ring", r: 9, class: "ring", visibility: "hidden" }));
  $("scatter").replaceChildren(svg);
  $("front").replaceChildren(front.length > 1 ? "Best trade-offs, joined by the line: " : "Best in both: ", ...front.flatMap((one, i) => [i ? "; " : "", link(one)]), front.length ? "." : "no entrant is ranked in both.");
  const unranked = points.filter((point) => !rankedIn(point.one, x) || !rankedIn(point.one, y)).length;
  if (unranked) $("front").append(` ${counted(unranked, "entrant")} drawn as a ring ${unranked === 1 ? "was" : "were"} measured under other conditions, on other images or another device, and cannot be among them.`);
}
const link = (one) => make("a", { href: `#entrant=${one.id}`, onclick: (event) => { event.preventDefault(); openEntrant(one.id); } }, bdi(label(one)));

function intervalLines(point, x, y, across, up) {
  const [[, left, right], [, low, high]] = [point.one.stats[x.name], point.one.stats[y.name]];
  const crowd = points.length > CROWD;
  const common = { class: "interval", stroke: point.look === undefined ? "var(--soft)" : `var(--c${point.look})`, opacity: point.look === undefined ? (crowd ? 0.1 : 0.2) : crowd ? 0.25 : 0.42 };
  const lines = [];
  if (left !== null && right !== null && right > left) lines.push(draw("line", { x1: across.at(left), x2: across.at(right), y1: point.at[1], y2: point.at[1], ...common }));
  if (low !== null && high !== null && high > low) lines.push(draw("line", { x1: point.at[0], x2: point.at[0], y1: up.at(low), y2: up.at(high), ...common }));
  return lines;
}
function pointMark({ one, at, look }, ranked) {
  const mark = look === undefined ? draw("circle", { cx: at[0], cy: at[1], r: 3.4, fill: "var(--soft)", opacity: 0.6 }) : marker({ look: [look, 0] }, ...at, 4.6);
  if (!ranked) {
    mark.setAttribute("fill", "var(--bg)");
    mark.setAttribute("stroke", look === undefined ? "var(--soft)" : `var(--c${look})`);
    mark.setAttribute("stroke-width", 1.4);
  }
  mark.setAttribute("data-point", one.id);
  return mark;
}
/* An arrow from an undefended network to its defense, that ends where their marks begin. */
function arrow(from, to) {
  const [dx, dy] = [to.at[0] - from.at[0], to.at[1] - from.at[1]];
  const length = Math.hypot(dx, dy);
  const group = draw("g", { class: "arrow", "data-arrow": to.one.id, stroke: to.look === undefined ? "var(--soft)" : `var(--c${to.look})`, opacity: points.length > CROWD ? (to.look === undefined ? 0.3 : 0.6) : 0.85 });
  if (length < 14) return group;
  const [ux, uy] = [dx / length, dy / length];
  const [endX, endY] = [to.at[0] - 7 * ux, to.at[1] - 7 * uy];
  const head = [2.6, -2.6].map((side) => `${endX - 7 * ux + side * uy} ${endY - 7 * uy - side * ux}`);
  group.append(draw("path", { d: `M${from.at[0] + 6 * ux} ${from.at[1] + 6 * uy}L${endX} ${endY}M${head[0]}L${endX} ${endY}L${head[1]}` }));
  return group;
}
/* Names beside the points, each where it covers no other name and no named point; one that fits nowhere is left out. */
function labels(named, front, room) {
  const boxes = named.map(({ at: [x, y] }) => [x - 6, y - 6, x + 6, y + 6]);
  const found = [];
  for (const [i, { one, at: [x, y] }] of named.entries()) {
    const text = clipped(one.defense === "none" ? one.model : `${one.model} + ${shortDefense(one.defense)}`, room.most);
    const wide = 7.3 * [...text].length;
    const tries = [[9, 4, "start"], [-9, 4, "end"], [0, -10, "middle"], [0, 19, "middle"], [8, -8, "start"], [8, 16, "start"], [-8, -8, "end"], [-8, 16, "end"]];
    for (const [dx, dy, anchor] of tries) {
      const start = x + dx - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
      const box = [start, y + dy - 11, start + wide, y + dy + 3];
      const outside = box[0] < room.left || box[2] > room.right || box[1] < room.top - 8 || box[3] > room.bottom;
      if (outside || boxes.some((other, j) => j !== i && box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      boxes.push(box);
      found.push(draw("text", { class: front.has(one) ? "pointname best" : "pointname", x: x + dx, y: y + dy, "text-anchor": anchor }, isolated(text)));
      break;
    }
  }
  return found;
}

function showFamilies(which, coloured) {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.family : undefined;
  const full = coloured.size >= MOST_FAMILIES;
  $("families").replaceChildren(...familiesOf(which).map((one) => {
    const box = make("input", { type: "checkbox", "data-family": one.key, onchange: (event) => setFamily(one.key, coloured, event.target.checked) });
    box.checked = coloured.has(one.key);
    box.disabled = full && !box.checked;
    const sample = draw("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" }, box.checked ? marker({ look: [coloured.get(one.key), 0] }, 15, 7, 4.6) : draw("circle", { cx: 15, cy: 7, r: 3.4, fill: "var(--soft)", opacity: 0.6 }));
    return make("li", null, make("label", { class: box.checked ? null : "off" }, box, sample, make("span", { class: "label" }, bdi(one.text), ` ${one.count}`)));
  }));
  if (focused !== undefined) [...document.querySelectorAll("[data-family]")].find((box) => box.dataset.family === focused)?.focus();
}

/* Points out one point: a ring around it, and its numbers in words below the plot. */
function point(to) {
  if (to === pointed) return;
  pointed = to;
  const ring = $("ring");
  if (ring) {
    ring.setAttribute("visibility", to ? "visible" : "hidden");
    if (to) { ring.setAttribute("cx", to.at[0]); ring.setAttribute("cy", to.at[1]); }
  }
  if (!to) return $("tradepoint").replaceChildren();
  const numbers = [axisColumn("x"), axisColumn("y")].map((column) => {
    const [value, low, high] = to.one.stats[column.name];
    const text = column.notation === "count" ? compact(value) : formatted(value, column);
    return `${column.heading} ${text}${low === null ? "" : ` [${formatted(low, column)}–${formatted(high, column)}]`}`;
  });
  $("tradepoint").replaceChildren(link(to.one), `: ${numbers.join("; ")}`);
}
function nearestPoint(event) {
  const box = $("scatter").getBoundingClientRect();
  const distance = ({ at }) => Math.hypot(box.left + at[0] - event.clientX, box.top + at[1] - event.clientY);
  const nearest = points.reduce((best, one) => (!best || distance(one) < distance(best) ? one : best), null);
  return nearest && distance(nearest) < 22 ? nearest : null;
}
$("tradeplot").addEventListener("pointermove", (event) => { const to = nearestPoint(event); if (to) point(to); });
$("tradeplot").addEventListener("click", (event) => {
  const to = nearestPoint(event);
  if (to) point(to);
});
$("tradeplot").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === "Enter" && pointed) openEntrant(pointed.one.id);
  else if (step && points.length) {
    const at = points.indexOf(pointed);
    point(points[at < 0 ? (step > 0 ? 0 : points.length - 1) : Math.min(points.length - 1, Math.max(0, at + step))]);
  } else return;
  event.preventDefault();
});
for (const key of ["x", "y"]) $(`axis-${key}`).addEventListener("change", (event) => { state[key] = event.target.value; update(); });
$("families-auto").addEventListener("click", () => { state.families = ""; update(); });
$("families-none").addEventListener("click", () => { state.families = "-"; update(); });
addEventListener("resize", () => { if (drawnWidth && $("tradeplot").clientWidth !== drawnWidth) showTradeoff(); });
