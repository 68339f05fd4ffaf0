// Small helpers. Text from annotations only ever becomes text nodes and attribute values.

/** An element with attributes and children; `on...` are listeners, undefined values are left out. */
function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

/** The content of a data block, a script element that is never run. */
const data = (id) => JSON.parse(byId(id).textContent);

const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Tell people who listen instead of looking. */
function announce(text) {
  byId("status").textContent = text;
}

const ICONS = {
  accept: "M4 12.5l5.5 5.5L20 6.5",
  delete: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  category: "M3 12V4h8l10 10-7 7zM7.5 8.5h.01",
  split: "M12 3v18M8.5 8L4 12l4.5 4M15.5 8l4.500 4-4.5 4",
  undo: "M8 5L3.500 9.500 8 14M4 9.500h10a5.500 5.500 0 0 1 0 11h-4",
  large: "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7",
};

function icon(name) {
  return element(
    "svg:svg",
    { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" },
    element("svg:path", { d: ICONS[name] }),
  );
}
