"use strict";
/* Names of networks, defenses and images come from anywhere: they reach the page as text nodes only. */
const DATA = unfolded(JSON.parse(document.getElementById("data").textContent));
/* Puts the shares back that `folding.py` replaced by their positions among those that differ. */
function unfolded(data) {
  for (const { shares, entrants } of data.boards) {
    if (shares) for (const one of entrants) for (const series of ["accuracy", "change"]) one[series] = one[series].map((at) => (at === null ? null : shares[at]));
  }
  return data;
}
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const DEFAULTS = { board: "", sort: "mean_degraded_accuracy", dir: "", q: "", defense: "", measure: "accuracy", more: "", entrant: "", x: "accuracy", y: "mean_degraded_accuracy", families: "", a: "", b: "", at: "", family: "", group: "", deg: "", level: "", images: "" };
const state = { ...DEFAULTS, off: new Set(), on: new Set() };
const FIRST = 8;

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
/* An isolated text, so that a right-to-left name does not turn its neighbours around. */
const bdi = (text) => make("bdi", null, String(text));

/* The name of a degradation as people read it: stored:fog → fog (stored). */
const degradationText = (text) => text.replace(/\bstored:(\w+(?:\([^)]*\))?)/g, "$1 (stored)");

/* A name that may break after a slash or an underscore rather than within a word. */
function name(text) {
  const parts = text.split(/(?<=[/_])/);
  return make("bdi", null, ...parts.flatMap((part, i) => (i ? [make("wbr"), part] : [part])));
}

const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const compact = (count) =>
  count === null ? "–" : count >= 1e9 ? `${(count / 1e9).toFixed(1)} G` : count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : count >= 1e3 ? `${(count / 1e3).toFixed(0)} k` : String(count);
/* A defense without the names of its arguments: gaussian_filter(size=3, sigma=0.5) → gaussian_filter(3, 0.5). */
const shortDefense = (text) => text.replace(/([(,] ?)\w+=/g, "$1");
const rankText = (ranks) => (!ranks ? "" : ranks[0] === ranks[1] ? `${ranks[0]}` : `${ranks[0]}–${ranks[1]}`);
/* In a text with others a name is isolated (FSI … PDI), and loses the control characters that would reach beyond it. */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const isolated = (text) => `\u2068${text.replace(BIDI, "")}\u2069`;
const label = (one) => (one.defense === "none" ? isolated(one.model) : `${isolated(one.model)} + ${isolated(shortDefense(one.defense))}`);

const board = () => DATA.boards.find((one) => one.id === state.board) || DATA.boards[0];
function stat(one, measure) {
  const found = one.stats[measure];
  return found ? found[0] : null;
}
/* The entrants, best first by degraded accuracy: the first ones have their curves drawn at first. */
function standing(which) {
  if (!which.standing) {
    const value = (one) => stat(one, DEFAULTS.sort) ?? -1;
    which.standing = [...which.entrants].sort((a, b) => b.comparable - a.comparable || value(b) - value(a) || (a.id < b.id ? -1 : 1));
    which.standing.forEach((one, i) => { one.position = i; });
  }
  return which.standing;
}
function shown(one) {
  if (state.off.has(one.id)) return false;
  return state.on.has(one.id) || one.position < FIRST;
}
function setShown(one, value) {
  state.off.delete(one.id);
  state.on.delete(one.id);
  if (value !== one.position < FIRST) (value ? state.on : state.off).add(one.id);
}
const familyText = (one) => one.family ?? "unknown";
function filtered() {
  const terms = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  return board().entrants.filter((one) => {
    if (state.defense && one.defense !== state.defense) return false;
    if (state.family && familyText(one) !== state.family) return false;
    const text = `${one.model} ${one.architecture || ""} ${one.defense}`.toLowerCase();
    return terms.every((term) => text.includes(term));
  });
}

/* The address keeps what the reader has chosen, so that a link shows the same. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) ?? DEFAULTS[key];
  for (const key of ["off", "on"]) state[key] = new Set((given.get(key) || "").split(".").filter(Boolean));
  if (!COLUMNS.some((column) => column.name === state.sort)) state.sort = DEFAULTS.sort;
  if (!board().entrants.some((one) => one.defense === state.defense)) state.defense = "";
  if (!board().entrants.some((one) => familyText(one) === state.family)) state.family = "";
  if (state.measure !== "change") state.measure = "accuracy";
}
function writeAddress() {
  const kept = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS)) if (state[key] !== DEFAULTS[key]) kept.set(key, state[key]);
  for (const key of ["off", "on"]) if (state[key].size) kept.set(key, [...state[key]].sort().join("."));
  const text = kept.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}
