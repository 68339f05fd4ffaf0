// The report of a run: numbers, charts, and all instances before and after.

const { about, items, summary } = data("content");
const hasReference = summary.scored > 0;
const percent = (value) => (value === null ? "\u2013" : `${(100 * value).toFixed(1)} %`);
const ascending = (key) => (a, b) => (a.row[key] ?? 2) - (b.row[key] ?? 2);
const descending = (key) => (a, b) => (b.row[key] ?? -2) - (a.row[key] ?? -2);
const gain = (item) => item.row.iou_after - item.row.iou_before;

const STATUS = { ok: "changed", unchanged: "unchanged", rejected: "rejected", failed: "failed" };

function stagesOf(item, picture) {
  const { before, after, refused } = picture.masks;
  const what = `of ${item.file} around ${item.category} ${item.label}`;
  const left = new Stage(picture, [{ kind: "mask", path: before }], `before: crop ${what}`);
  left.showClicks([], picture.clicks);
  const outlines = [{ kind: "change", path: `${before} ${after}` }, { kind: "mask", path: after }];
  if (refused) outlines.push({ kind: "refused", path: refused });
  const right = new Stage(picture, outlines, `after: crop ${what}`);
  left.caption = element("figcaption", {}, captionOf("before", item.row.iou_before));
  right.caption = element("figcaption", {}, captionOf("after", item.row.iou_after));
  return [left, right];
}

const captionOf = (when, iou) => (iou === null ? when : `${when}, IoU ${percent(iou)}`);

function factsOf({ row }) {
  const facts = [element("span", { class: `state ${row.status}` }, STATUS[row.status])];
  if (row.clicks) facts.push(element("span", {}, counted(row.clicks, "click")));
  if (row.pixels_added || row.pixels_removed) {
    facts.push(element("span", {}, `+${row.pixels_added} \u2212${row.pixels_removed} px`));
  }
  if (row.reason) facts.push(element("span", { class: "reason" }, row.reason));
  return element("p", { class: "facts" }, ...facts);
}

function showSummary() {
  const tile = (number, label, note = "") =>
    element("div", { class: "tile" }, element("b", {}, number), element("span", {}, label), note);
  const change = (name) =>
    `${percent(summary[`${name}_before_mean`])} \u2192 ${percent(summary[`${name}_after_mean`])}`;
  const tiles = [tile(summary.instances, "instances")];
  for (const [status, word] of Object.entries(STATUS)) {
    if (summary.status[status]) tiles.push(tile(summary.status[status], word));
  }
  tiles.push(tile(summary.clicks, "clicks"));
  if (hasReference) {
    tiles.push(tile(change("iou"), "mean IoU"), tile(change("biou"), "mean Boundary IoU"));
    tiles.push(tile(summary.made_worse, `made worse, of ${summary.scored}`));
  }
  byId("tiles").append(...tiles);
  byId("about").textContent = about.title;
  byId("limits").textContent = about.limits;
  byId("refused").hidden = !summary.status.rejected;
  byId("command").textContent = about.ran;
}

function showCharts() {
  const of = (key) => items.map((item) => item.row[key]).filter((value) => value !== null);
  const charts = byId("charts");
  if (hasReference) {
    charts.append(
      barChart("IoU with the reference", fractionBins(), [
        ["before", of("iou_before")],
        ["after", of("iou_after")],
      ]),
    );
  }
  const changed = items.filter((item) => item.row.status === "ok" && item.row.iou_change !== null);
  const overlap = changed.map((item) => item.row.iou_change);
  if (overlap.length) {
    charts.append(
      barChart("IoU of the old and the new mask, where changed", fractionBins(), [["all", overlap]]),
    );
  }
  charts.append(barChart("Clicks", countBins(of("clicks")), [["all", of("clicks")]]));
}

showSummary();
showCharts();
const statuses = Object.keys(STATUS).filter((status) => summary.status[status]);
const sorts = [
  [hasReference ? "Worst first" : "Doubtful first", null],
  ["Most clicks first", descending("clicks")],
  ["By image", (a, b) => a.file.localeCompare(b.file)],
  ["By class", (a, b) => a.category.localeCompare(b.category)],
];
if (hasReference) {
  sorts.splice(
    1,
    0,
    ["Most changed first", ascending("iou_change")],
    ["Lowest IoU after", ascending("iou_after")],
    ["Largest loss first", (a, b) => gain(a) - gain(b)],
    ["Largest gain first", (a, b) => gain(b) - gain(a)],
  );
}
new Gallery({
  about,
  items,
  stages: (item, picture) => stagesOf(item, picture),
  facts: factsOf,
  sorts,
  filters: statuses.map((status) => [`Status: ${STATUS[status]}`, (i) => i.row.status === status]),
});
