"use strict";
/* The outcomes of an entrant per image lie in a script beside the page, which is loaded when they are first needed: a page
   that was opened from disk may load scripts and nothing else. */
const arrived = new Map();
const requested = new Map();
function receive(id, content) { arrived.set(id, content); }

function loadScript(id) {
  if (!requested.has(id)) {
    requested.set(id, new Promise((resolve, reject) => {
      const script = make("script", { src: `data/${id}.js` });
      script.addEventListener("load", () => (arrived.has(id) ? resolve(arrived.get(id)) : reject(new Error(`The file data/${id}.js is empty: build the page again.`))));
      script.addEventListener("error", () => { requested.delete(id); reject(new Error(`The file data/${id}.js is not beside this page: copy the folder data of the build too.`)); });
      document.head.append(script);
    }));
  }
  return requested.get(id);
}
async function loadBeside(id, which) {
  const content = await loadScript(id);
  if (content.key !== which.key) throw new Error(`The file data/${id}.js belongs to another build: load the page again.`);
  return content;
}
const loadImages = (which) => loadBeside(which.id, which);

async function unpacked(text, bytesOfCode) {
  if (typeof DecompressionStream === "undefined") throw new Error("This browser cannot unpack the outcomes: one of 2023 or later can.");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const buffer = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  if (bytesOfCode === 1) return new Uint8Array(buffer);
  const view = new DataView(buffer);
  return bytesOfCode === 2
    ? Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true))
    : Uint32Array.from({ length: buffer.byteLength / 4 }, (_, i) => view.getUint32(4 * i, true));
}
/* One code for each condition and image, condition by condition: n(n + 1)/2 + k for k of n trials, 0 where there is none. */
async function loadOutcomes(one, which, series) {
  const content = await loadBeside(`${which.id}-${one.id}`, which);
  const name = `codes_${series}`;
  if (!content[name]) content[name] = unpacked(content[series], content[`${series}_bytes`]);
  return content[name];
}
const trialsOf = (code) => Math.floor((Math.sqrt(8 * code + 1) - 1) / 2);
const countOf = (code, trials) => code - (trials * (trials + 1)) / 2;
