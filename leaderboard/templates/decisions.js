"use strict";
/* What a decision needs: where accuracy gives way, and how right the most confident predictions are. */
const CRITERIA = [["half_accuracy", "Accuracy halfway to chance"], ["label_change", "p_Δ reaches 10 %"]];
const UNDEGRADED = "none";

/* The sweeps of the chosen degradation: one, or two where it has levels below and above 0. */
const sweepsOf = (which, degradation) => which.decisions.sweeps.flatMap(([name, direction, strongest], i) => (name === degradation ? [{ i, direction, strongest, degradation }] : []));
function chosenDegradation(which) {
  if ([UNDEGRADED, ...which.degradations].includes(state.deg)) return state.deg;
  const ofCamera = DATA.camera ? which.degradations.find((name) => name in DATA.camera.levels) : undefined;
  return ofCamera ?? (which.decisions.sweeps[0] ?? which.degradations)[0] ?? UNDEGRADED;
}
/* The conditions of a degradation, by the strength of their levels as numbers. */
const levelsOf = (which, degradation) => which.conditions.flatMap((one, i) => (one.degradation === degradation ? [{ ...one, i }] : []));
function chosenCondition(which, degradation) {
  const every = levelsOf(which, degradation);
  return every.find((one) => String(one.level) === state.level) ?? every[every.length >> 1];
}
/* A level as the conditions of its degradation write theirs: σ=4 gives σ=12.3. */
function levelLike(which, degradation, value) {
  const [like] = levelsOf(which, degradation).filter((one) => one.level !== 0);
  const number = String(Number(value.toPrecision(3)));
  return like && like.text.includes(String(like.level)) ? like.text.replace(String(like.level), () => number) : number;
}
/* The failure point of an entrant on a sweep, with infinite levels where it lies beyond the strongest one. */
function failurePoint(one, criterion, sweep) {
  const found = one.failure_points[criterion][sweep.i];
  if (!found) return null;
  const beyond = sweep.direction === "falling" ? -Infinity : Infinity;
  const [level, low, high] = found.slice(0, 3).map((value) => value ?? beyond);
  return { level, low, high, strongest: found[3] ?? sweep.strongest };
}
function failureText(which, sweep, found) {
  if (!found) return ["–", ""];
  const { level, low, high, strongest } = found;
  const point = Number.isFinite(level) ? levelLike(which, sweep.degradation, level) : `beyond ${levelLike(which, sweep.degradation, strongest)}`;
  if (!Number.isFinite(low) && !Number.isFinite(high)) return [point, ""];
  const ends = [low, high].map((value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : `beyond ${strongest}`));
  return [point, `[${ends.join(" – ")}]`];
}
/* Those that hold out longest first; without levels, those of highest accuracy under the condition. */
function decisionOrder(entrants, sweeps, condition) {
  const [sweep] = sweeps;
  const strength = (one) => {
    const found = sweep ? failurePoint(one, CRITERIA[0][0], sweep) : null;
    return found ? (sweep.direction === "falling" ? -found.level : found.level) : -Infinity;
  };
  const accuracy = (one) => (condition && one.accuracy[condition.i] ? one.accuracy[condition.i][0] : -1);
  const compared = (x, y) => (x === y ? 0 : y > x ? 1 : -1);
  return [...entrants].sort((a, b) => compared(strength(a), strength(b)) || compared(accuracy(a), accuracy(b)) || (a.id < b.id ? -1 : 1));
}
/* Whether the whole interval of a failure point lies before the level of the reader's camera. */
function failsBeforeCamera(found, sweep) {
  const level = DATA.camera ? DATA.camera.levels[sweep.degradation] : undefined;
  if (!level || !found) return false;
  return sweep.direction === "falling" ? found.low > level[2] : found.high < level[1];
}
function showDecisions() {
  const which = board();
  $("section-decisions").hidden = !which.decisions;
  if (!which.decisions) return;
  const degradation = chosenDegradation(which);
  const condition = chosenCondition(which, degradation);
  const sweeps = sweepsOf(which, degradation);
  const every = [UNDEGRADED, ...which.degradations].filter((name) => levelsOf(which, name).length);
  options($("deg"), every.map((name) => [name, name === UNDEGRADED ? "undegraded" : clipped(degradationText(name))]), degradation);
  options($("level"), levelsOf(which, degradation).map((one) => [String(one.level), one.text || "on"]), condition ? String(condition.level) : "");
  $("level").parentElement.hidden = levelsOf(which, degradation).length < 2;
  const at = !condition || degradation === UNDEGRADED ? "undegraded" : [degradationText(degradation), condition.text].filter(Boolean).join(" ");
  const heads = [...(sweeps.length ? CRITERIA.map(([, text]) => text) : []), "Accuracy", "Of the 90 % most confident", "AURC"];
  $("decisionhead").replaceChildren(make("tr", null, make("th", { scope: "col", class: "name" }, "Entrant"), ...heads.map((text) => make("th", { scope: "col" }, ...typeset(text)))));
  fillRows($("decisionrows"), decisionOrder(filtered(), sweeps, condition), (one) => make("tr", { "data-decision": one.id },
    make("th", { scope: "row", class: "name" }, link(one)),
    ...(sweeps.length ? CRITERIA.map(([criterion]) => make("td", null, ...sweeps.flatMap((sweep) => failureCell(which, one, criterion, sweep)))) : []),
    accuracyCell(condition ? one.accuracy[condition.i] : null),
    ...selectiveCells(condition ? one.selective[condition.i] : null)));
  const cameraLevel = DATA.camera ? DATA.camera.levels[degradation] : undefined;
  $("decisioncaption").replaceChildren(sweeps.length ? "Failure points: the level at which accuracy has fallen halfway from undegraded to guessing, and at which 10 % of the labels have changed, with 95 % intervals; those that hold out longest come first. " : "",
    "Accuracy in %, and the area under the risk–coverage curve by confidence (AURC, lower is better): ", bdi(at), ".",
    ...(cameraLevel ? [" ", bdi(DATA.camera.name), `: ${levelLike(which, degradation, cameraLevel[0])} [${cameraLevel.slice(1).map((value) => Number(value.toPrecision(3))).join(" – ")}].`] : []));
  const notes = [which.decisions.unselected ? `Of the 90 % most confident, AURC: ${which.decisions.unselected}` : "", sweeps.length ? `Intervals of failure points are percentiles of up to ${which.decisions.resamples} bootstrap resamples of the images.` : "A degradation without levels has no failure point."];
  $("decisionnotes").replaceChildren(...notes.filter(Boolean).map((text) => make("p", null, text)));
}
function failureCell(which, one, criterion, sweep) {
  const found = failurePoint(one, criterion, sweep);
  const [point, interval] = failureText(which, sweep, found);
  return [make("span", { class: "value" }, point), make("span", { class: "sub" }, interval), failsBeforeCamera(found, sweep) ? make("span", { class: "chip" }, "before the camera") : null];
}
const accuracyCell = (found) => (found ? make("td", null, make("span", { class: "value" }, percent(found[0])), make("span", { class: "sub" }, `[${percent(found[1])}–${percent(found[2])}]`)) : make("td", null, "–"));
const selectiveCells = (found) => (found ? [make("td", null, percent(found[1])), make("td", null, fixed(found[0], 3))] : [make("td", null, "–"), make("td", null, "–")]);
$("deg").addEventListener("change", (event) => { Object.assign(state, { deg: event.target.value, level: "" }); update(); });
$("level").addEventListener("change", (event) => { state.level = event.target.value; update(); });

/* The level of the reader's camera and its interval as a band in a panel of curves. What lies outside is drawn at the edge,
   where an arrow says so. `across` gives the x of a position between the weakest level, 0, and the strongest, 1. */
function cameraBand(name, values, across, [left, right, top, bottom]) {
  const level = DATA.camera ? DATA.camera.levels[name] : undefined;
  if (!level || values.length < 2) return [];
  const isLog = values.every((value) => value > 0);
  const turned = isLog ? values.map(Math.log2) : values.map((_, i) => i);
  const position = (value) => {
    if (isLog) return (Math.log2(Math.max(value, Number.MIN_VALUE)) - turned[0]) / (turned[turned.length - 1] - turned[0]);
    const after = values.findIndex((other) => other >= value);
    if (after < 0) return value > values[values.length - 1] ? 2 : 1;
    if (after === 0) return value < values[0] ? -2 : 0;
    return (after - 1 + (value - values[after - 1]) / (values[after] - values[after - 1])) / (values.length - 1);
  };
  const x = (value) => Math.min(right, Math.max(left, across(position(value))));
  const at = x(level[0]);
  const arrow = across(position(level[0])) < left ? "← " : across(position(level[0])) > right ? "→ " : "";
  const middle = at > right - 14 ? at - 4 : at + 11;
  return [
    draw("rect", { class: "cameraband", "data-camera": name, x: x(level[1]), width: Math.max(1, x(level[2]) - x(level[1])), y: top, height: bottom - top }),
    draw("line", { class: "cameraline", x1: at, x2: at, y1: top, y2: bottom }),
    draw("text", { class: "cameraname", x: middle, y: bottom - 6, transform: `rotate(-90 ${middle} ${bottom - 6})` }, `${arrow}${isolated(clipped(DATA.camera.name, 24))}`),
  ];
}
