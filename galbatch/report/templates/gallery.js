// Pictures: cards of the selection (only rows in view are in the document), a preview, and all of one source.
const grid = $("grid"), shape = { columns: 1, width: 0, height: 0, drawn: "" }, GAP = 10;
const live = new Map(); // place in the order -> its card, for the places in view

function strip(i, band = state.band) {
  const code = pictures.get(band)?.[i], n = Math.max(1, data.panels.length), style = `style="aspect-ratio:${n} / 1"`;
  const label = escaped(`${data.panels.join(", ")} of source ${sources.ids[i]} in ${band}`);
  return code ? `<img class="strip" decoding="async" ${style} alt="${label}" src="data:image/webp;base64,${escaped(code)}">` : `<span class="strip" ${style}></span>`;
}

function lines(i) {
  const grade = gradeOf(i), flags = flagsOf(i, 1).join(" ");
  return `<span class="line"><b>${escaped(sources.ids[i])}</b><span class="flag">${escaped(grade ? `${data.grades[grade]} ${flags}` : "")}</span></span>
    <span class="line">mag ${withError("mag_ab", i)} &nbsp; r½ ${withError("r_half", i)}"</span>
    <span class="line">χ² ${text(value("chi2", i))} &nbsp; prior ${percent(value("prior_driven_frac", i))} &nbsp; Gini ${withError("gini", i)}</span>`;
}

function layout() {
  const least = Math.max(300, Math.min(460, 64 * data.panels.length));
  shape.columns = Math.max(1, Math.floor((grid.clientWidth + GAP) / (least + GAP)));
  shape.width = (grid.clientWidth - GAP * (shape.columns - 1)) / shape.columns;
  shape.height = (shape.width - 19) / Math.max(1, data.panels.length) + 80;
  grid.style.height = `${Math.ceil(state.order.length / shape.columns) * (shape.height + GAP)}px`;
  shape.drawn = "";
  live.clear();
  grid.replaceChildren();
  draw();
}

function draw() {
  const step = shape.height + GAP, top = grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / step) - 2), last = Math.ceil((window.innerHeight - top) / step) + 2;
  const start = first * shape.columns, stop = Math.min(state.order.length, Math.max(0, last) * shape.columns);
  if (shape.drawn === `${start}-${stop}`) return;
  shape.drawn = `${start}-${stop}`;
  for (const [n, card] of live) if (n < start || n >= stop) { card.remove(); live.delete(n); }
  for (let n = stop - 1, next = null; n >= start; n--) {
    if (!live.has(n)) live.set(n, grid.insertBefore(makeCard(n), next));
    next = live.get(n);
  }
}

function makeCard(n) {
  const i = state.order[n], card = document.createElement("button");
  card.type = "button";
  card.className = `card grade${gradeOf(i)}`;
  card.dataset.row = i;
  card.style.cssText = `left:${(n % shape.columns) * (shape.width + GAP)}px;top:${Math.floor(n / shape.columns) * (shape.height + GAP)}px;width:${shape.width}px;height:${shape.height}px`;
  card.innerHTML = strip(i) + lines(i);
  return card;
}

let fading = 0;
function peek(i) {
  $("peek").innerHTML = strip(i) + lines(i);
  $("peek").hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { $("peek").hidden = true; }, 2500);
}

// The position, and links to viewers of surveys: the one thing here that needs a network, and only when it is clicked.
function viewers(i) {
  const ra = sources.ra[i], dec = sources.dec[i];
  if (!Number.isFinite(ra) || !Number.isFinite(dec)) return "";
  const pages = [
    ["Aladin Lite", `https://aladin.cds.unistra.fr/AladinLite/?target=${ra}%20${dec}&fov=0.02`],
    ["Legacy Surveys", `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&zoom=16`],
    ["ESASky", `https://sky.esa.int/?target=${ra}%20${dec}&fov=0.02`],
  ];
  const links = pages.map(([name, url]) => `<a target="_blank" rel="noopener noreferrer" href="${escaped(url)}">${escaped(name)}</a>`);
  return `ra ${escaped(ra)}, dec ${escaped(dec)} deg. On the sky (needs a network): ${links.join(", ")}. `;
}

async function open(i) {
  state.open = i;
  await Promise.all(data.bands.map(page));
  const of = (band, stem) => `<td class="n">${withError(stem, i, band)}</td><td class="n quiet">${text(value(`${stem}_obs`, i, band), 4)}</td>`;
  const rows = data.quantities.map(([stem, label]) => `<tr><th scope="row">${escaped(label)}</th>${data.bands.map((band) => of(band, stem)).join("")}</tr>`);
  const strips = data.bands.map((band) => `<h4>${escaped(band)}: ${escaped(data.grades[gradeOf(i, band)])}, χ² per pixel ${text(value("chi2", i, band), 4)} (p = ${text(value("chi2_p", i, band), 2)}), ${percent(value("prior_driven_frac", i, band))} of the light prior-dominated</h4>${strip(i, band)}`);
  const flags = flagsOf(i).map((name) => `<li><b>${escaped(name)}</b>: ${escaped(data.flag_text[name])}</li>`);
  const heads = data.bands.map((band) => `<th scope="col" class="n">${escaped(band)}</th><th scope="col" class="n quiet">pixels</th>`);
  $("detail-body").innerHTML = `<h3 id="detail-title">Source ${escaped(sources.ids[i])}: ${escaped(data.grades[sources.quality[i]])}</h3>
    <p class="quiet">${viewers(i)}Larger: <code>galbatch show RUN ${escaped(sources.ids[i])} --png source.png</code></p>
    <div class="titles">${data.panels.map((t) => `<span>${escaped(t)}</span>`).join("")}</div>${strips.join("")}
    ${flags.length ? `<ul>${flags.join("")}</ul>` : ""}
    <div class="scroll" tabindex="0"><table><thead><tr><th scope="col">posterior with 68% interval, and on the pixels</th>${heads.join("")}</tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
  $("peek").hidden = true;
  if (!$("detail").open) $("detail").showModal();
}

function step(by) {
  const at = state.order.indexOf(state.open);
  if (state.order.length) open(state.order[(Math.max(at, 0) + by + state.order.length) % state.order.length]);
}
