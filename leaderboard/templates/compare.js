"use strict";
/* Two entrants, paired by image and trial: the numbers of `python -m leaderboard compare`. */
const Z = 1.959963984540054; /* The 97.5 % quantile of the standard normal distribution. */
const ALPHA = 0.05;
const LISTED = 24;
const conditionText = ({ degradation, text }) => (degradation === "none" ? "undegraded" : `${degradationText(degradation)} ${text}`.trim());
const conditionKey = ({ degradation, level }) => `${degradation}:${level}`;

/* The exact two-sided p-value of a sign test: twice the smaller tail of a binomial distribution with probability 1/2. */
function signTest(wins, losses) {
  const [n, fewer] = [wins + losses, Math.min(wins, losses)];
  if (wins === losses) return 1;
  let logarithm = -n * Math.LN2;
  for (let i = 0; i < fewer; i += 1) logarithm += Math.log((n - i) / (i + 1));
  let [sum, term] = [1, 1];
  for (let i = fewer; i > 0 && term > 1e-18 * sum; i -= 1) {
    term *= i / (n - i + 1);
    sum += term;
  }
  return Math.min(1, 2 * Math.exp(logarithm) * sum);
}
/* Holm's (1979) step-down correction of p-values for their number. */
function holm(values) {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  const corrected = [];
  let largest = 0;
  order.forEach((index, rank) => {
    largest = Math.max(largest, values[index] * (values.length - rank));
    corrected[index] = Math.min(1, largest);
  });
  return corrected;
}
/* The mean difference of images with Agresti & Min's (2005) interval for matched pairs. */
function pairedInterval(sum, squares, n) {
  const size = n + 2;
  const centre = sum / size;
  const half = (Z * Math.sqrt((squares + 1) / size - centre ** 2)) / Math.sqrt(size);
  const value = sum / n;
  return [value, Math.max(-1, Math.min(value, centre - half)), Math.min(1, Math.max(value, centre + half))];
}
/* Compares the codes of two entrants under every condition, and counts what cannot be paired. */
function comparison(which, first, second) {
  const n = which.n_images;
  const rows = [];
  const unlike = new Map();
  const alone = { A: [], B: [] };
  which.conditions.forEach((condition, c) => {
    const row = { condition, c, n_images: 0, n_trials: 0, first: 0, second: 0, images_for_first: 0, images_for_second: 0 };
    let [sum, squares, ofA, ofB] = [0, 0, 0, 0];
    for (let i = c * n; i < (c + 1) * n; i += 1) {
      const [a, b] = [trialsOf(first[i]), trialsOf(second[i])];
      ofA += a > 0;
      ofB += b > 0;
      if (!a || !b) continue;
      if (a !== b) {
        const key = `${a},${b}`;
        if (!unlike.has(key)) unlike.set(key, new Map());
        unlike.get(key).set(c, (unlike.get(key).get(c) || 0) + 1);
        continue;
      }
      const [k, l] = [countOf(first[i], a), countOf(second[i], b)];
      const difference = k / a - l / a;
      sum += difference;
      squares += difference ** 2;
      row.first += k / a;
      row.second += l / a;
      row.n_images += 1;
      row.n_trials = Math.max(row.n_trials, a);
      row.images_for_first += k > l;
      row.images_for_second += k < l;
    }
    if (ofA && !ofB) alone.A.push(c);
    if (ofB && !ofA) alone.B.push(c);
    if (!row.n_images) return;
    row.first /= row.n_images;
    row.second /= row.n_images;
    [row.difference, row.low, row.high] = pairedInterval(sum, squares, row.n_images);
    row.p = signTest(row.images_for_first, row.images_for_second);
    rows.push(row);
  });
  holm(rows.map((row) => row.p)).forEach((p, i) => { rows[i].p_holm = p; });
  const listed = (chosen) => chosen.map((c) => conditionText(which.conditions[c])).join(", ");
  const left = [...unlike].map(([key, counts]) => {
    const [a, b] = key.split(",");
    return `Left out, for A has ${a} and B ${b} trials of an image: ${[...counts].map(([c, count]) => `${conditionText(which.conditions[c])} (${count} images)`).join(", ")}.`;
  });
  for (const side of ["A", "B"]) if (alone[side].length) left.push(`Left out, for only ${side} was measured under it: ${listed(alone[side])}.`);
  return { rows, left };
}

const pair = () => ["a", "b"].map((key) => board().entrants.find((one) => one.id === state[key]));
let compared = null; /* What the section shows: the two entrants, their codes and the comparison. */

/* Fills the two lists of entrants; called once for each board. */
function listPairs(which) {
  for (const key of ["a", "b"]) options($(`pair-${key}`), [["", "choose …"], ...standing(which).map((one) => [one.id, clipped(label(one), 90)])], state[key]);
}
async function showCompare() {
  const which = board();
  const [a, b] = pair();
  for (const [key, one] of [["a", a], ["b", b]]) $(`pair-${key}`).value = one ? one.id : "";
  compared = null;
  $("pair-link").hidden = $("pair-swap").hidden = !a || !b;
  const say = (text) => { $("pairresult").hidden = true; $("pairstatus").textContent = text; };
  if (!a || !b) return say("");
  if (a === b) return say("An entrant is compared with itself: choose two.");
  say("Loading the outcomes of both …");
  const series = state.measure === "change" ? "change" : "accuracy";
  const wanted = JSON.stringify([which.id, a.id, b.id, series]);
  showCompare.wanted = wanted;
  try {
    const [images, first, second] = await Promise.all([loadImages(which), loadOutcomes(a, which, series), loadOutcomes(b, which, series)]);
    if (showCompare.wanted !== wanted) return undefined; /* The reader has chosen others meanwhile. */
    compared = { which, a, b, series, images, first, second, ...comparison(which, first, second) };
  } catch (error) {
    return say(error.message);
  }
  if (!compared.rows.length) return say("The two have no image in common under one condition with the same number of trials: nothing to pair.");
  $("pairresult").hidden = false;
  drawPairs();
  return undefined;
}

function drawPairs() {
  const { rows, left, a, b, series } = compared;
  const better = (row) => (row.p_holm >= ALPHA ? 0 : (series === "change" ? -1 : 1) * Math.sign(row.images_for_first - row.images_for_second));
  const [forA, forB] = [1, -1].map((sign) => rows.filter((row) => better(row) === sign).length);
  $("pairstatus").replaceChildren(`A is better under ${forA} of ${counted(rows.length, "condition")}, B under ${forB}; undecided: ${rows.length - forA - forB} (Holm’s correction, p < ${ALPHA}).`);
  $("pairnames").replaceChildren(...[["A", a], ["B", b]].flatMap(([side, one]) => [make("dt", null, side), make("dd", null, link(one))]));
  $("pairmeasure").textContent = series === "change" ? "Label change in %, and A − B with its interval, followed by the better one where Holm’s p is below 0.05. A more, B more: images whose label changes in more trials of the one." : "Accuracy in %, and A − B with its interval, followed by the better one where Holm’s p is below 0.05. A more, B more: images on which the one is right in more trials.";
  const extent = Math.max(0.01, ...rows.flatMap((row) => [Math.abs(row.low), Math.abs(row.high)]));
  const chosen = rows.find((row) => conditionKey(row.condition) === state.at) || rows[0];
  $("pairrows").replaceChildren(...rows.map((row) => pairRow(row, extent, row === chosen, better(row))));
  $("pairleft").replaceChildren(...left.map((text) => make("p", null, text)));
  drawPairImages(chosen);
}
function pairRow(row, extent, isChosen, better) {
  const at = (value) => `${50 + (50 * value) / extent}%`;
  const range = make("i");
  range.style.left = at(row.low);
  range.style.width = `${(50 * (row.high - row.low)) / extent}%`;
  const dot = make("b");
  dot.style.left = at(row.difference);
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
  const key = conditionKey(row.condition);
  const button = make("button", { type: "button", class: "quiet", "data-condition": key, "aria-pressed": String(isChosen), onclick: () => { state.at = key; update(); drawPairs(); [...document.querySelectorAll("[data-condition]")].find((one) => one.dataset.condition === key)?.focus(); } }, bdi(conditionText(row.condition)));
  const pText = (p) => (p < 1e-4 ? p.toExponential(1) : p.toPrecision(2));
  return make("tr", { class: isChosen ? "chosen" : null },
    make("th", { scope: "row", class: "name" }, button),
    make("td", null, make("span", { class: "value" }, `${signed(row.difference)}${better ? ` · ${better > 0 ? "A" : "B"}` : ""}`), make("span", { class: "bar zero", "aria-hidden": "true" }, range, dot), make("span", { class: "sub" }, `[${signed(row.low)}, ${signed(row.high)}]`)),
    ...[percent(row.first), percent(row.second), row.images_for_first, row.images_for_second, pText(row.p), `${pText(row.p_holm)}${row.p_holm < ALPHA ? " *" : ""}`, row.n_images, row.n_trials].map((text) => make("td", null, String(text))));
}
/* The images of one condition that are right, or change their label, in more trials of the one than of the other. */
function imagesFor(row, sign) {
  const { which, first, second, images } = compared;
  const found = [];
  for (let i = 0; i < which.n_images; i += 1) {
    const [x, y] = [first[row.c * which.n_images + i], second[row.c * which.n_images + i]];
    const trials = trialsOf(x);
    if (!trials || trials !== trialsOf(y)) continue;
    const [k, l] = [countOf(x, trials), countOf(y, trials)];
    if (sign * (k - l) > 0) found.push({ image_id: images.image_id[i], class_name: images.class_name[i], a: k, b: l, trials });
  }
  return found.sort((one, other) => Math.abs(other.a - other.b) / other.trials - Math.abs(one.a - one.b) / one.trials);
}
function drawPairImages(row) {
  const what = compared.series === "change" ? "the label changes in more trials" : "is right in more trials";
  $("pairimages").replaceChildren(...[["A", 1], ["B", -1]].map(([side, sign]) => {
    const found = imagesFor(row, sign);
    const list = found.slice(0, LISTED).map(({ image_id: id, class_name: name, a, b, trials }) => make("li", null, bdi(id), make("span", { class: "sub" }, name ? bdi(name) : null, trials > 1 ? `${name ? ", " : ""}A ${a} and B ${b} of ${trials}` : null)));
    if (found.length > LISTED) list.push(make("li", { class: "sub" }, `and ${found.length - LISTED} more`));
    const heading = row.n_trials === 1 ? (compared.series === "change" ? `Only ${side}’s label changes` : `Only ${side} is right`) : compared.series === "change" ? `${what} of ${side}` : `${side} ${what}`;
    return make("div", null, make("h3", null, `${heading}: ${counted(found.length, "image")}, `, bdi(conditionText(row.condition))), found.length ? make("ul", { class: "imagelist" }, ...list) : make("p", { class: "note" }, "None."));
  }));
}
for (const key of ["a", "b"]) $(`pair-${key}`).addEventListener("change", (event) => { state[key] = event.target.value; update(); });
$("pair-swap").addEventListener("click", () => { Object.assign(state, { a: state.b, b: state.a }); update(); });
$("pair-link").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; } catch { button.textContent = "The address above is the link"; }
});
