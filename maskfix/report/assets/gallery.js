// All instances: filtered, sorted, a page at a time; what is current, and the keyboard.

const OUTLINES = ["outline", "tint", "plain"];

/**
 * @param about {command, categories: [[name, yaml]], key, perPage}; the command ends in clicks.yaml,
 *     in whose place comes the name of the file that is saved
 * @param items instances: {file, fileYaml, selector, category, label, note, picture, ...}; those
 *     without a selector cannot be marked, those without a picture have numbers only
 * @param stages (item, picture) -> [Stage]; the last one takes clicks
 * @param facts item -> element or "", shown below the picture
 * @param sorts [[label, compare]]; null compares nothing: the order as given
 * @param filters [[label, (item, mark) -> boolean]], offered beside those on marks
 */
class Gallery {
  constructor({ about, items, stages, facts = () => "", sorts, filters = [] }) {
    Object.assign(this, { about, items, stages, facts, sorts });
    this.categories = new Map(about.categories);
    this.marks = new Marks(about.key);
    this.filters = [["All", () => true], ...filters, ...MARK_FILTERS];
    this.negative = false; // what a left click is
    this.isLarge = false; // whether the current card fills the window
    this.cards = [];
    this.current = null;
    this.page = 0;
    this.grid = byId("grid");
    this.marks.addEventListener("change", (event) => this.markChanged(event.detail.number));
    this.fillTools();
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("beforeunload", (event) => {
      if (!this.marks.kept && this.marks.numbers().length) event.preventDefault();
    });
    this.choose();
    this.showCounts();
  }

  fillTools() {
    const option = ([label], i) => element("option", { value: i }, label);
    const names = [...new Set(this.items.map((item) => item.category))].sort();
    byId("filter").append(...this.filters.map(option));
    byId("sort").append(...this.sorts.map(option));
    byId("category").append(
      element("option", { value: "" }, "Any class"),
      ...names.map((name, i) => element("option", { value: i }, name || "no class")),
    );
    this.names = names;
    byId("category").hidden = names.length < 2;
    byId("sort").hidden = this.sorts.length < 2;
    for (const id of ["filter", "sort", "category"]) byId(id).onchange = () => this.choose();
    byId("search").oninput = () => this.choose();
    byId("positive").onchange = byId("negative").onchange = () =>
      this.setNegative(byId("negative").checked);
    byId("outline").onclick = () => this.nextOutline();
    byId("theme").onclick = nextTheme;
    byId("help-open").onclick = () => byId("help").showModal();
    byId("download").onclick = () => this.download();
    for (const [id, step] of [["before", -1], ["after", 1]]) {
      byId(id).onclick = () => this.turnPage(step);
    }
  }

  /** Apply filters and order; begin with the first page. */
  choose() {
    const [, wanted] = this.filters[byId("filter").value || 0];
    const [, compare] = this.sorts[byId("sort").value || 0];
    const category = byId("category").value;
    const search = byId("search").value.trim().toLocaleLowerCase();
    this.order = [...this.items.keys()].filter((number) => {
      const item = this.items[number];
      if (category !== "" && item.category !== this.names[category]) return false;
      const text = `${item.file} ${item.label} ${item.category} ${item.note}`;
      if (search && !text.toLocaleLowerCase().includes(search)) return false;
      return wanted(item, this.marks.of(number));
    });
    if (compare) this.order.sort((a, b) => compare(this.items[a], this.items[b]) || a - b);
    this.showPage(0);
  }

  get pages() {
    return Math.max(1, Math.ceil(this.order.length / this.about.perPage));
  }

  showPage(page, last = false) {
    this.page = Math.min(Math.max(0, page), this.pages - 1);
    const start = this.page * this.about.perPage;
    const shown = this.order.slice(start, start + this.about.perPage);
    this.cards = shown.map((number) => new Card(this, number));
    this.grid.replaceChildren(...this.cards.map((card) => card.root));
    if (!shown.length) this.grid.append(element("p", { class: "empty" }, "Nothing to show."));
    byId("page").textContent = `page ${this.page + 1} of ${this.pages}`;
    byId("before").disabled = this.page === 0;
    byId("after").disabled = this.page === this.pages - 1;
    this.current = null;
    this.setCurrent((last ? this.cards.at(-1) : this.cards[0]) ?? null);
  }

  turnPage(step, last = false) {
    if (this.page + step < 0 || this.page + step >= this.pages) return false;
    this.showPage(this.page + step, last);
    this.grid.scrollIntoView({ block: "start" });
    this.current?.root.focus({ preventScroll: true });
    announce(byId("page").textContent);
    return true;
  }

  setCurrent(card) {
    if (card === this.current) return;
    this.current?.setCurrent(false);
    this.current = card;
    card?.setCurrent(true);
    document.body.classList.toggle("large", this.isLarge && card !== null);
  }

  /** A card has the focus. */
  enter(card) {
    this.setCurrent(card);
  }

  /** Go on by some cards, over the ends of pages too. */
  move(step) {
    const at = this.cards.indexOf(this.current) + step;
    if (at < 0) this.turnPage(-1, true);
    else if (at >= this.cards.length) this.turnPage(1);
    else this.focus(this.cards[at]);
  }

  focus(card) {
    card.root.focus({ preventScroll: true });
    card.root.scrollIntoView({ block: "nearest" });
  }

  /** How many cards stand side by side. */
  get columns() {
    const top = this.cards[0]?.root.offsetTop;
    const next = this.cards.findIndex((card) => card.root.offsetTop !== top);
    return next < 0 ? this.cards.length : next;
  }

  toggleLarge(card = this.current) {
    if (!card) return;
    this.isLarge = !this.isLarge;
    this.setCurrent(card);
    document.body.classList.toggle("large", this.isLarge);
    this.focus(card);
  }

  setNegative(negative) {
    this.negative = negative;
    byId(negative ? "negative" : "positive").checked = true;
    document.body.classList.toggle("negative", negative);
    announce(`click: ${negative ? "negative" : "positive"}`);
  }

  nextOutline() {
    const now = document.body.dataset.outline;
    const next = OUTLINES[(OUTLINES.indexOf(now) + 1) % OUTLINES.length];
    document.body.dataset.outline = next;
    announce(`outlines: ${next}`);
  }

  markChanged(number) {
    for (const card of this.cards) if (number === null || card.number === number) card.update();
    this.showCounts();
  }

  showCounts() {
    const marked = this.marks.numbers().length;
    byId("marked").textContent = `${marked} of ${this.items.length} marked`;
    byId("progress").style.width = `${(100 * marked) / Math.max(1, this.items.length)}%`;
    byId("download").disabled = !marked;
    byId("download").textContent = marked ? `Download clicks (${marked})` : "Download clicks";
    byId("unkept").hidden = this.marks.kept;
  }

  download() {
    const script = clickScript(this.items, this.marks, this.categories);
    if (!script.instances && !script.halfSplits) return;
    const name = scriptName();
    download(name, script.text);
    showSaved(script, name, this.about.command.replace(/clicks\.yaml$/, name));
  }

  /** Take back the last change of any instance, and go there if it is on this page. */
  undoLast() {
    const number = this.marks.undo();
    const card = this.cards.find((shown) => shown.number === number);
    if (card) this.focus(card);
    announce(number === null ? "nothing to undo" : `undone: ${this.items[number].label}`);
  }

  key(event) {
    if (document.querySelector("dialog[open]")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      const act = { z: () => this.undoLast(), s: () => this.download() }[name];
      if (act) run(event, act);
      return;
    }
    const typing = event.target.closest("input:not([type=radio]), select, textarea");
    if (event.altKey || typing) {
      if (typing && name === "Escape") this.current?.root.focus();
      return;
    }
    const pressing = event.target.closest("button, a, summary, input");
    if (pressing && (name === "Enter" || name === " " || event.target.type === "radio")) return;
    const act = this.current?.aim ? this.aimKeys(event)[name] : this.keys()[name];
    if (act) run(event, act);
  }

  keys() {
    const card = this.current;
    const keys = {
      "?": () => byId("help").showModal(),
      "/": () => byId("search").focus(),
      o: () => this.nextOutline(),
      t: () => this.setNegative(!this.negative),
      "[": () => this.turnPage(-1),
      "]": () => this.turnPage(1),
    };
    if (!card) return keys;
    return {
      ...keys,
      ArrowRight: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      ArrowDown: () => this.move(this.isLarge ? 1 : this.columns),
      ArrowUp: () => this.move(this.isLarge ? -1 : -this.columns),
      Home: () => this.focus(this.cards[0]),
      End: () => this.focus(this.cards.at(-1)),
      Enter: () => card.toggleAim(),
      f: () => card.decide("accept"),
      d: () => card.decide("delete"),
      Delete: () => card.decide("delete"),
      c: () => card.chooseCategory(),
      s: () => card.toggleSplit(),
      z: () => card.undo(),
      Backspace: () => card.undo(),
      l: () => this.toggleLarge(),
      Escape: () => this.isLarge && this.toggleLarge(),
    };
  }

  aimKeys(event) {
    const card = this.current;
    const move = (columns, rows) => () => card.moveAim(columns, rows, event.shiftKey);
    const positive = () => card.click(card.aim, true);
    const negative = () => card.click(card.aim, false);
    return {
      ...{ ArrowRight: move(1, 0), ArrowLeft: move(-1, 0) },
      ...{ ArrowDown: move(0, 1), ArrowUp: move(0, -1) },
      ...{ p: positive, "+": positive, " ": positive, n: negative, "-": negative },
      ...{ z: () => card.undo(), Backspace: () => card.undo() },
      ...{ Enter: () => card.toggleAim(), Escape: () => card.toggleAim() },
      ...{ l: () => this.toggleLarge(), o: () => this.nextOutline() },
    };
  }
}

const MARK_FILTERS = [
  ["Not marked", (item, mark) => mark === NO_MARK],
  ["Marked", (item, mark) => mark !== NO_MARK],
  ["With clicks", (item, mark) => mark.clicks.length > 0],
  ["Fine", (item, mark) => mark.action === "accept"],
  ["To delete", (item, mark) => mark.action === "delete"],
  ["Other class", (item, mark) => mark.category !== null],
];

function run(event, act) {
  event.preventDefault();
  act();
}

/** Dark or light, whichever it is not now. */
function nextTheme() {
  const root = document.documentElement;
  const dark = getComputedStyle(root).getPropertyValue("--dark").trim() === "1";
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("maskfix:theme", root.dataset.theme);
  } catch {
    // then it holds until the page is closed
  }
}

try {
  document.documentElement.dataset.theme = localStorage.getItem("maskfix:theme") ?? "";
} catch {
  // as the system has it
}
