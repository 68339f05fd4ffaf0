// Bar charts in SVG, with their numbers as a table for people who listen.

const CHART = { width: 360, height: 150, left: 34, bottom: 22, top: 8 };

/** Twenty bins from 0 to 1: {edges, labels}. */
function fractionBins() {
  const edges = Array.from({ length: 21 }, (_, i) => i / 20);
  return { edges, label: (i) => (i % 5 ? "" : edges[i].toFixed(2)), name: (i) => edges[i].toFixed(2) };
}

/** A bin for every whole number, at most 20. */
function countBins(values) {
  const most = values.reduce((a, b) => Math.max(a, b), 0);
  const step = Math.ceil((most + 1) / 20);
  const count = Math.floor(most / step) + 1;
  const edges = Array.from({ length: count + 1 }, (_, i) => i * step);
  return { edges, label: (i) => (i < count ? String(edges[i]) : ""), name: (i) => String(edges[i]) };
}

/**
 * @param bins {edges, label, name}: ascending edges, the text below an edge, and its name
 * @param series [[name, values]]
 */
function barChart(title, bins, series) {
  const { width, height, left, bottom, top } = CHART;
  const count = bins.edges.length - 1;
  const counts = series.map(([, values]) => histogram(values, bins.edges));
  const most = Math.max(1, ...counts.flat());
  const across = (width - left) / count;
  const up = (value) => ((height - bottom - top) * value) / most;
  const drawn = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const value of new Set([Math.ceil(most / 2), most])) {
    const y = height - bottom - up(value);
    drawn.append(
      element("svg:line", { class: "rule", x1: left, x2: width, y1: y, y2: y }),
      element("svg:text", { x: left - 6, y: y + 4, "text-anchor": "end" }, String(value)),
    );
  }
  counts.forEach((ofBin, s) => {
    const wide = (0.82 * across) / series.length;
    ofBin.forEach((value, i) => {
      const x = left + i * across + 0.09 * across + s * wide;
      const bar = { class: `bar ${series[s][0]}`, x, y: height - bottom - up(value) };
      drawn.append(element("svg:rect", { ...bar, width: wide, height: up(value), rx: 1.5 }));
    });
  });
  for (let i = 0; i <= count; i += 1) {
    const middle = series.length === 1 && bins.label(1) !== "" ? across / 2 : 0;
    const at = { x: left + i * across + middle, y: height - 6, "text-anchor": i < count ? "middle" : "end" };
    drawn.append(element("svg:text", at, bins.label(i)));
  }
  const keys = series.length > 1 ? series.map(([name]) => element("span", { class: name }, name)) : [];
  const caption = element("figcaption", {}, title, ...keys);
  return element("figure", { class: "chart" }, caption, drawn, tableOf(bins, series, counts));
}

function histogram(values, edges) {
  const counts = new Array(edges.length - 1).fill(0);
  const low = edges[0];
  const step = edges[1] - low;
  for (const value of values) {
    const bin = Math.floor((value - low) / step + 1e-9);
    counts[Math.min(counts.length - 1, Math.max(0, bin))] += 1;
  }
  return counts;
}

function tableOf(bins, series, counts) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  const body = counts[0].map((_, i) =>
    line("td", [bins.name(i), ...counts.map((ofBin) => String(ofBin[i]))]),
  );
  const head = line("th", ["from", ...series.map(([name]) => name)]);
  return element("table", { class: "unseen" }, element("thead", {}, head), element("tbody", {}, ...body));
}
