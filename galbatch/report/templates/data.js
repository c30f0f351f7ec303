// The page's numbers: JSON, and columns of float32 that are unpacked a band at a time, when it is looked at.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const columns = new Map(); // name -> Float32Array
const pictures = new Map(); // band -> base64 of each source's strip, "" where there is none
const unpacked = new Map(); // band -> promise
let sources = null; // { ids, status, flags, quality, ra, dec }

async function inflate(id) {
  const text = atob($(id).textContent), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackBand(band) {
  const raw = await inflate(`page-${band}`), n = sources.ids.length;
  data.pages[band].forEach(([name, base], c) => {
    const bytes = new Uint8Array(4 * n);
    for (let plane = 0, at = 4 * n * c; plane < 4; plane++) for (let i = 0; i < n; i++) bytes[4 * i + plane] = raw[at++];
    const values = new Float32Array(bytes.buffer), middle = columns.get(base);
    if (middle) for (let i = 0; i < n; i++) values[i] += middle[i];
    columns.set(name, values);
  });
  pictures.set(band, $(`strips-${band}`).textContent.split("\n"));
}

function page(band) {
  if (!unpacked.has(band)) unpacked.set(band, unpackBand(band));
  return unpacked.get(band);
}

// ---- words and numbers ----------------------------------------------------------------------------------
// Flags of a source; those that lower its grade with level 1.
const flagsOf = (i, level = 0) => data.flag_names.filter(([, bit, grave]) => grave >= level && Math.floor(sources.flags[i] / 2 ** bit) % 2).map(([name]) => name);
const value = (stem, i, band = state.band) => columns.get(`${stem}_${band}`)?.[i] ?? NaN;
const text = (number, digits = 3) => Number.isFinite(number) ? Number(number.toPrecision(digits)).toString() : "-";
const percent = (number) => Number.isFinite(number) ? `${Math.round(100 * number)}%` : "-";

function escaped(value) {
  return String(value).replace(/[&<>"'`]/g, (c) => `&#${c.charCodeAt(0)};`); // in text and in attributes
}

function withError(stem, i, band = state.band) {
  const [low, mid, high] = ["p16", "p50", "p84"].map((s) => value(`${stem}_${s}`, i, band));
  if (!Number.isFinite(mid)) return "-";
  if (!Number.isFinite(low) || !Number.isFinite(high)) return text(mid, 4);
  const error = Math.max(high - mid, mid - low);
  const digits = error > 0 ? Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(error)))) : 3;
  return `${mid.toFixed(digits)}<span class="pm"><span>+${(high - mid).toFixed(digits)}</span><span>−${(mid - low).toFixed(digits)}</span></span>`;
}
