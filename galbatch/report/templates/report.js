"use strict";
// The page's behaviour: themes, band, gallery (only the cards in view exist), preview and detail of a source.
window.galbatch = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const state = { band: data.bands[0], order: [], open: -1 };
  const column = (stem, i) => (data.columns[`${stem}_${state.band}`] || [])[i] ?? null;
  const flagsOf = (i) => data.flag_names.filter(([, bit]) => Math.floor(data.flags[i] / 2 ** bit) % 2).map(([name]) => name);
  const text = (value, digits = 3) => value === null ? "-" : Number(value).toPrecision(digits);

  function withError(stem, i) {
    const [low, mid, high] = ["p16", "p50", "p84"].map((s) => column(`${stem}_${s}`, i));
    if (mid === null) return "-";
    if (low === null || high === null) return text(mid, 4);
    const error = Math.max(high - mid, mid - low);
    const digits = error > 0 ? Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(error)))) : 3;
    return `${mid.toFixed(digits)}<span class="pm"><span>+${(high - mid).toFixed(digits)}</span><span>−${(mid - low).toFixed(digits)}</span></span>`;
  }

  function escaped(value) {
    return String(value).replace(/[&<>"'`]/g, (c) => `&#${c.charCodeAt(0)};`); // in text and in attributes
  }

  function strip(i) {
    const code = (data.strips[state.band] || [])[i];
    const label = escaped(`${data.panels.join(", ")} of source ${data.ids[i]}`);
    const n = Math.max(1, data.panels.length);
    const style = `style="aspect-ratio:${n} / 1"`;
    return code ? `<img class="strip" decoding="async" ${style} alt="${label}" src="data:image/webp;base64,${escaped(code)}">` : `<div class="strip" ${style}></div>`;
  }

  function lines(i) {
    const flags = flagsOf(i);
    return `<div class="line"><b>${escaped(data.ids[i])}</b><span class="flag">${data.status[i] === "ok" ? "" : escaped([data.status[i], ...flags].join(" "))}</span></div>
      <div class="line">mag ${withError("mag_ab", i)} &nbsp; r½ ${withError("r_half", i)}"</div>
      <div class="line">χ² ${text(column("chi2", i))} &nbsp; prior ${column("prior_driven_frac", i) === null ? "-" : Math.round(100 * column("prior_driven_frac", i)) + "%"} &nbsp; Gini ${withError("gini", i)}</div>`;
  }

  // ---- order and filter -----------------------------------------------------------------------------------------
  const keys = {
    row: (i) => i, flags: (i) => flagsOf(i).length + (data.status[i] === "failed" ? 100 : 0), chi2: (i) => column("chi2", i),
    size: (i) => column("r_half_p50", i), mag: (i) => column("mag_ab_p50", i), prior: (i) => column("prior_driven_frac", i),
  };

  function arrange() {
    const only = $("only").value, wanted = $("find").value.trim().toLowerCase(), sign = $("descending").checked ? -1 : 1;
    const key = keys[$("sort").value];
    const keep = (i) => (!only || (only.startsWith("flag:") ? flagsOf(i).includes(only.slice(5))
      : only.startsWith("quality:") ? column("quality", i) === Number(only.slice(8)) : data.status[i] === only))
      && (!wanted || String(data.ids[i]).toLowerCase().includes(wanted));
    const rows = data.ids.map((_, i) => i).filter(keep).map((i) => [key(i), i]);
    rows.sort(([a, i], [b, j]) => (a === null) - (b === null) || sign * (a - b) || i - j);
    state.order = rows.map(([, i]) => i);
    $("shown").textContent = `${state.order.length.toLocaleString("en")} of ${data.ids.length.toLocaleString("en")}`;
    layout();
  }

  // ---- the gallery: only rows in view are in the document ---------------------------------------------------------
  const grid = $("grid"), shape = { columns: 1, width: 0, height: 0, drawn: "" };
  const live = new Map(); // place in the order -> its card, for the places in view

  function layout() {
    const gap = 10, least = Math.max(300, Math.min(460, 64 * data.panels.length));
    shape.columns = Math.max(1, Math.floor((grid.clientWidth + gap) / (least + gap)));
    shape.width = (grid.clientWidth - gap * (shape.columns - 1)) / shape.columns;
    shape.height = (shape.width - 19) / Math.max(1, data.panels.length) + 80;
    grid.style.height = `${Math.ceil(state.order.length / shape.columns) * (shape.height + gap)}px`;
    shape.drawn = "";
    live.clear();
    grid.replaceChildren();
    draw();
  }

  function draw() {
    const gap = 10, step = shape.height + gap, top = grid.getBoundingClientRect().top;
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
    const i = state.order[n], gap = 10, card = document.createElement("button");
    card.type = "button";
    card.className = `card ${data.status[i]}`;
    card.dataset.row = i;
    card.style.cssText = `left:${(n % shape.columns) * (shape.width + gap)}px;top:${Math.floor(n / shape.columns) * (shape.height + gap)}px;width:${shape.width}px;height:${shape.height}px`;
    card.innerHTML = strip(i) + lines(i);
    return card;
  }

  // ---- preview and detail -----------------------------------------------------------------------------------------
  let fading = 0;
  function peek(i) {
    $("peek").innerHTML = strip(i) + lines(i);
    $("peek").hidden = false;
    clearTimeout(fading);
    fading = setTimeout(() => { $("peek").hidden = true; }, 2500);
  }

  function open(i) {
    state.open = i;
    const rows = data.quantities.map(([stem, label]) => `<tr><td>${escaped(label)}</td><td class="n">${withError(stem, i)}</td><td class="n">${text(column(`${stem}_obs`, i), 4)}</td></tr>`);
    const flags = flagsOf(i).map((name) => `<li><b>${escaped(name)}</b>: ${escaped(data.flag_text[name])}</li>`);
    $("detail-body").innerHTML = `<h3>Source ${escaped(data.ids[i])}, ${escaped(state.band)}, ${escaped(data.status[i])}</h3>
      <div class="titles">${data.panels.map((t) => `<span>${escaped(t)}</span>`).join("")}</div>${strip(i)}
      <p class="quiet">χ² per pixel ${text(column("chi2", i), 4)}, p = ${text(column("chi2_p", i), 2)}; larger: <code>galbatch show RUN ${escaped(data.ids[i])} --png source.png</code></p>
      ${flags.length ? `<ul>${flags.join("")}</ul>` : ""}
      <table><thead><tr><th>quantity</th><th class="n">posterior</th><th class="n">pixels</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
    $("peek").hidden = true;
    if (!$("detail").open) $("detail").showModal();
  }

  function step(by) {
    const at = state.order.indexOf(state.open);
    if (state.order.length) open(state.order[(Math.max(at, 0) + by + state.order.length) % state.order.length]);
  }

  // ---- theme and band ---------------------------------------------------------------------------------------------
  function paint() {
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim(), card = style.getPropertyValue("--card").trim();
    const changes = [["Axis", { axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: ink, major_tick_line_color: ink, minor_tick_line_color: null }],
      ["Grid", { grid_line_color: line }], ["Title", { text_color: ink }],
      ["Legend", { label_text_color: ink, background_fill_color: card, background_fill_alpha: 0.75, border_line_color: line }]];
    for (const doc of window.Bokeh?.documents ?? []) {
      for (const root of doc.roots()) {
        for (const model of root.references()) {
          for (const [kind, values] of changes) if (model.type.endsWith(kind)) model.setv(values);
        }
      }
    }
  }

  function theme(name) {
    document.documentElement.dataset.theme = name;
    paint();
  }

  function chooseBand(band) {
    state.band = band;
    for (const block of document.querySelectorAll(".planes")) block.hidden = block.dataset.band !== band;
    window.dispatchEvent(new Event("resize"));
    arrange();
  }

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  $("band").addEventListener("change", () => chooseBand($("band").value));
  for (const id of ["sort", "descending", "only"]) $(id).addEventListener("change", arrange);
  $("find").addEventListener("input", arrange);
  window.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  window.addEventListener("resize", layout);
  grid.addEventListener("click", (event) => { const card = event.target.closest(".card"); if (card) open(Number(card.dataset.row)); });
  $("close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  $("detail").addEventListener("keydown", (event) => { if (event.key === "ArrowRight") step(1); if (event.key === "ArrowLeft") step(-1); });
  for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  for (const link of document.querySelectorAll("[data-flag]")) link.addEventListener("click", () => { $("only").value = `flag:${link.dataset.flag}`; arrange(); });
  for (const link of document.querySelectorAll("[data-quality]")) link.addEventListener("click", () => { $("only").value = `quality:${link.dataset.quality}`; arrange(); });
  $("band").parentElement.hidden = data.bands.length < 2;
  const ready = setInterval(() => {
    if ((window.Bokeh?.documents ?? []).length) { clearInterval(ready); paint(); document.body.dataset.ready = "1"; }
  }, 50);
  chooseBand(state.band);
  return { peek, open, draw, state, data };
})();
