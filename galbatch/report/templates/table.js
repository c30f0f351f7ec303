// The table of the selection: a click on a heading sorts, a text under it filters, 25 rows to a page.
const ROWS = 25;
const FIELDS = [ // heading, number to sort and filter by, text of the cell, what the heading means
  ["source", (i) => i, null, "source id"],
  ["grade", (i) => gradeOf(i), (i) => data.grades[gradeOf(i)], "0 good, 1 caution, 2 do not use"],
  ["mag", (i) => value("mag_ab_p50", i), (i) => withError("mag_ab", i), "magnitude, AB"],
  ["r½", (i) => value("r_half_p50", i), (i) => withError("r_half", i), "half-light radius, arcsec"],
  ["C", (i) => value("concentration_p50", i), (i) => withError("concentration", i), "concentration"],
  ["A", (i) => value("asymmetry_p50", i), (i) => withError("asymmetry", i), "asymmetry"],
  ["Gini", (i) => value("gini_p50", i), (i) => withError("gini", i), "Gini coefficient"],
  ["M20", (i) => value("m20_p50", i), (i) => withError("m20", i), "M20"],
  ["n", (i) => value("sersic_n_p50", i), (i) => withError("sersic_n", i), "Sersic index"],
  ["χ²", (i) => value("chi2", i), (i) => text(value("chi2", i)), "chi2 per pixel"],
  ["prior %", (i) => 100 * value("prior_driven_frac", i), (i) => percent(value("prior_driven_frac", i)), "prior-dominated light, per cent"],
];

// "<24", ">=0.5", "20..24", "=1" and "24": a test of a number; null where there is nothing to test, undefined for no sense.
function testOf(words) {
  const said = words.replace(/\s+/g, ""), number = "(-?\\d+\\.?\\d*|-?\\.\\d+)";
  if (!said) return null;
  let found = said.match(new RegExp(`^${number}\\.\\.${number}$`));
  if (found) return (x) => x >= Number(found[1]) && x <= Number(found[2]);
  found = said.match(new RegExp(`^(<=|>=|<|>|=|)${number}$`));
  if (!found) return undefined;
  const limit = Number(found[2]);
  return { "<": (x) => x < limit, ">": (x) => x > limit, "<=": (x) => x <= limit, ">=": (x) => x >= limit }[found[1]] ?? ((x) => x === limit);
}

function buildTable() {
  const heads = $("heads"), filters = $("filters");
  FIELDS.forEach(([name, , , about], f) => {
    const head = document.createElement("th"), button = document.createElement("button"), cell = document.createElement("td"), input = document.createElement("input");
    head.scope = "col";
    button.type = "button";
    button.textContent = name;
    button.title = `${about}; click to sort`;
    button.addEventListener("click", () => sortBy(f));
    head.append(button);
    heads.append(head);
    input.type = "search";
    input.placeholder = f ? "<, >, a..b" : "part of id";
    input.setAttribute("aria-label", f ? `keep ${about}: such as <24, >0.5 or 20..24` : "keep ids that contain");
    if (!f) input.id = "find";
    input.addEventListener("input", () => { state.filters[f] = input.value; arrange(); });
    cell.append(input);
    filters.append(cell);
  });
  for (const [id, by] of [["before", -1], ["after", 1]]) $(id).addEventListener("click", () => { state.page += by; drawTable(); });
}

// Tests of all filters that make sense: [number of a row, test]. A filter that makes none is marked.
function tableTests() {
  const tests = [];
  FIELDS.forEach(([, number], f) => {
    const words = state.filters[f] ?? "", wanted = words.trim().toLowerCase(), input = $("filters").children[f].firstChild;
    if (!f) { if (wanted) tests.push((i) => sources.ids[i].toLowerCase().includes(wanted)); return; }
    const test = testOf(words);
    input.setAttribute("aria-invalid", test === undefined);
    if (test) tests.push((i) => test(number(i)));
  });
  return tests;
}

function sortBy(f) {
  state.descending = state.sort === f ? !state.descending : false;
  state.sort = f;
  arrange();
}

function drawTable() {
  const pages = Math.max(1, Math.ceil(state.order.length / ROWS));
  state.page = Math.min(pages - 1, Math.max(0, state.page));
  const shown = state.order.slice(state.page * ROWS, (state.page + 1) * ROWS);
  $("rows").innerHTML = shown.map((i) => {
    const cells = FIELDS.slice(1).map(([, , cell]) => `<td class="n">${cell(i)}</td>`).join("");
    return `<tr class="grade${gradeOf(i)}"><th scope="row"><button type="button" data-row="${i}">${escaped(sources.ids[i])}</button></th>${cells}</tr>`;
  }).join("");
  FIELDS.forEach((_, f) => $("heads").children[f].setAttribute("aria-sort", state.sort !== f ? "none" : state.descending ? "descending" : "ascending"));
  $("pages").textContent = `page ${state.page + 1} of ${pages.toLocaleString("en")}`;
  $("before").disabled = state.page === 0;
  $("after").disabled = state.page === pages - 1;
}

// CSV of the selection: positions, grades, flags and all numbers of the page, in every band.
async function csv() {
  await Promise.all(data.bands.map(page));
  const names = data.bands.flatMap((band) => data.pages[band].map(([name]) => name));
  const quoted = (s) => /[",\n\r]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s;
  const number = (x) => Number.isFinite(x) ? x : "";
  const row = (i) => [quoted(sources.ids[i]), number(sources.ra[i]), number(sources.dec[i]), sources.status[i], sources.quality[i], sources.flags[i],
    ...names.map((name) => { const x = columns.get(name)[i]; return number(Number(x.toPrecision(7))); })].join(",");
  return [["source_id", "ra", "dec", "status", "quality", "flags", ...names].join(","), ...state.order.map(row)].join("\n") + "\n";
}

async function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await csv()], { type: "text/csv" }));
  link.download = `${data.title.replace(/\.run$/, "").replace(/[^\w.-]+/g, "_")}-selection.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
