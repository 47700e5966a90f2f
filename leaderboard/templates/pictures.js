"use strict";
/* The gallery that `cnnsens-bench pictures` has made. Its script lies beside the page and is loaded when the section comes
   near the window. */
let gallery = null;
let galleryLoading = null;
function receivePictures(content) { gallery = content; }
function loadGallery() {
  galleryLoading = galleryLoading || new Promise((resolve, reject) => {
    const script = make("script", { src: `${DATA.pictures}/gallery.js` });
    script.addEventListener("load", () => (gallery ? resolve() : reject(new Error(`The file ${DATA.pictures}/gallery.js is empty: make it again with cnnsens-bench pictures.`))));
    script.addEventListener("error", () => { galleryLoading = null; reject(new Error(`The file ${DATA.pictures}/gallery.js is not beside this page: copy the folder ${DATA.pictures} too.`)); });
    document.head.append(script);
  });
  return galleryLoading;
}
const galleryKey = (dataset, protocol, model, defense, weights) => JSON.stringify([dataset, protocol, model, defense, weights]);
/* What the gallery has of the entrants of a board, by their ids, best entrant first. */
function galleryOf(which) {
  const found = new Map(gallery.entrants.map((one) => [galleryKey(one.dataset, one.protocol, one.model, one.defense, one.weights), one]));
  return new Map(standing(which).map((one) => [one, found.get(galleryKey(which.dataset, which.protocol, one.network, one.defense, one.weights))]).filter(([, images]) => images));
}
/* The images of the entrant that is chosen, or of the best one that the gallery has. */
function galleryEntry() {
  if (!gallery) return null;
  const shownHere = [...galleryOf(board())];
  return (shownHere.find(([one]) => one.id === state.images) || shownHere[0] || [null, null])[1];
}

let galleryNear = false;
async function showPictures() {
  if (!DATA.pictures || !galleryNear) return;
  try {
    await loadGallery();
    drawGallery(board());
  } catch (error) {
    $("gallery").hidden = $("galleryresult").hidden = true;
    $("gallerystatus").textContent = error.message;
  }
}
function drawGallery(which) {
  const found = galleryOf(which);
  const entry = galleryEntry();
  $("gallery").hidden = $("galleryresult").hidden = !entry;
  const without = which.entrants.length - found.size;
  if (!entry) {
    $("gallerystatus").textContent = "The gallery has no entrant of this board: cnnsens-bench pictures says why it leaves one out.";
    return;
  }
  const chosen = [...found].find(([, images]) => images === entry)[0];
  options($("gallery-entrant"), [...found.keys()].map((one) => [one.id, clipped(label(one))]), chosen.id);
  $("gallerystatus").textContent = without ? `The gallery lacks ${counted(without, "entrant")} of this board.` : "";
  for (const [list, images, none] of [["gallerymost", entry.most, "No label changed."], ["galleryleast", entry.least, "All images are among the most fragile."]]) {
    $(list).classList.toggle("single", images.every((image) => !image.degraded.length));
    $(list).replaceChildren(...(images.length ? images.map(shot) : [make("li", { class: "note" }, none)]));
  }
  const share = (row) => make("td", null, `${percent(row.share)} %`);
  for (const [rows, classes] of [["galleryspared", entry.least_classes], ["galleryaffected", entry.most_classes]]) {
    $(rows).replaceChildren(...classes.map((row) => make("tr", null, make("td", { class: "text" }, name(row.class_name)), share(row), make("td", null, String(row.images)))));
  }
  $("gallerybecomes").replaceChildren(...entry.becomes.map((row) => make("tr", null, make("td", { class: "text" }, name(row.before)), make("td", { class: "text" }, name(row.after)), share(row), make("td", null, String(row.images)))));
}
/* An image: undegraded, and as it was when its label changed. */
function shot(image) {
  const frame = (picture, under, given, right) => make("figure", { style: `max-width: ${gallery.side}px` },
    picture ? still(picture, `${image.image_id}, ${under}`) : make("p", { class: "absent" }, "no picture"),
    make("figcaption", null, make("span", { class: "sub" }, name(under)), name(given), make("span", { class: "sub" }, right ? "right" : "wrong")));
  const changes = image.degraded.map((one) => frame(one.picture, conditionText(one), one.after, one.right));
  const sentence = image.changes ? `${percent(image.share)} %: ${image.changes} of ${counted(image.cells, "label")} changed` : `none of ${counted(image.cells, "label")} changed`;
  return make("li", null, make("p", null, make("b", null, bdi(image.image_id)), make("span", { class: "sub" }, bdi(image.class_name), `, ${sentence}`)), make("div", { class: "frames" }, frame(image.picture, "undegraded", image.before, image.right), ...changes));
}
function still(picture, text) {
  const image = make("img", { src: `${DATA.pictures}/${picture}`, alt: text, width: gallery.side, height: gallery.side, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(make("p", { class: "absent" }, "not beside this page")));
  return image;
}

$("section-pictures").hidden = !DATA.pictures;
new IntersectionObserver((entries, observer) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  observer.disconnect();
  galleryNear = true;
  showPictures();
}, { rootMargin: "700px 0px" }).observe($("section-pictures"));
$("gallery-entrant").addEventListener("change", (event) => { state.images = event.target.value; update(); });
