"use strict";
const THEMES = { auto: "Theme: automatic", light: "Theme: light", dark: "Theme: dark" };
const darkOutside = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
try { theme = localStorage.getItem("theme") || "auto"; } catch { /* A page opened from disk may have no storage. */ }
if (!THEMES[theme]) theme = "auto";

function showTheme() {
  document.documentElement.dataset.theme = theme === "auto" ? (darkOutside.matches ? "dark" : "light") : theme;
  $("theme").textContent = THEMES[theme];
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  try { localStorage.setItem("theme", theme); } catch { /* The choice is not kept. */ }
  showTheme();
});
darkOutside.addEventListener("change", showTheme);

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => {
    const option = make("option", { value }, text);
    option.selected = value === chosen;
    return option;
  }));
}
const clipped = (text, most = 60) => (text.length > most ? `${text.slice(0, most)}…` : text);

/* Lists conditions by their degradation: gaussian_rgb σ=1, σ=4; pepper p=0.02. */
function grouped(which, chosen) {
  return which.degradations.flatMap((name) => {
    const own = chosen.map((i) => which.conditions[i]).filter((one) => one.degradation === name);
    return own.length ? [[name, ...own.map((one) => one.text).filter(Boolean)]] : [];
  }).map(([name, ...texts]) => [degradationText(name), texts.join(", ")].filter(Boolean).join(" ")).join("; ");
}
const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
function meansOver(which) {
  return `means are over the ${counted(which.ranked.length, "condition")} that the ranked entrants share: ${grouped(which, which.ranked)}. An entrant without one of these keeps the means over its own conditions, marked and not ranked.`;
}

function opening() {
  const which = board();
  const degraded = which.conditions.filter((one) => one.degradation !== "none").length;
  const models = new Set(which.entrants.map((one) => one.network)).size;
  const defended = which.entrants.length > models || which.entrants.some((one) => one.defense !== "none");
  $("lead").replaceChildren(
    `${models} ${models === 1 ? "network" : "networks"}${defended ? `, ${which.entrants.length} entrants with their defenses,` : ""} on `, make("b", null, bdi(which.dataset)),
    `: how much of the accuracy is left, and how often the label changes, when ${which.n_images} test images are degraded in ${which.degradations.length} ways (${degraded} conditions).`);
  const facts = [
    ["mean_degraded_accuracy", "best mean accuracy when degraded"],
    ["mean_label_change", "fewest changed labels, on average"],
    ["accuracy", "best accuracy undegraded"],
  ].map(([measure, what]) => {
    /* Only ranked entrants count: a mean over other conditions is no record. */
    const ranked = which.entrants.filter((one) => one.ranks[measure]);
    const sign = columnOf(measure).higher_is_better ? -1 : 1;
    ranked.sort((a, b) => sign * (stat(a, measure) - stat(b, measure)));
    const best = ranked[0];
    if (!best) return null;
    const tied = ranked.filter((one) => one !== best && one.ranks[measure][0] === 1).length;
    return make("div", { class: "fact" }, make("span", { class: "what" }, what), make("b", null, `${percent(stat(best, measure))} %`),
      make("span", { class: "who" }, bdi(clipped(label(best), 80))), make("span", { class: "what" }, tied ? `tied with ${tied} ${tied === 1 ? "other" : "others"}` : ranked.length > 1 ? "clear of all others" : ""));
  });
  $("glance").replaceChildren(...facts.filter(Boolean));
  const terms = [...which.terms.slice(0, 4), ["Levels", grouped(which, which.conditions.map((_, i) => i))], ...which.terms.slice(4)];
  if (which.ranked.length) terms.splice(terms.findIndex(([term]) => term === "Averaging"), 0, ["Means over", meansOver(which)]);
  terms.push(["Reference", which.reference], ["Protocol", which.protocol]);
  $("terms").replaceChildren(...terms.flatMap(([term, text]) => [make("dt", null, term), make("dd", null, bdi(text))]));
}

function listEntrants() {
  $("entrants").replaceChildren(...standing(board()).map((one) => {
    const summary = make("summary", null, make("span", null, make("b", null, bdi(one.model)), " ", make("span", { class: "sub" }, bdi(one.defense === "none" ? "no defense" : one.defense))));
    const details = make("details", { id: `entrant-${one.id}` }, summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(card(one));
      state.entrant = details.open ? one.id : state.entrant === one.id ? "" : state.entrant;
      writeAddress();
    });
    return details;
  }));
}
function card(one) {
  const which = board();
  const facts = [["Architecture", one.architecture], ["Parameters", one.parameters === null ? null : one.parameters.toLocaleString("en")], ["Input", one.input_size && `${one.input_size} × ${one.input_size}`], ["View", one.view], ["Outputs", one.outputs], ["Images", one.images], ["Speed", one.device && `${significant(one.stats.images_per_second[0], 3)} images/s on ${one.device}`], ["Weights", one.weights && `SHA-256 ${one.weights.slice(0, 16)}…`], ["Recomputed", recomputedText(one)]];
  const list = make("dl", null, ...facts.filter(([, value]) => value).flatMap(([term, value]) => [make("dt", null, term), make("dd", null, bdi(value))]));
  const fragile = make("table", null, make("tbody", null, ...one.fragile.map(([id, name, share]) => make("tr", null, make("td", null, bdi(id), name ? make("span", { class: "sub" }, bdi(name)) : null), make("td", null, `${percent(share, 0)} %`)))));
  const cells = which.conditions.map((condition, i) => {
    const shares = [one.accuracy[i], one.change[i]].map((found) => (found ? `${percent(found[0])} [${percent(found[1], 0)}–${percent(found[2], 0)}]` : "–"));
    return make("tr", null, make("td", null, bdi(condition.degradation === "none" ? "undegraded" : `${degradationText(condition.degradation)} ${condition.text}`)), ...shares.map((text) => make("td", null, text)));
  });
  const conditions = make("table", null, make("thead", null, make("tr", null, ...["Condition", "Accuracy in %", "p_Δ in %"].map((text) => make("th", { scope: "col", style: "padding:8px 12px" }, text)))), make("tbody", null, ...cells));
  const body = make("div", { class: "card" },
    make("div", null, make("h3", null, "What it is"), list),
    make("div", null, make("h3", null, "Most fragile images: share of changed labels"), one.fragile.length ? make("div", { class: "scroll", tabindex: "0" }, fragile) : make("p", { class: "note" }, "No label changed.")),
    make("div", { class: "all" }, make("h3", null, "Every condition, with its 95 % interval"), make("div", { class: "scroll", tabindex: "0" }, conditions)));
  const means = Object.entries(one.of_images).map(([measure, [value, low, high]]) => `${columnOf(measure).heading} ${percent(value)} % [${percent(low)}–${percent(high)}]`);
  if (means.length) body.append(make("p", { class: "note all" }, `Means for these very images: ${means.join(", ")}.`));
  if (one.missing.length) body.append(make("p", { class: "note all" }, `Not measured: ${counted(one.missing.length, "condition")} of `, bdi([...new Set(one.missing.map((i) => which.conditions[i].degradation))].map((name) => (name === "none" ? "undegraded images" : degradationText(name))).join(", ")), "."));
  for (const id of one.runs) body.append(run(id));
  return body;
}
function run(id) {
  const made = DATA.runs[id];
  const facts = [["Run", `${id}, ${made.status}, started ${made.started}`], ["Commit", made.commit || "unknown"], ["Versions", made.versions], ["Device", made.device]];
  const block = make("div", { class: "all" }, make("h3", null, "Made by"));
  if (made.command) {
    const copy = make("button", { type: "button", onclick: async (event) => {
      try { await navigator.clipboard.writeText(made.command); event.target.textContent = "Copied"; } catch { getSelection().selectAllChildren(event.target.previousSibling); }
    } }, "Copy");
    block.append(make("div", { class: "command" }, make("pre", null, made.command), copy));
  } else block.append(make("p", { class: "note" }, "A suite that this version does not have; its configuration is in the table runs of the database."));
  block.append(make("dl", null, ...facts.filter(([, value]) => value).flatMap(([term, value]) => [make("dt", null, term), make("dd", null, bdi(value))])));
  return block;
}
function openEntrant(id) {
  drawWaiting($("section-entrants"));
  const details = $(`entrant-${id}`);
  if (!details) return;
  details.open = true;
  details.scrollIntoView({ block: "start" });
  details.firstChild.focus({ preventScroll: true });
}

let shownBoard = null;
function update() {
  const which = board();
  state.board = which === DATA.boards[0] ? "" : which.id;
  standing(which);
  if (shownBoard !== which) {
    shownBoard = which;
    opening();
    notes();
    const defenses = [...new Set(which.entrants.map((one) => one.defense))].sort((a, b) => (b === "none") - (a === "none") || a.localeCompare(b));
    document.querySelector('[data-show="first"]').hidden = which.entrants.length <= FIRST;
    const families = familiesOf(which).map((one) => [one.text, `${clipped(one.text)} (${one.count})`]);
    options($("family"), [["", "all"], ...families.sort((a, b) => a[0].localeCompare(b[0]))], state.family);
    $("family").parentElement.hidden = $("group").hidden = families.length < 2;
    options($("defense"), [["", "all"], ...defenses.map((one) => [one, clipped(one)])], state.defense);
  }
  $("defense").value = state.defense;
  $("family").value = state.family;
  $("group").setAttribute("aria-pressed", String(Boolean(state.group)));
  if ($("q").value !== state.q) $("q").value = state.q;
  $("more").setAttribute("aria-pressed", String(Boolean(state.more)));
  for (const button of document.querySelectorAll("[data-measure]")) button.setAttribute("aria-pressed", String(button.dataset.measure === state.measure));
  const { board: id, measure } = state;
  const those = [state.q, state.defense, state.family];
  redraw("table", showTable, id, those, state.sort, state.dir, state.more, state.group);
  redraw("entrants", listEntrants, id);
  redraw("tradeoff", showTradeoff, id, those, state.x, state.y, state.families);
  redraw("pairs", () => listPairs(which), id);
  redraw("compare", showCompare, id, state.a, state.b, measure);
  redraw("numbers", showNumbers, id, state.a, state.b, measure);
  redraw("curves", () => { showLegend(); showCurves(); }, id, those, measure, [...state.on].sort(), [...state.off].sort());
  redraw("pictures", showPictures, id, state.images);
  redraw("heat", showHeat, id, those, measure);
  redraw("decisions", showDecisions, id, those, state.deg, state.level);
  writeAddress();
}
/* Draws a section again where something that it depends on has changed: at once on small boards, and on large ones when it
   comes near the window. */
const AT_ONCE = 60;
const drawnFor = {};
const waiting = new Map();
const near = new Set();
const nearing = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) near.delete(target);
    else {
      near.add(target);
      drawWaiting(target);
    }
  }
}, { rootMargin: "700px 0px" });
function drawWaiting(target) {
  const show = waiting.get(target);
  waiting.delete(target);
  if (show) show();
}
function redraw(section, show, ...depends) {
  const key = JSON.stringify(depends);
  if (drawnFor[section] === key) return;
  drawnFor[section] = key;
  const target = $(`section-${section}`);
  if (!target || near.has(target) || board().entrants.length <= AT_ONCE) {
    waiting.delete(target);
    show();
  } else {
    waiting.set(target, show);
    nearing.observe(target);
  }
}
addEventListener("beforeprint", () => {
  [...waiting.keys()].forEach(drawWaiting);
  for (const { all } of fillings.values()) all();
});
function boardName(one) {
  const alone = DATA.boards.filter((other) => other.dataset === one.dataset).length === 1;
  return clipped(one.dataset) + (alone ? "" : ` · protocol ${one.protocol.slice(0, 8)} · seed ${(one.terms.find(([term]) => term === "Seed") || [])[1]}`);
}
$("board").addEventListener("change", (event) => {
  Object.assign(state, { board: event.target.value, defense: "", family: "", entrant: "", a: "", b: "", at: "", images: "", families: "", deg: "", level: "", off: new Set(), on: new Set() });
  update();
});
$("defense").addEventListener("change", (event) => { state.defense = event.target.value; update(); });
$("family").addEventListener("change", (event) => { state.family = event.target.value; update(); });
$("group").addEventListener("click", () => { state.group = state.group ? "" : "1"; update(); });
$("q").addEventListener("input", (event) => { state.q = event.target.value; update(); });
$("more").addEventListener("click", () => { state.more = state.more ? "" : "1"; update(); });
for (const form of ["filters", "axes", "pair", "situation", "gallery"]) $(form).addEventListener("submit", (event) => event.preventDefault());
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("table").focus(); });
for (const button of document.querySelectorAll("[data-measure]")) button.addEventListener("click", () => { state.measure = button.dataset.measure; update(); });
for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => {
  for (const one of filtered()) setShown(one, button.dataset.show === "all" || (button.dataset.show === "first" && one.position < FIRST));
  update();
});
function fromAddress() {
  readAddress();
  const wanted = state.entrant;
  options($("board"), DATA.boards.map((one) => [one.id, boardName(one)]), board().id);
  update();
  if (wanted) openEntrant(wanted);
}
addEventListener("hashchange", fromAddress);
$("foot").replaceChildren(`Built ${DATA.built} from `, bdi(DATA.databases.join(", ")), " by python -m leaderboard build. Every number is computed from single predictions.");
showTheme();
showBoardSummary();
fromAddress();
