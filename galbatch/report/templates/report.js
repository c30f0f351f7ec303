// The selection that charts, table and gallery share: what lies in every box and passes every filter.
const state = { band: data.bands[0], grade: new Uint8Array(0), keep: new Uint8Array(0), order: [], sort: 0, descending: false, filters: {}, open: -1, page: 0 };
// Grade of a source in a band; state.grade holds that of all in the band shown.
const gradeOf = (i, band = state.band) => { const q = value("quality", i, band); return Number.isFinite(q) ? q : sources.quality[i]; };

function onlyTest(only) {
  const [kind, what] = only.split(":");
  if (kind === "flag") { const bit = data.flag_names.find(([name]) => name === what)[1]; return (i) => Math.floor(sources.flags[i] / 2 ** bit) % 2 === 1; }
  if (kind === "all") return (i) => sources.quality[i] === Number(what);
  if (kind === "quality") return (i) => state.grade[i] === Number(what);
  return (i) => sources.status[i] === kind;
}

function arrange() {
  const n = sources.ids.length, only = $("only").value, tests = tableTests();
  if (only) tests.push(onlyTest(only));
  for (const chart of charts) if (chart.box) tests.push((i) => inBox(chart, i));
  state.keep = new Uint8Array(n);
  const rows = [];
  for (let i = 0; i < n; i++) {
    let keep = 1;
    for (const test of tests) if (!test(i)) { keep = 0; break; }
    state.keep[i] = keep;
    if (keep) rows.push(i);
  }
  if (state.sort || state.descending) {
    const number = FIELDS[state.sort][1], keys = new Float64Array(n), sign = state.descending ? -1 : 1;
    for (const i of rows) keys[i] = number(i);
    rows.sort((i, j) => Number.isNaN(keys[i]) - Number.isNaN(keys[j]) || sign * (keys[i] - keys[j]) || i - j);
  }
  state.order = rows;
  state.page = 0;
  $("shown").textContent = `${rows.length.toLocaleString("en")} of ${n.toLocaleString("en")} sources selected`;
  $("clear").disabled = !tests.length;
  layout();
  drawTable();
  charts.forEach(drawChart);
}

function clearAll() {
  for (const chart of charts) chart.box = null;
  state.filters = {};
  for (const input of $("filters").querySelectorAll("input")) input.value = "";
  $("only").value = "";
  arrange();
}

// ---- the plots -----------------------------------------------------------------------------------------------
const of = (stem) => (i) => value(stem, i);
const axis = (stem, label, more = {}) => ({ of: of(`${stem}_p50`), stem, label, ...more });

function skyAxes() {
  const finite = sources.ra.map((_, i) => i).filter((i) => Number.isFinite(sources.ra[i]) && Number.isFinite(sources.dec[i]));
  const first = finite[0] ?? 0, turn = (ra) => ((ra - sources.ra[first] + 540) % 360) - 180; // no seam at 0 h
  const mean = (f) => finite.reduce((sum, i) => sum + f(i), 0) / Math.max(1, finite.length);
  const ra0 = mean((i) => turn(sources.ra[i])), dec0 = mean((i) => sources.dec[i]), cos = Math.cos(dec0 * Math.PI / 180);
  const reach = Math.max(0, ...finite.map((i) => Math.max(Math.abs(turn(sources.ra[i]) - ra0) * cos, Math.abs(sources.dec[i] - dec0))));
  const [unit, per] = reach > 0.5 ? ["deg", 1] : reach > 0.02 ? ["arcmin", 60] : ["arcsec", 3600];
  return {
    x: { of: (i) => (turn(sources.ra[i]) - ra0) * cos * per, flip: true, label: `east of ${text((ra0 + sources.ra[first] + 360) % 360, 7)} deg [${unit}]` },
    y: { of: (i) => (sources.dec[i] - dec0) * per, label: `north of ${text(dec0, 6)} deg [${unit}]` },
  };
}

function buildCharts() {
  if (sources.ra.some(Number.isFinite)) makeChart({ title: "On the sky", sky: true, ...skyAxes() });
  makeChart({ title: "Size-magnitude", x: axis("mag_ab", "magnitude [AB]"), y: axis("r_half", "half-light radius [arcsec]", { log: true }) });
  makeChart({
    title: "Gini-M20", x: axis("m20", "M20", { flip: true }), y: axis("gini", "Gini"),
    lines: [[0, 0.33, -3, 0.75, false], [-1.68, 0.565, -3, 0.38, true]],
    note: "mergers above the solid line, E to Sa above the dashed one (Lotz et al. 2008)",
  });
  makeChart({ title: "Concentration-asymmetry", x: axis("concentration", "concentration C"), y: axis("asymmetry", "asymmetry A"), lines: [[0, 0.35, 9, 0.35, true]], note: "mergers above the line (Conselice 2003)" });
  const against = { title: "Posterior against pixels", x: {}, y: {}, lines: [] };
  const chart = makeChart(against), choice = $("against");
  chart.caption.append(" of ", choice.parentElement);
  choice.addEventListener("change", () => { against.set(); place(chart); arrange(); });
  against.set = () => {
    const log = choice.value === "r_half", name = choice.selectedOptions[0].textContent;
    chart.x = { of: of(`${choice.value}_obs`), label: `${name}, on the pixels`, log };
    chart.y = axis(choice.value, `${name}, posterior`, { log });
    const all = [...rangeOf(chart.x, sources.ids.length), ...rangeOf(chart.y, sources.ids.length)];
    const ends = [Math.min(...all), Math.max(...all)].map((v) => log ? 10 ** v : v);
    chart.x.range = chart.y.range = ends;
    chart.lines = [[ends[0], ends[0], ends[1], ends[1], false]];
    chart.box = null;
  };
  chart.before = against.set;
  makeChart({ title: "chi2 per pixel", x: { of: of("chi2"), label: "chi2 per pixel (line: noise alone)", range: [0.5, 1.5] }, lines: [[1, null, 1, null, true]] });
  makeChart({ title: "p-value of chi2", x: { of: of("chi2_p"), label: "p-value (flat if only noise remains, plus 25% at 1)", range: [0, 1] } });
  makeChart({ title: "Prior-dominated light", x: { of: of("prior_driven_frac"), label: "share of the light that is prior-dominated", range: [0, 1] } });
  for (const made of charts) if (made.note) { const note = document.createElement("span"); note.className = "quiet"; note.textContent = ` ${made.note}`; made.caption.append(note); }
}

function placeAll() {
  for (const chart of charts) { chart.before?.(); place(chart); }
}

async function chooseBand(band) {
  await page(band);
  state.band = $("band").value = band;
  state.grade = Uint8Array.from(sources.ids, (_, i) => gradeOf(i));
  placeAll();
  arrange();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  if (sources) charts.forEach(drawChart);
}

async function begin() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  sources = JSON.parse(new TextDecoder().decode(await inflate("sources")));
  for (const key of ["ra", "dec"]) sources[key] = sources[key].map((x) => x ?? NaN);
  await page(state.band);
  buildCharts();
  buildTable();
  $("band").addEventListener("change", () => chooseBand($("band").value));
  $("only").addEventListener("change", arrange);
  $("clear").addEventListener("click", clearAll);
  $("download").addEventListener("click", download);
  window.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  window.addEventListener("resize", () => { charts.forEach(place); layout(); charts.forEach(drawChart); });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-row]"), only = event.target.closest("[data-only]");
    if (row) open(Number(row.dataset.row));
    if (only) { $("only").value = only.dataset.only; chooseBand(only.dataset.band || state.band); $("explore").scrollIntoView(); }
  });
  $("close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  $("detail").addEventListener("keydown", (event) => { if (event.key === "ArrowRight") step(1); if (event.key === "ArrowLeft") step(-1); });
  for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  $("band").parentElement.hidden = data.bands.length < 2;
  await chooseBand(state.band);
  document.body.dataset.ready = "1";
}

window.galbatch = { peek, open, draw, state, data, charts, columns, arrange, csv, place, boxOf, sources: () => sources };
begin();
