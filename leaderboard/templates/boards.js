"use strict";
/* The mean rank over several boards, of the entrants that are ranked on all of them. */
const rankNumber = (value) => String(Number(value.toFixed(2)));
function showBoardSummary() {
  const summary = DATA.board_summary;
  $("boards").hidden = !summary;
  if (!summary) return;
  const { entrants, left_out: leftOut } = summary;
  const which = summary.boards.map((id) => DATA.boards.find((one) => one.id === id));
  $("boardsscroll").hidden = !entrants.length;
  document.querySelector('[data-table="boards"]').hidden = !entrants.length;
  if (!entrants.length) {
    $("boardscaption").textContent = "No two entrants are ranked on the same two boards: there is no mean rank.";
    return;
  }
  $("boardscaption").replaceChildren(
    `Mean rank by mean degraded accuracy over ${which.length} boards, of the ${entrants.length} entrants that are ranked on all of them, counted among these alone; the 95 % interval is over resampled images, for these very boards. An entrant is a model with a defense, by name: its weights may be others on each board.`,
    leftOut ? ` Left out: ${counted(leftOut, "entrant")} ranked on other boards.` : "");
  $("boardshead").replaceChildren(make("tr", null, make("th", { scope: "col", class: "name" }, "Entrant"), make("th", { scope: "col" }, "Mean rank"), ...which.map((one) => make("th", { scope: "col" }, bdi(boardName(one))))));
  const span = [1, entrants.length];
  fillRows($("boardsrows"), entrants, (one) => make("tr", null,
    make("th", { scope: "row", class: "name" }, bdi(label(one))),
    meanRankCell(one.mean_rank, span),
    ...one.ranks.map((rank) => make("td", null, rankNumber(rank)))));
}
function meanRankCell([value, low, high], span) {
  const cell = make("td", null, make("span", { class: "value" }, rankNumber(value)));
  if (low !== null) cell.append(intervalBar([value, low, high], span), make("span", { class: "sub" }, `[${rankNumber(low)}–${rankNumber(high)}]`));
  return cell;
}
