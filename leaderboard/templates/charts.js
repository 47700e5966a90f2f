"use strict";
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
/* An architecture has the same colour and marker on every board and in the figures; its defenses differ in their dashes. */
const colour = (one) => `var(--c${one.look[0] % 8})`;
const dash = (one) => DASHES[(Math.floor(one.look[0] / 8) + one.look[1]) % 4];

function marker(one, x, y, size = 4) {
  const s = size;
  const paths = [
    null,
    `M${-s} ${-s}H${s}V${s}H${-s}Z`,
    `M0 ${-s * 1.2}L${s * 1.15} ${s}H${-s * 1.15}Z`,
    `M0 ${-s * 1.35}L${s * 1.35} 0L0 ${s * 1.35}L${-s * 1.35} 0Z`,
    `M0 ${s * 1.2}L${s * 1.15} ${-s}H${-s * 1.15}Z`,
    `M${-s * 0.4} ${-s * 1.2}H${s * 0.4}V${-s * 0.4}H${s * 1.2}V${s * 0.4}H${s * 0.4}V${s * 1.2}H${-s * 0.4}V${s * 0.4}H${-s * 1.2}V${-s * 0.4}H${-s * 0.4}Z`,
    `M${-s} ${-s}L${s} ${s}M${-s} ${s}L${s} ${-s}`,
    `M${-s} ${-s * 0.55}L0 ${-s * 1.15}L${s} ${-s * 0.55}V${s * 0.55}L0 ${s * 1.15}L${-s} ${s * 0.55}Z`,
  ];
  const kind = one.look[0] % 8;
  const common = { transform: `translate(${x} ${y})`, fill: kind === 6 ? "none" : colour(one), stroke: kind === 6 ? colour(one) : "var(--bg)", "stroke-width": kind === 6 ? 2 : 0.8 };
  return kind === 0 ? draw("circle", { r: s * 1.05, ...common }) : draw("path", { d: paths[kind], ...common });
}

function showLegend() {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.curve : null;
  const visible = new Set(filtered());
  const items = standing(board()).filter((one) => visible.has(one)).map((one) => {
    const box = make("input", { type: "checkbox", "data-curve": one.id, onchange: (event) => { setShown(one, event.target.checked); update(); } });
    box.checked = shown(one);
    const sample = draw("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" },
      draw("line", { x1: 0, x2: 30, y1: 7, y2: 7, stroke: colour(one), "stroke-width": 2, "stroke-dasharray": dash(one) }), marker(one, 15, 7));
    return make("li", null, make("label", { class: box.checked ? null : "off", title: label(one) }, box, sample, make("span", { class: "label" }, bdi(label(one)))));
  });
  $("legend").replaceChildren(...items);
  if (focused) document.querySelector(`[data-curve="${focused}"]`)?.focus();
}

function showCurves() {
  const visible = new Set(filtered());
  const entrants = standing(board()).filter((one) => visible.has(one) && shown(one)).reverse();
  const axis = axisOf(entrants);
  $("curves").replaceChildren(...board().degradations.map((name) => panel(name, entrants, axis)));
}
/* All panels share one axis. That of accuracy goes down, and that of label change up, to the quarter that holds every interval. */
function axisOf(entrants) {
  if (state.measure === "change") {
    const highest = Math.max(0.01, ...entrants.flatMap((one) => one.change.map((found) => (found ? found[2] : 0))));
    return [0, Math.ceil(4 * highest) / 4];
  }
  const lowest = Math.min(0.99, ...entrants.flatMap((one) => one.accuracy.map((found) => (found ? found[1] : 1))));
  return [Math.floor(4 * lowest) / 4, 1];
}

function panel(name, entrants, [lowest, highest]) {
  const which = board();
  const levels = which.conditions.map((condition, i) => ({ ...condition, i })).filter((one) => one.degradation === name);
  const clean = which.conditions.findIndex((one) => one.degradation === "none");
  const [width, height, left, right, top, bottom] = [380, 236, 34, 12, 10, 26];
  const values = levels.map((one) => one.level);
  const logs = values.length > 1 && values.every((value) => value > 0) ? values.map(Math.log2) : values.map((_, i) => i);
  const [from, to] = [logs[0], logs[logs.length - 1]];
  const start = left + 58;
  const x = (i) => (values.length === 1 ? (start + width - right) / 2 : start + ((logs[i] - from) / (to - from)) * (width - right - 14 - start));
  const y = (value) => top + ((highest - value) / (highest - lowest)) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const step = highest - lowest > 0.5 ? 0.25 : highest - lowest > 0.25 ? 0.1 : 0.05;
  for (let tick = lowest; tick < highest + 1e-9; tick += step) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, (100 * tick).toFixed(0)));
  }
  svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: y(lowest), y2: y(lowest) }));
  let last = left + 18 + 14;
  svg.append(draw("text", { x: left + 18, y: height - 8, "text-anchor": "middle" }, "none"));
  levels.forEach((one, i) => {
    const text = one.text || (values.length > 1 ? String(one.level) : "on");
    const half = 3.2 * text.length;
    if (x(i) - half < last + 4) return; /* A label that would overlap the one before is left out. */
    last = x(i) + half;
    svg.append(draw("text", { x: x(i), y: height - 8, "text-anchor": "middle" }, text));
  });
  svg.append(...cameraBand(name, values, (position) => start + position * (width - right - 14 - start), [left, width - right, top, height - bottom]));
  const series = state.measure === "change" ? "change" : "accuracy";
  for (const one of entrants) {
    const points = levels.map((level, i) => ({ at: x(i), found: one[series][level.i], text: level.text })).filter((point) => point.found);
    const still = clean >= 0 ? (series === "change" ? [0, 0, 0] : one.accuracy[clean]) : null;
    if (still) points.unshift({ at: left + 18, found: still, text: "undegraded" });
    if (!points.length) continue;
    if (entrants.length <= 12) {
      const band = [...points.map((p) => `${p.at} ${y(p.found[2])}`), ...[...points].reverse().map((p) => `${p.at} ${y(p.found[1])}`)];
      svg.append(draw("polygon", { points: band.join(" "), fill: colour(one), opacity: 0.09 }));
    }
    svg.append(draw("polyline", { points: points.map((p) => `${p.at},${y(p.found[0])}`).join(" "), fill: "none", stroke: colour(one), "stroke-width": 1.8, "stroke-dasharray": dash(one), "stroke-linejoin": "round", "data-line": one.id }));
    for (const point of points) {
      const mark = marker(one, point.at, y(point.found[0]), 3.6);
      const [value, low, high] = point.found;
      mark.append(draw("title", null, `${label(one)}, ${point.text || degradationText(name)}: ${percent(value)} [${percent(low, 0)}–${percent(high, 0)}]`));
      svg.append(mark);
    }
  }
  svg.setAttribute("aria-label", `${series === "change" ? "Label change" : "Accuracy"} in % over the levels of ${degradationText(name)}, ${entrants.length} entrants`);
  return make("figure", null, make("figcaption", null, bdi(degradationText(name)), make("span", { class: "sub" }, series === "change" ? " – label change in %" : " – accuracy in %")), svg);
}

function showHeat() {
  const which = board();
  const index = state.measure === "change" ? 1 : 0;
  $("heatcaption").textContent = index
    ? "Label change in %, mean over the levels of each degradation: the faintest is the least, the strongest colour the most on this board."
    : "Accuracy in %, mean over the levels of each degradation: the faintest is the least, the strongest colour the most on this board.";
  const visible = new Set(filtered());
  const clean = which.conditions.findIndex((one) => one.degradation === "none");
  const every = which.entrants.flatMap((one) => Object.values(one.by_degradation).map((found) => found[index])).filter((value) => value !== null);
  const [least, most] = [Math.min(...every), Math.max(...every)];
  const strength = (value) => Math.round(100 * Math.min(1, Math.max(0, (value - least) / (most - least || 1))));
  const head = make("tr", null, make("th", { scope: "col", class: "name" }, "Entrant"));
  if (!index) head.append(make("th", { scope: "col" }, "undegraded"));
  for (const name of which.degradations) head.append(make("th", { scope: "col" }, bdi(degradationText(name))));
  $("heathead").replaceChildren(head);
  fillRows($("heat"), standing(which).filter((one) => visible.has(one)), (one) => {
    const line = make("tr", null, make("th", { scope: "row", class: "name" }, make("span", { class: "clamp", title: label(one) }, bdi(label(one)))));
    const values = which.degradations.map((name) => (one.by_degradation[name] || [null, null])[index]);
    if (!index) values.unshift(clean >= 0 && one.accuracy[clean] ? one.accuracy[clean][0] : null);
    for (const value of values) {
      const cell = make("td", null, percent(value));
      if (value !== null) cell.style.background = `color-mix(in oklab, var(${index ? "--heat-change" : "--heat"}) ${strength(value)}%, var(--surface))`;
      line.append(cell);
    }
    return line;
  });
}
