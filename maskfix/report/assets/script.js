// Marks as a click script: YAML that `maskfix refine --clicks` takes as it is.

/**
 * @param items instances; `fileYaml` and `selector` are YAML already, see maskfix/formats
 * @param marks a Marks
 * @param categories map of category name to its YAML
 * @returns {text, instances, clicks, halfSplits}; halfSplits lack clicks of one kind and are left out
 */
function clickScript(items, marks, categories) {
  const files = new Map();
  const counts = { instances: 0, clicks: 0, halfSplits: 0 };
  for (const number of marks.numbers()) {
    const item = items[number];
    const mark = marks.of(number);
    if (mark.split && !hasBothKinds(mark)) {
      counts.halfSplits += 1;
      continue;
    }
    counts.instances += 1;
    counts.clicks += mark.clicks.length;
    const lines = files.get(item.fileYaml) ?? [];
    files.set(item.fileYaml, [...lines, ...instanceLines(item, mark, categories)]);
  }
  const lines = ["version: 1", "images:"];
  for (const [file, inside] of files) lines.push(`  - file: ${file}`, "    instances:", ...inside);
  return { text: `${lines.join("\n")}\n`, ...counts };
}

function instanceLines(item, mark, categories) {
  const lines = [`      - ${item.selector}`];
  if (mark.action) lines.push(`        action: ${mark.action}`);
  if (mark.category !== null) {
    lines.push(`        action: {category: ${categories.get(mark.category)}}`);
  }
  if (mark.split) lines.push("        split: true");
  if (mark.clicks.length) lines.push("        clicks:");
  for (const { x, y, positive } of mark.clicks) {
    lines.push(`          - {x: ${x}, y: ${y}, kind: ${positive ? "positive" : "negative"}}`);
  }
  return lines;
}

/** A new one each second: a browser would call a second clicks.yaml "clicks (1).yaml", and the command
 *  would take the first one. */
function scriptName(now = new Date()) {
  const two = (number) => String(number).padStart(2, "0");
  const date = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map(two).join("");
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("");
  return `clicks-${date}-${time}.yaml`;
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
