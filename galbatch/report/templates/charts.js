// Scatter plots and histograms on canvas that brush each other: a box drawn in one is a part of the selection.
// A chart holds the place of every source in fractions of its axes, 0 to 1; what lies outside is at the edge.
const MARGIN = { left: 54, right: 10, top: 8, bottom: 40 };
const DENSE = 4000; // points from which pixels are set instead of markers drawn
const charts = [];

function makeChart(spec) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption"), canvas = document.createElement("canvas");
  caption.textContent = spec.title;
  canvas.setAttribute("role", "img");
  figure.append(caption, canvas);
  $(spec.home ?? "charts").append(figure);
  const chart = { ...spec, canvas, caption, box: null, fx: [], fy: [] };
  charts.push(chart);
  listen(chart);
  return chart;
}

const transformed = (axis, x) => axis.log ? (x > 0 ? Math.log10(x) : NaN) : x;

function rangeOf(axis, n) {
  if (axis.range) return axis.range.map((x) => transformed(axis, x));
  const found = [];
  for (let i = 0; i < n; i++) { const x = transformed(axis, axis.of(i)); if (Number.isFinite(x)) found.push(x); }
  if (!found.length) return [0, 1];
  const sorted = Float64Array.from(found).sort(), at = (q) => sorted[Math.round(q * (sorted.length - 1))];
  const low = at(0.002), high = at(0.998), pad = 0.08 * (high - low) || Math.abs(low) * 0.05 || 0.1;
  return [low - pad, high + pad];
}

// Places of all sources, after the band or the quantity changed. Equal scales where both axes are on the sky.
function place(chart) {
  const n = sources.ids.length, size = plotSize(chart);
  chart.xr = rangeOf(chart.x, n);
  chart.yr = chart.y ? rangeOf(chart.y, n) : [0, 1];
  if (chart.sky) widen(chart, size);
  const fractions = (axis, [low, high]) => Float32Array.from({ length: n }, (_, i) => {
    const f = (transformed(axis, axis.of(i)) - low) / (high - low);
    return Math.min(1, Math.max(0, axis.flip ? 1 - f : f)); // NaN stays NaN
  });
  chart.fx = fractions(chart.x, chart.xr);
  chart.fy = chart.y ? fractions(chart.y, chart.yr) : null;
}

function widen(chart, size) {
  const per = Math.max((chart.xr[1] - chart.xr[0]) / size.w, (chart.yr[1] - chart.yr[0]) / size.h);
  for (const [key, side] of [["xr", size.w], ["yr", size.h]]) {
    const middle = (chart[key][0] + chart[key][1]) / 2;
    chart[key] = [middle - per * side / 2, middle + per * side / 2];
  }
}

function plotSize(chart) {
  const width = Math.max(120, chart.canvas.clientWidth || 320), height = chart.canvas.clientHeight || 260;
  return { width, height, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
}

const inBox = (chart, i) => {
  const b = chart.box, x = chart.fx[i], y = chart.fy ? chart.fy[i] : 0.5;
  return x >= b.x0 && x <= b.x1 && y >= b.y0 && y <= b.y1;
};

// ---- drawing ----------------------------------------------------------------------------------------------
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawChart(chart) {
  const { width, height, w, h } = plotSize(chart), ratio = window.devicePixelRatio || 1, pen = chart.canvas.getContext("2d");
  chart.canvas.width = width * ratio;
  chart.canvas.height = height * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  const colours = { ink: ink("--ink"), quiet: ink("--quiet"), line: ink("--line"), grade: ["--ok", "--flagged", "--failed"].map(ink), faded: ink("--faded") };
  const X = (f) => MARGIN.left + f * w, Y = (f) => MARGIN.top + (1 - f) * h;
  drawAxes(chart, pen, colours, w, h);
  pen.save();
  pen.beginPath();
  pen.rect(MARGIN.left - 3, MARGIN.top - 3, w + 6, h + 6);
  pen.clip();
  for (const line of chart.lines ?? []) drawLine(chart, pen, line, colours, X, Y);
  if (!chart.fy) drawBars(chart, pen, colours, w, h);
  else if (sources.ids.length > DENSE) drawPixels(chart, pen, colours, ratio, w, h);
  else drawMarkers(chart, pen, colours, X, Y);
  if (chart.box) {
    pen.strokeStyle = colours.ink;
    pen.setLineDash([4, 3]);
    pen.strokeRect(X(chart.box.x0), Y(chart.box.y1), (chart.box.x1 - chart.box.x0) * w, (chart.box.y1 - chart.box.y0) * h);
  }
  pen.restore();
  const axes = chart.y ? `${chart.y.label} against ${chart.x.label}` : chart.x.label;
  chart.canvas.setAttribute("aria-label", `${chart.title}: ${axes}, ${state.order.length} of ${sources.ids.length} sources selected. The table below selects by the same numbers.`);
}

function drawLine(chart, pen, [x0, y0, x1, y1, dashed], colours, X, Y) {
  const f = (axis, [low, high], v) => { const g = (transformed(axis, v) - low) / (high - low); return axis.flip ? 1 - g : g; };
  pen.strokeStyle = colours.quiet;
  pen.setLineDash(dashed ? [5, 4] : []);
  pen.beginPath();
  pen.moveTo(X(f(chart.x, chart.xr, x0)), y0 === null ? Y(0) : Y(f(chart.y, chart.yr, y0)));
  pen.lineTo(X(f(chart.x, chart.xr, x1)), y1 === null ? Y(1) : Y(f(chart.y, chart.yr, y1)));
  pen.stroke();
  pen.setLineDash([]);
}

function ticksOf([low, high], log) {
  if (log && high - low > 0.6) {
    const all = [];
    for (let e = Math.floor(low); e <= high; e++) for (const m of high - low > 2.5 ? [1] : [1, 2, 5]) all.push(e + Math.log10(m));
    return all.filter((t) => t >= low && t <= high).map((t) => [t, text(10 ** t, 2)]);
  }
  const a = log ? 10 ** low : low, b = log ? 10 ** high : high, rough = (b - a) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let t = Math.ceil(a / step) * step; t <= b + 1e-9 * step; t += step) ticks.push([log ? Math.log10(t) : t, (Math.abs(t) < step / 1e6 ? 0 : t).toFixed(digits)]);
  return ticks;
}

function drawAxes(chart, pen, colours, w, h) {
  const side = (axis, [low, high], v) => { const f = (v - low) / (high - low); return axis.flip ? 1 - f : f; };
  pen.fillStyle = colours.ink;
  pen.strokeStyle = colours.line;
  pen.textAlign = "center";
  for (const [t, label] of ticksOf(chart.xr, chart.x.log)) {
    const x = MARGIN.left + side(chart.x, chart.xr, t) * w;
    pen.beginPath(); pen.moveTo(x, MARGIN.top); pen.lineTo(x, MARGIN.top + h); pen.stroke();
    pen.fillText(label, x, MARGIN.top + h + 14);
  }
  pen.fillText(chart.x.label, MARGIN.left + w / 2, MARGIN.top + h + 32, w + 18);
  if (!chart.y) return;
  pen.textAlign = "right";
  for (const [t, label] of ticksOf(chart.yr, chart.y.log)) {
    const y = MARGIN.top + (1 - side(chart.y, chart.yr, t)) * h;
    pen.beginPath(); pen.moveTo(MARGIN.left, y); pen.lineTo(MARGIN.left + w, y); pen.stroke();
    pen.fillText(label, MARGIN.left - 5, y + 4);
  }
  pen.save();
  pen.translate(12, MARGIN.top + h / 2);
  pen.rotate(-Math.PI / 2);
  pen.textAlign = "center";
  pen.fillText(chart.y.label, 0, 0, h + 20);
  pen.restore();
}

// Sources not selected first, in a pale grey; grades by colour and by shape.
function drawMarkers(chart, pen, colours, X, Y) {
  for (const chosen of [0, 1]) {
    for (let i = 0; i < sources.ids.length; i++) {
      if (state.keep[i] !== chosen || !(chart.fx[i] >= 0) || !(chart.fy[i] >= 0)) continue;
      const grade = state.grade[i], x = X(chart.fx[i]), y = Y(chart.fy[i]);
      pen.fillStyle = pen.strokeStyle = chosen ? colours.grade[grade] : colours.faded;
      if (chosen && sources.ids.length < 1500) errorBars(chart, pen, i, X, Y);
      pen.beginPath();
      if (grade === 0) pen.arc(x, y, 3.6, 0, 7);
      else if (grade === 1) { pen.moveTo(x, y - 5); pen.lineTo(x + 4.5, y + 3.5); pen.lineTo(x - 4.5, y + 3.5); }
      else { pen.moveTo(x - 4, y - 4); pen.lineTo(x + 4, y + 4); pen.moveTo(x + 4, y - 4); pen.lineTo(x - 4, y + 4); }
      if (grade === 2) { pen.lineWidth = 2; pen.stroke(); pen.lineWidth = 1; } else pen.fill();
    }
  }
}

function errorBars(chart, pen, i, X, Y) {
  pen.globalAlpha = 0.45;
  pen.beginPath();
  for (const [axis, [low, high], along] of [[chart.x, chart.xr, true], [chart.y, chart.yr, false]]) {
    if (!axis.stem) continue;
    const ends = ["p16", "p84"].map((s) => {
      const f = (transformed(axis, value(`${axis.stem}_${s}`, i)) - low) / (high - low);
      return axis.flip ? 1 - f : f;
    });
    if (!ends.every(Number.isFinite)) continue;
    if (along) { pen.moveTo(X(ends[0]), Y(chart.fy[i])); pen.lineTo(X(ends[1]), Y(chart.fy[i])); }
    else { pen.moveTo(X(chart.fx[i]), Y(ends[0])); pen.lineTo(X(chart.fx[i]), Y(ends[1])); }
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

const packed = (hex) => 0xff000000 | parseInt(hex.slice(5, 7) + hex.slice(3, 5) + hex.slice(1, 3), 16);

function drawPixels(chart, pen, colours, ratio, w, h) {
  const width = Math.round(w * ratio), height = Math.round(h * ratio), layer = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height), out = new Uint32Array(image.data.buffer), side = Math.max(2, Math.round(1.6 * ratio));
  const table = [...colours.grade, colours.faded].map(packed);
  for (const chosen of [0, 1]) {
    for (let i = 0; i < sources.ids.length; i++) {
      if (state.keep[i] !== chosen || !(chart.fx[i] >= 0) || !(chart.fy[i] >= 0)) continue;
      const x = Math.min(width - side, Math.round(chart.fx[i] * width)), y = Math.min(height - side, Math.round((1 - chart.fy[i]) * height));
      const colour = table[chosen ? state.grade[i] : 3];
      for (let r = 0; r < side; r++) for (let c = 0; c < side; c++) out[(y + r) * width + x + c] = colour;
    }
  }
  layer.getContext("2d").putImageData(image, 0, 0);
  pen.drawImage(layer, MARGIN.left, MARGIN.top, w, h);
}

function drawBars(chart, pen, colours, w, h) {
  const bins = 40, all = new Uint32Array(bins), kept = new Uint32Array(bins);
  for (let i = 0; i < sources.ids.length; i++) {
    if (!(chart.fx[i] >= 0)) continue;
    const bin = Math.min(bins - 1, Math.floor(chart.fx[i] * bins));
    all[bin]++;
    kept[bin] += state.keep[i];
  }
  const most = Math.max(1, ...all);
  for (const [counts, colour] of [[all, colours.faded], [kept, colours.grade[0]]]) {
    pen.fillStyle = colour;
    counts.forEach((n, bin) => { const tall = n / most * h * 0.96; pen.fillRect(MARGIN.left + bin / bins * w + 0.5, MARGIN.top + h - tall, w / bins - 1, tall); });
  }
  pen.fillStyle = colours.ink;
  pen.textAlign = "right";
  pen.fillText(String(most), MARGIN.left - 5, MARGIN.top + 0.04 * h + 4);
  pen.fillText("0", MARGIN.left - 5, MARGIN.top + h + 4);
}

// ---- pointer: drag a box, click a point, hover ---------------------------------------------------------------
function fractionAt(chart, event) {
  const area = chart.canvas.getBoundingClientRect(), { w, h } = plotSize(chart), clamp = (f) => Math.min(1, Math.max(0, f));
  return [clamp((event.clientX - area.left - MARGIN.left) / w), clamp(1 - (event.clientY - area.top - MARGIN.top) / h)];
}

function nearest(chart, [x, y]) {
  const { w, h } = plotSize(chart);
  let best = -1, least = 12 ** 2;
  if (!chart.fy) return best;
  for (let i = 0; i < sources.ids.length; i++) {
    const d = ((chart.fx[i] - x) * w) ** 2 + ((chart.fy[i] - y) * h) ** 2;
    if (d < least && state.keep[i]) [best, least] = [i, d];
  }
  return best;
}

function listen(chart) {
  const canvas = chart.canvas;
  let start = null;
  canvas.addEventListener("pointerdown", (event) => { start = fractionAt(chart, event); canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    const at = fractionAt(chart, event);
    if (start) { chart.box = boxOf(chart, start, at); drawChart(chart); return; }
    const i = nearest(chart, at);
    canvas.style.cursor = i < 0 ? "crosshair" : "pointer";
    if (i >= 0) peek(i);
  });
  canvas.addEventListener("pointercancel", () => { start = null; });
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    const at = fractionAt(chart, event), { w, h } = plotSize(chart), moved = Math.hypot((at[0] - start[0]) * w, (at[1] - start[1]) * h) > 5;
    chart.box = moved ? boxOf(chart, start, at) : null;
    start = null;
    const i = moved ? -1 : nearest(chart, at);
    if (i >= 0) open(i);
    arrange();
  });
}

const boxOf = (chart, [xa, ya], [xb, yb]) => ({
  x0: Math.min(xa, xb), x1: Math.max(xa, xb), y0: chart.fy ? Math.min(ya, yb) : 0, y1: chart.fy ? Math.max(ya, yb) : 1,
});
