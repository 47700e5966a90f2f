"use strict";
/* The first column is the entrant's name; the others are the measures, as the page's data describes them. */
const COLUMNS = [{ name: "model", heading: "Entrant", unit: "", higher_is_better: false, explanation: "", ranked_among: null }, ...DATA.columns];
const columnOf = (name) => COLUMNS.find((column) => column.name === name);
/* Published error rates lack what relative mCE and the flip rate need. */
function isMeasured(column) {
  const which = board();
  if (column.needs_camera) return which.camera !== null;
  return !column.needs_reference || (which.has_reference && (!which.published || which.entrants.some((one) => one.stats[column.name])));
}
/* What stands below a heading, and its explanation, with the reference that the measure is relative to. */
const unitOf = (column) => column.needs_camera ? `${column.unit}, ${clipped(DATA.camera.name, 24)}` : (column.needs_reference && board().published ? `${column.unit} of ${board().published}, published` : column.unit);
const explanationOf = (column) => (column.needs_reference && column.explanation ? `${column.explanation} Relative to: ${board().reference}.` : column.explanation);
const visibleColumns = () =>
  COLUMNS.filter((column) => isMeasured(column) && (!column.optional || state.more || column.name === state.sort));

function direction() {
  return state.dir || (columnOf(state.sort).higher_is_better ? "desc" : "asc");
}
/* The column says which flag of an entrant lets it be ranked. */
function isRanked(one) {
  const flag = columnOf(state.sort).ranked_among;
  return flag ? one[flag] : true;
}
function sorted(entrants) {
  const sign = direction() === "asc" ? 1 : -1;
  return [...entrants].sort((a, b) => {
    if (state.sort === "model") return sign * label(a).localeCompare(label(b)) || (a.id < b.id ? -1 : 1);
    /* Entrants that were measured under other conditions are neither better nor worse: they come last. */
    if (isRanked(a) !== isRanked(b)) return isRanked(b) - isRanked(a);
    const [x, y] = [stat(a, state.sort), stat(b, state.sort)];
    if (x === null || y === null) return (x === null) - (y === null) || (a.id < b.id ? -1 : 1);
    return sign * (x - y) || (a.id < b.id ? -1 : 1);
  });
}
function sortBy(column) {
  const best = column.higher_is_better ? "desc" : "asc";
  const turned = best === "asc" ? "desc" : "asc";
  if (state.sort === column.name) state.dir = direction() === best ? turned : "";
  else Object.assign(state, { sort: column.name, dir: "" });
  update();
  const button = document.querySelector(`[data-sort="${column.name}"]`);
  if (button) button.focus();
}
const rankedBy = () => (columnOf(state.sort).ranked_among ? state.sort : DEFAULTS.sort);
/* A heading in which p_Δ is typeset. */
const typeset = (heading) => heading.split("p_Δ").flatMap((text, i) => (i ? [make("i", null, "p"), make("sub", null, "Δ"), text] : [text]));

function showTable() {
  const columns = visibleColumns();
  const head = make("tr", null, make("th", { scope: "col", class: "rank" }, make("span", { class: "sub", style: "padding:0 12px 11px" }, "Rank")));
  for (const column of columns) {
    const button = make("button", { type: "button", "data-sort": column.name, title: explanationOf(column) || null, onclick: () => sortBy(column) }, make("span", { class: "heading-text" }, ...typeset(column.heading)));
    if (unitOf(column)) button.append(make("span", { class: "unit" }, unitOf(column)));
    const sort = state.sort === column.name ? (direction() === "asc" ? "ascending" : "descending") : null;
    head.append(make("th", { scope: "col", "aria-sort": sort, class: column.name === "model" ? "name" : null }, button));
  }
  $("head").replaceChildren(head);
  const entrants = sorted(filtered());
  const rowOf = rowsFor(columns);
  fillRows($("rows"), state.group ? byFamily(entrants) : entrants, (one) => (one.members ? familyRow(one, columns) : rowOf(one)));
  if (!entrants.length) {
    $("rows").append(make("tr", null, make("td", { colspan: columns.length + 1, class: "name" }, "No entrant matches: clear the search or choose another defense.")));
  }
  const all = board().entrants.length;
  $("count").textContent = entrants.length === all ? `${all} ${all === 1 ? "entrant" : "entrants"}` : `${entrants.length} of ${all} entrants`;
}
/* Puts the entrants of a family together under a heading, families in the order of their first entrants. */
function byFamily(entrants) {
  const found = new Map();
  for (const one of entrants) found.set(familyText(one), [...(found.get(familyText(one)) ?? []), one]);
  return [...found].flatMap(([text, members]) => [{ text, members }, ...members]);
}
const median = (values) => {
  const ordered = [...values].sort((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
};
/* The heading of a family: how many entrants it has, and below each measure the median of those that are ranked by it. */
function familyRow({ text, members }, columns) {
  const cells = columns.map((column) => {
    if (column.name === "model") return make("th", { scope: "row", class: "name" }, bdi(text), make("span", { class: "sub" }, counted(members.length, "entrant")));
    const values = members.filter((one) => !column.ranked_among || one[column.ranked_among]).map((one) => stat(one, column.name)).filter((value) => value !== null);
    const value = values.length ? median(values) : null;
    return make("td", null, column.notation === "count" ? compact(value) : value === null ? "–" : formatted(value, column), make("span", { class: "sub" }, "median"));
  });
  return make("tr", { class: "family", "data-family-row": text }, make("td"), ...cells);
}
/* Fills the body of a table: at once where it has few rows, else with the first ones, and with more as the reader scrolls
   near the end of what is there. */
const ROWS_AT_ONCE = 60;
const fillings = new Map();
function fillRows(body, entries, rowOf) {
  if (fillings.has(body)) fillings.get(body).stop();
  const later = [...entries];
  const observer = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) more(ROWS_AT_ONCE); }, { root: body.closest(".scroll"), rootMargin: "1500px 0px" });
  const more = (count) => {
    observer.disconnect();
    body.append(...later.splice(0, count).map(rowOf));
    if (later.length) observer.observe(body.lastElementChild);
  };
  fillings.set(body, { stop: () => observer.disconnect(), all: () => more(later.length) });
  body.replaceChildren();
  more(later.length > 2 * ROWS_AT_ONCE ? ROWS_AT_ONCE : later.length);
}
/* Gives the row of an entrant. Rows are made once for a board and its columns, for another order changes their rank alone. */
let madeRows = { key: "", rows: new Map() };
function rowsFor(columns) {
  const key = [board().id, ...columns.map((column) => column.name)].join(" ");
  if (madeRows.key !== key) madeRows = { key, rows: new Map() };
  const { rows } = madeRows;
  const spans = Object.fromEntries(columns.map((column) => [column.name, span(column.name)]));
  return (one) => {
    if (!rows.has(one.id)) rows.set(one.id, make("tr", { "data-entrant": one.id }, make("td"), ...columns.map((column) => (column.name === "model" ? nameCell(one) : numberCell(one, column, spans[column.name])))));
    const line = rows.get(one.id);
    const ranks = one.ranks[rankedBy()];
    line.firstChild.className = ranks && ranks[0] === 1 ? "rank first" : "rank";
    line.firstChild.textContent = rankText(ranks) || "–";
    return line;
  };
}
const recomputedText = ({ recomputed }) => recomputed && `${recomputed.sampled} of ${recomputed.total} predictions, chosen at random, were computed again on ${recomputed.created} and agree`;
function nameCell(one) {
  const link = make("a", { href: "#entrant=" + one.id, onclick: (event) => { event.preventDefault(); openEntrant(one.id); } }, name(one.model));
  const cell = make("th", { scope: "row", class: "name" }, make("span", { class: "clamp", title: one.model }, link));
  if (one.defense !== "none") cell.append(make("span", { class: "sub clamp", title: one.defense }, "+ ", bdi(shortDefense(one.defense))));
  if (one.recomputed) cell.append(make("span", { class: "chip", title: recomputedText(one) }, "recomputed"));
  if (one.reference) cell.append(make("span", { class: "chip" }, "reference of mCE"));
  if (!one.same_images) cell.append(make("span", { class: "chip" }, `other images: ${one.images}`));
  else if (!one.comparable) cell.append(make("span", { class: "chip" }, "other conditions"));
  if (one.share !== null && one.share < 0.995) cell.append(make("span", { class: "chip" }, `${percent(one.share)} % of cells`));
  return cell;
}
/* A number with so many significant digits; of three: 9.87, 98.7, 987. */
const significant = (value, digits) => fixed(value, Math.max(0, digits - 1 - Math.floor(Math.log10(value))));
/* A number in the notation of its column; `fewer`: how many decimals less it gets, as the bounds of an interval do. */
function formatted(value, { notation, digits }, fewer = 0) {
  if (notation === "percent") return percent(value, Math.max(0, digits - fewer));
  return notation === "significant" ? significant(value, digits) : fixed(value, Math.max(0, digits - fewer));
}
/* A value and its interval as a bar between the ends of its column. */
function intervalBar([value, low, high], [from, to]) {
  const at = (x) => `${(100 * (x - from)) / (to - from || 1)}%`;
  const range = make("i");
  range.style.left = at(low);
  range.style.width = `${(100 * (high - low)) / (to - from || 1)}%`;
  const dot = make("b");
  dot.style.left = at(value);
  return make("span", { class: "bar", "aria-hidden": "true" }, range, dot);
}
function numberCell(one, column, [from, to]) {
  const found = one.stats[column.name];
  if (!found) return make("td", null, "–");
  if (column.notation === "count") return make("td", null, compact(found[0]));
  const [value, low, high] = found;
  const ranks = one.ranks[column.name];
  const cell = make("td", null, make("span", { class: "value" }, formatted(value, column)));
  if (low !== null) {
    cell.append(intervalBar(found, [from, to]));
    const bounds = [low, high].map((bound) => formatted(bound, column, 1)).join("–");
    cell.append(make("span", { class: "sub" }, `[${bounds}]${ranks ? ` · ${rankText(ranks)}` : ""}`));
  }
  if (column.ranked_among === "same_device" && !one.same_device) cell.append(make("span", { class: "chip", title: one.device }, "other device"));
  if (column.name === "worst_accuracy" && one.worst !== null) {
    const { degradation, text } = board().conditions[one.worst];
    cell.append(make("span", { class: "sub" }, bdi(`${degradationText(degradation)} ${text}`)));
  }
  return cell;
}
/* The least lower and the greatest upper bound of a measure: the ends of the bars in its column. */
function span(measure) {
  const every = board().entrants.map((one) => one.stats[measure]).filter((found) => found && found[1] !== null);
  return every.length ? [Math.min(...every.map((found) => found[1])), Math.max(...every.map((found) => found[2]))] : [0, 1];
}
function notes() {
  const which = board();
  const sentences = ["Below each number: its 95 % interval and the places that are possible. Entrants are tied where their difference over the same images and cells could be chance."];
  if (which.budget) sentences.push(`Budget: ${which.budget}`);
  if (!which.has_reference) sentences.push(`mCE, relative mCE and mean flip rate need the reference network: ${DATA.reference} without a defense is not on this board, or has several weights. (build --reference chooses another.)`);
  else {
    const fewer = which.entrants.filter((one) => one.relative_of.relative_mce < one.relative_of.mce).length;
    const relative = COLUMNS.filter((column) => column.needs_reference && isMeasured(column));
    const counts = [...new Set(which.entrants.map((one) => one.relative_of.mce))].sort((a, b) => a - b);
    if (which.published) sentences.push(`Reference: ${which.reference}. mCE is over ${counts.join(" or ")} corruptions.`);
    sentences.push(`${relative.map((column) => column.heading).join(", ")}: relative to ${which.published || DATA.reference} (100 %), over the degradations and levels that both have. ${relative.map((column) => `${column.heading}: ${column.explanation}`).join(" ")}`);
    if (fewer && !which.published) sentences.push("Where the reference makes no more errors than undegraded, a degradation has no relative CE and is left out of relative mCE.");
  }
  if (which.device) sentences.push(`Speed: images a second through filter and network alone, on ${which.device}. Intervals are over chunks of images; what was measured on another device is shown and not ranked.`);
  const degraded = which.conditions.flatMap((one, i) => (one.degradation === "none" ? [] : [i]));
  const leftOut = degraded.filter((i) => !which.ranked.includes(i));
  if (leftOut.length) sentences.push(`Means, worst condition, mCE and flip rate are over the ${counted(which.ranked.length, "condition")} that the ranked entrants share, of ${degraded.length} on this board; left out: ${grouped(which, leftOut)}. Curves, heat map and each entrant's table show every condition.`);
  if (which.entrants.some((one) => !one.comparable)) sentences.push("“Other conditions”, “other images”: not measured under all of the shared conditions, or on a part of the images, so not ranked in what depends on them; their means are over their own conditions.");
  if (DATA.camera && DATA.camera.mix) sentences.push(which.camera !== null ? `Accuracy at the camera: under the mix of ${DATA.camera.name}, ${DATA.camera.mix}, with the ranks of leaderboard rank --camera.` : `The mix of ${DATA.camera.name} (${DATA.camera.mix}) is not measured on this board: run with degradations=camera:FILE for the accuracy at that camera.`);
  else if (DATA.camera) sentences.push(`The mix of ${DATA.camera.name} is empty, since nothing was found that degrades its photographs: there is no accuracy at that camera.`);
  for (const { stage, images, run } of which.failures) sentences.push(`${images} ${images === 1 ? "image" : "images"} failed in stage ${stage} of run ${run}.`);
  $("notes").replaceChildren(...sentences.map((text) => make("p", null, bdi(text))));
}
