"use strict";
const COLUMNS = [
  { key: "model", title: "Entrant", text: true },
  { key: "mean_degraded_accuracy", title: "Degraded accuracy", unit: "%, mean" },
  { key: "accuracy", title: "Undegraded accuracy", unit: "%" },
  { key: "mean_label_change", title: "Label change p_Δ", unit: "%, mean" },
  { key: "worst_accuracy", title: "Worst condition", unit: "%, accuracy" },
  { key: "mce", title: "mCE", unit: "%", reference: true },
  { key: "relative_mce", title: "Relative mCE", unit: "%", reference: true },
  { key: "parameters", title: "Parameters", plain: true, lower: true },
  { key: "images_per_second", title: "Speed", unit: "images/s", rate: true },
  { key: "mean_flip_rate", title: "Mean flip rate", unit: "%", reference: true, more: true },
  { key: "top5", title: "Top-5", unit: "%", more: true },
  { key: "top5_degraded", title: "Top-5 degraded", unit: "%, mean", more: true },
  { key: "mean_per_class", title: "Per-class accuracy", unit: "%", more: true },
  { key: "mean_per_class_degraded", title: "Per-class degraded", unit: "%, mean", more: true },
  { key: "ece", title: "ECE", unit: "%", more: true },
  { key: "ece_degraded", title: "ECE degraded", unit: "%, mean", more: true },
  { key: "nll", title: "NLL", unit: "nats", more: true, digits: 3 },
  { key: "nll_degraded", title: "NLL degraded", unit: "nats, mean", more: true, digits: 3 },
];
const isLower = (column) => column.lower || column.text || DATA.higher[column.key] === false;
const visibleColumns = () =>
  COLUMNS.filter((column) => (!column.reference || board().has_reference) && (!column.more || state.more || column.key === state.sort));

function direction() {
  const column = COLUMNS.find((one) => one.key === state.sort);
  return state.dir || (isLower(column) ? "asc" : "desc");
}
const comparable = (one) => DATA.higher[state.sort] === undefined || (state.sort === "images_per_second" ? one.same_device : DATA.undegraded.includes(state.sort) ? one.same_images : one.comparable);
function sorted(entrants) {
  const sign = direction() === "asc" ? 1 : -1;
  return [...entrants].sort((a, b) => {
    if (state.sort === "model") return sign * label(a).localeCompare(label(b)) || (a.id < b.id ? -1 : 1);
    /* What was measured under other conditions is no better or worse: it comes last. */
    if (comparable(a) !== comparable(b)) return comparable(b) - comparable(a);
    const [x, y] = [stat(a, state.sort), stat(b, state.sort)];
    if (x === null || y === null) return (x === null) - (y === null) || (a.id < b.id ? -1 : 1);
    return sign * (x - y) || (a.id < b.id ? -1 : 1);
  });
}
function sortBy(column) {
  const best = isLower(column) ? "asc" : "desc";
  const turned = best === "asc" ? "desc" : "asc";
  if (state.sort === column.key) state.dir = direction() === best ? turned : "";
  else Object.assign(state, { sort: column.key, dir: "" });
  update();
  const button = document.querySelector(`[data-sort="${column.key}"]`);
  if (button) button.focus();
}
const rankedBy = () => (DATA.higher[state.sort] === undefined ? "mean_degraded_accuracy" : state.sort);

function showTable() {
  const columns = visibleColumns();
  const head = make("tr", null, make("th", { scope: "col", class: "rank" }, make("span", { class: "sub", style: "padding:0 12px 11px" }, "Rank")));
  for (const column of columns) {
    const title = column.key === "mean_label_change" ? ["Label change ", make("i", null, "p"), make("sub", null, "Δ")] : [column.title];
    const button = make("button", { type: "button", "data-sort": column.key, onclick: () => sortBy(column) }, make("span", { class: "heading-text" }, ...title));
    if (column.unit) button.append(make("span", { class: "unit" }, column.unit));
    const sort = state.sort === column.key ? (direction() === "asc" ? "ascending" : "descending") : null;
    head.append(make("th", { scope: "col", "aria-sort": sort, class: column.text ? "name" : null }, button));
  }
  $("head").replaceChildren(head);
  const entrants = sorted(filtered());
  const spans = Object.fromEntries(columns.map((column) => [column.key, span(column.key)]));
  $("rows").replaceChildren(...entrants.map((one) => row(one, columns, spans)));
  if (!entrants.length) {
    $("rows").append(make("tr", null, make("td", { colspan: columns.length + 1, class: "name" }, "No entrant matches: clear the search or choose another defense.")));
  }
  const all = board().entrants.length;
  $("count").textContent = entrants.length === all ? `${all} ${all === 1 ? "entrant" : "entrants"}` : `${entrants.length} of ${all} entrants`;
}
function row(one, columns, spans) {
  const ranks = one.ranks[rankedBy()];
  const line = make("tr", { "data-entrant": one.id }, make("td", { class: ranks && ranks[0] === 1 ? "rank first" : "rank" }, places(ranks) || "–"));
  for (const column of columns) line.append(column.text ? nameCell(one) : column.plain ? make("td", null, compact(one.parameters)) : numberCell(one, column, spans[column.key]));
  return line;
}
function nameCell(one) {
  const link = make("a", { href: "#entrant=" + one.id, onclick: (event) => { event.preventDefault(); openEntrant(one.id); } }, name(one.model));
  const cell = make("th", { scope: "row", class: "name" }, make("span", { class: "clamp", title: one.model }, link));
  if (one.defense !== "none") cell.append(make("span", { class: "sub clamp", title: one.defense }, "+ ", bdi(shortDefense(one.defense))));
  if (one.reference) cell.append(make("span", { class: "chip" }, "reference of mCE"));
  if (!one.same_images) cell.append(make("span", { class: "chip" }, `other images: ${one.images}`));
  else if (!one.comparable) cell.append(make("span", { class: "chip" }, "other conditions"));
  return cell;
}
/* Three figures: 9.87, 98.7, 987. */
const figures = (value) => fixed(value, Math.max(0, 2 - Math.floor(Math.log10(value))));
const number = (value, column) => (column.rate ? figures(value) : column.digits ? fixed(value, column.digits) : percent(value));
function numberCell(one, column, [from, to]) {
  const found = one.stats[column.key];
  if (!found) return make("td", null, "–");
  const [value, low, high] = found;
  const ranks = one.ranks[column.key];
  const cell = make("td", null, make("span", { class: "value" }, number(value, column)));
  if (low !== null) {
    const at = (x) => `${(100 * (x - from)) / (to - from || 1)}%`;
    const range = make("i");
    range.style.left = at(low);
    range.style.width = `${(100 * (high - low)) / (to - from || 1)}%`;
    const dot = make("b");
    dot.style.left = at(value);
    cell.append(make("span", { class: "bar", "aria-hidden": "true" }, range, dot));
    const bounds = column.rate ? `${figures(low)}–${figures(high)}` : column.digits ? `${fixed(low, 2)}–${fixed(high, 2)}` : `${percent(low, 0)}–${percent(high, 0)}`;
    cell.append(make("span", { class: "sub" }, `[${bounds}]${ranks ? ` · ${places(ranks)}` : ""}`));
  }
  if (column.rate && !one.same_device) cell.append(make("span", { class: "chip", title: one.device }, "other device"));
  if (column.key === "worst_accuracy" && one.worst !== null) {
    const { degradation, text } = board().conditions[one.worst];
    cell.append(make("span", { class: "sub" }, bdi(`${degradation} ${text}`)));
  }
  return cell;
}
function span(measure) {
  const every = board().entrants.map((one) => one.stats[measure]).filter((found) => found && found[1] !== null);
  return every.length ? [Math.min(...every.map((found) => found[1])), Math.max(...every.map((found) => found[2]))] : [0, 1];
}
function notes() {
  const which = board();
  const said = ["Below each number: its 95 % interval and the places it allows. Entrants whose intervals overlap are tied."];
  if (!which.has_reference) said.push(`mCE, relative mCE and mean flip rate need the reference network: ${DATA.reference} without a defense is not on this board, or has several weights. (build --reference chooses another.)`);
  else {
    const of = which.entrants.filter((one) => one.relative_of.relative_mce < one.relative_of.mce).length;
    said.push(`mCE: errors summed over levels relative to ${DATA.reference} (100 %), over the degradations and levels that both have; relative mCE: the same of what errors exceed the undegraded ones; mean flip rate: the same of label change p_Δ.`);
    if (of) said.push("Where the reference makes no more errors than undegraded, a degradation has no relative CE and is left out of relative mCE.");
  }
  if (which.device) said.push(`Speed: images a second through filter and network alone, on ${which.device}. Intervals are over chunks of images; what was measured on another device is shown and not ranked.`);
  const degraded = which.conditions.flatMap((one, i) => (one.degradation === "none" ? [] : [i]));
  const left = degraded.filter((i) => !which.ranked.includes(i));
  if (left.length) said.push(`Means, worst condition, mCE and flip rate are over the ${counted(which.ranked.length, "condition")} that the ranked entrants share, of ${degraded.length} on this board; left out: ${grouped(which, left)}. Curves, heat map and each entrant's table show every condition.`);
  if (which.entrants.some((one) => !one.comparable)) said.push("“Other conditions”, “other images”: not measured under all of the shared conditions, or on a part of the images, so not ranked in what depends on them; their means are over their own conditions.");
  for (const { stage, images, run } of which.failures) said.push(`${images} ${images === 1 ? "image" : "images"} failed in stage ${stage} of run ${run}.`);
  $("notes").replaceChildren(...said.map((text) => make("p", null, bdi(text))));
}
