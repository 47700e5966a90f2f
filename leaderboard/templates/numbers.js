"use strict";
/* Every table as CSV and JSON, and the SQL that makes it of the board's rows in the Parquet file beside the page. */
const bounds = (name, found) => ({ [name]: found ? found[0] : null, [`${name}_low`]: found ? found[1] : null, [`${name}_high`]: found ? found[2] : null });
const measureName = () => (state.measure === "change" ? "label_change" : "accuracy");
/* Levels beyond the strongest one are the texts inf and -inf, which JSON has no numbers for. */
const levelText = (value) => (Number.isFinite(value) ? value : value > 0 ? "inf" : "-inf");
const levelBounds = (name, found) => ({ [name]: found ? levelText(found.level) : null, [`${name}_low`]: found ? levelText(found.low) : null, [`${name}_high`]: found ? levelText(found.high) : null });
const named = (one) => ({ model: one.model, defense: one.defense });
/* The entrants that the search leaves, best first. */
function inOrder() {
  const visible = new Set(filtered());
  return standing(board()).filter((one) => visible.has(one));
}
const TABLES = {
  ranking: () => sorted(filtered()).map((one) => {
    const ranks = one.ranks[rankedBy()];
    const row = { rank_first: ranks ? ranks[0] : null, rank_last: ranks ? ranks[1] : null, ...named(one), architecture: one.architecture, family: one.family, images: one.images, comparable: one.comparable, device: one.device };
    for (const column of COLUMNS) if (column.name !== "model" && isMeasured(column)) Object.assign(row, bounds(column.name, one.stats[column.name]));
    return row;
  }),
  tradeoff: () => {
    const [x, y] = [axisColumn("x"), axisColumn("y")];
    if (!x || !y) return [];
    const entrants = filtered().filter((one) => one.stats[x.name] && one.stats[y.name]);
    const front = new Set(frontOf(entrants, x, y));
    return entrants.map((one) => ({ ...named(one), family: one.family, ...bounds(x.name, one.stats[x.name]), ...bounds(y.name, one.stats[y.name]), on_front: front.has(one) }));
  },
  conditions: () => inOrder().flatMap((one) => board().conditions.flatMap(({ degradation, level }, i) => (one.accuracy[i] || one.change[i] ? [{ ...named(one), degradation, level, ...bounds("accuracy", one.accuracy[i]), ...bounds("label_change", one.change[i]) }] : []))),
  heat: () => inOrder().flatMap((one) => Object.entries(one.by_degradation).map(([degradation, [accuracy, change]]) => ({ ...named(one), degradation, accuracy, label_change: change }))),
  fragile: () => standing(board()).flatMap((one) => one.fragile.map(([image, name, share]) => ({ ...named(one), image_id: image, class_name: name, label_change: share }))),
  decisions: () => {
    const which = board();
    if (!which.decisions) return [];
    const sweeps = which.degradations.flatMap((name) => sweepsOf(which, name));
    const failures = (one, sweep) => Object.assign({}, ...CRITERIA.map(([criterion]) => levelBounds(`${criterion}_level`, failurePoint(one, criterion, sweep))));
    return inOrder().flatMap((one) => sweeps.map((sweep) => ({ ...named(one), degradation: sweep.degradation, direction: sweep.direction, ...failures(one, sweep) })));
  },
  boards: () => (DATA.board_summary ? DATA.board_summary.entrants.flatMap((one) => one.ranks.map((rank, i) => {
    const { dataset, protocol } = DATA.boards.find((other) => other.id === DATA.board_summary.boards[i]);
    return { ...named(one), ...bounds("mean_rank", one.mean_rank), dataset, protocol, rank };
  })) : []),
  selective: () => inOrder().flatMap((one) => board().conditions.flatMap(({ degradation, level }, i) => (one.selective && one.selective[i] ? [{ ...named(one), degradation, level, aurc: one.selective[i][0], accuracy_at_90: one.selective[i][1] }] : []))),
  compare: () => (compared ? compared.rows.map(({ condition, ...row }) => ({ degradation: condition.degradation, level: condition.level, ...Object.fromEntries(["n_images", "n_trials", "first", "second", "difference", "low", "high", "images_for_first", "images_for_second", "p", "p_holm"].map((name) => [name, row[name]])) })) : []),
  images: () => (compared ? compared.rows.flatMap((row) => [["A", 1], ["B", -1]].flatMap(([side, sign]) => imagesFor(row, sign).map((one) => ({ degradation: row.condition.degradation, level: row.condition.level, more: side, ...one })))) : []),
  classes: () => (galleryEntry() ? [...galleryEntry().least_classes, ...[...galleryEntry().most_classes].reverse()].map(({ class_name, share, images }) => ({ ...named(galleryEntry()), class_name, label_change: share, images })) : []),
  transitions: () => (galleryEntry() ? galleryEntry().becomes.map((row) => ({ ...named(galleryEntry()), ...row })) : []),
};
const TITLES = { ranking: "Ranking", tradeoff: "Trade-offs", conditions: "Every condition", heat: "Entrant × degradation", fragile: "Most fragile images", decisions: "Failure points", selective: "Most confident predictions", boards: "Mean ranks over boards", compare: "Comparison", images: "Images of one alone", classes: "Least and most affected classes", transitions: "What the label becomes" };

/* RFC 4180: a field with a comma, a quote or a line break is quoted, and absent values are empty. */
function csv(rows) {
  const field = (value) => (value === null || value === undefined ? "" : /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const keys = Object.keys(rows[0] || {});
  return [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((cells) => `${cells.map(field).join(",")}\r\n`).join("");
}
function json(table, rows) {
  const { dataset, protocol } = board();
  const pairOf = ["compare", "images"].includes(table) && compared ? { first: named(compared.a), second: named(compared.b), measure: measureName() } : {};
  return `${JSON.stringify({ table, dataset, protocol, built: DATA.built, ...pairOf, rows }, null, 1)}\n`;
}
function download(table, kind) {
  const rows = TABLES[table]();
  const text = kind === "csv" ? csv(rows) : json(table, rows);
  const address = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  const file = `${board().dataset.replace(/[^\w-]+/g, "_").slice(0, 60)}-${table}.${kind}`;
  make("a", { href: address, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
const quoted = (text) => `'${String(text).replaceAll("'", "''")}'`;
const rowsFile = () => `data/${board().id}.parquet`;
function sql(table) {
  const [a, b] = pair();
  const values = { file: rowsFile(), measure: measureName(), ...(a && b ? { model_a: a.model, defense_a: a.defense, model_b: b.model, defense_b: b.defense } : {}) };
  return DATA.sql[table].replace(/\$(\w+)/g, (whole, name) => (name in values ? quoted(values[name]) : whole));
}
for (const bar of document.querySelectorAll("[data-table]")) {
  const { table } = bar.dataset;
  const kinds = [["csv", "CSV"], ["json", "JSON"]].map(([kind, text]) => make("button", { type: "button", class: "quiet", "data-take": `${table}.${kind}`, "aria-label": `${TITLES[table]}: download as ${text}`, onclick: () => download(table, kind) }, text));
  bar.append(...kinds);
  if (!DATA.sql[table]) continue;
  const text = make("pre", { tabindex: "0", role: "region", "aria-label": `${TITLES[table]}: SQL` });
  const copy = make("button", { type: "button", onclick: async (event) => {
    try { await navigator.clipboard.writeText(text.textContent); event.target.textContent = "Copied"; } catch { getSelection().selectAllChildren(text); }
  } }, "Copy");
  const note = make("p", { class: "caption" }, "For DuckDB, in the folder of this page.");
  const shownText = make("div", { class: "sqltext", hidden: "" }, make("div", { class: "command" }, text, copy), note);
  const toggle = make("button", { type: "button", class: "quiet", "data-take": `${table}.sql`, "aria-expanded": "false", "aria-label": `${TITLES[table]}: show the SQL`, onclick: () => {
    shownText.hidden = !shownText.hidden;
    toggle.setAttribute("aria-expanded", String(!shownText.hidden));
    copy.textContent = "Copy";
    text.textContent = shownText.hidden ? "" : sql(table);
  } }, "SQL");
  bar.append(toggle);
  if (table === "ranking") bar.append(make("a", { id: "parquet", class: "button", download: "" }, "Rows as Parquet"));
  bar.after(shownText);
}
/* Points to the board's own file, and takes back SQL that was made for other entrants or another board. */
function showNumbers() {
  $("parquet").setAttribute("href", rowsFile());
  for (const toggle of document.querySelectorAll("[aria-expanded=true][data-take]")) toggle.click();
}
