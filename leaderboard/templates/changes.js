"use strict";
/* What is other than in the version before. A page without earlier versions has no such section. */
function showChanges() {
  const changes = DATA.changes;
  $("changes").hidden = !changes;
  if (!changes) return;
  /* A kept version lies two folders below the newest page. */
  const top = /\/versions\/[^/]+\/[^/]*$/.test(location.pathname) ? "../../" : "";
  const link = (version) => make("a", { href: `${top}versions/${version}/index.html` }, version);
  const line = (one) => make("li", null, make("b", null, bdi(one.model)), one.defense === "none" ? "" : " + ", one.defense === "none" ? "" : bdi(shortDefense(one.defense)), " on ", bdi(one.dataset), ` ${one.text}`);
  const most = 100;
  const list = changes.entries.slice(0, most).map(line);
  if (changes.entries.length > most) list.push(make("li", null, `and ${changes.entries.length - most} more`));
  const others = changes.versions.flatMap((version, i) => (i ? [", ", link(version)] : [link(version)]));
  $("changelist").replaceChildren(
    make("p", { class: "caption" }, "Since ", link(changes.since), "; a rank is by mean degraded accuracy."),
    list.length ? make("ul", null, ...list) : make("p", null, "No entrant has another rank or value."),
    make("p", { class: "caption" }, "All versions: ", ...others, "; ", make("a", { href: `${top}feed.xml`, type: "application/atom+xml" }, "feed of changes"), "."));
}
showChanges();
