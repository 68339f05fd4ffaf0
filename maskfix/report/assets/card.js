// One instance: its picture or pictures, what was decided, and the buttons to decide.

const AIM_STEPS = 40; // arrow keys cross the picture in so many steps

/**
 * @param gallery the Gallery it is shown in
 * @param number of the instance among all
 */
class Card {
  constructor(gallery, number) {
    this.gallery = gallery;
    this.number = number;
    this.item = gallery.items[number];
    this.aim = null; // the pixel the cross hair is at
    this.badges = element("p", { class: "badges" });
    this.stages = this.item.picture ? gallery.stages(this.item, data(`picture-${number}`)) : [];
    this.stage = this.stages.at(-1) ?? null;
    this.takesClicks = this.item.takesClicks; // on that stage
    this.buttons = this.item.selector ? this.makeButtons() : [];
    this.root = element(
      "article",
      { class: "card", tabindex: "-1", role: "group", onfocusin: () => gallery.enter(this) },
      this.makeHead(),
      this.makePictures(),
      gallery.facts(this.item),
      this.item.note ? element("p", { class: "note" }, this.item.note) : "",
      element("div", { class: "buttons" }, ...this.buttons.map((entry) => entry.button)),
    );
    if (this.takesClicks) this.listen(this.stage.root);
    this.update();
  }

  get marks() {
    return this.gallery.marks;
  }

  makeHead() {
    const { category, label, file } = this.item;
    return element(
      "header",
      {},
      element("h2", {}, element("b", {}, category || "no class"), ` ${label}`),
      element("p", { class: "file", title: file }, file),
      this.badges,
    );
  }

  makePictures() {
    const shown = this.stages.map((stage) =>
      element("figure", {}, element("div", { class: "frame" }, stage.root), stage.caption ?? ""),
    );
    if (!shown.length) shown.push(element("p", { class: "blank" }, "no picture"));
    return element("div", { class: "pictures" }, ...shown);
  }

  makeButtons() {
    const choices = [
      ["accept", "Fine", "F", () => this.decide("accept")],
      ["delete", "Delete", "D", () => this.decide("delete")],
      ["category", "Class", "C", () => this.chooseCategory()],
      ["split", "Split", "S", () => this.toggleSplit()],
      ["undo", "Undo", "Z", () => this.undo()],
      ["large", "Large", "L", () => this.gallery.toggleLarge(this)],
    ];
    return choices
      .filter(([name]) => name !== "category" || this.gallery.categories.size > 1)
      .map(([name, label, key, act]) => ({
        name,
        button: element(
          "button",
          { type: "button", class: name, title: `${label} (${key})`, onclick: act, tabindex: "-1" },
          icon(name),
          element("span", {}, label),
        ),
      }));
  }

  listen(root) {
    root.classList.add("live");
    root.addEventListener("click", (event) => {
      this.click(this.stage.pixelAt(event.clientX, event.clientY), !this.gallery.negative);
    });
    root.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      const pointed = event.button === 2 || event.ctrlKey || event.pointerType === "touch";
      if (pointed) this.click(this.stage.pixelAt(event.clientX, event.clientY), false);
    });
  }

  click(pixel, positive) {
    this.marks.addClick(this.number, { ...pixel, positive });
    announce(`${positive ? "positive" : "negative"} click at ${pixel.x}, ${pixel.y}`);
  }

  decide(action) {
    if (!this.item.selector) return;
    this.marks.toggleAction(this.number, action);
    const done = this.marks.of(this.number).action === action;
    const word = { accept: "fine", delete: "to be deleted" }[action];
    announce(`${this.item.label}: ${done ? word : "not decided"}`);
    if (done) this.gallery.move(1);
  }

  chooseCategory() {
    if (!this.item.selector || this.gallery.categories.size < 2) return;
    chooseCategory(this.gallery.categories, this.item.category, (name) => {
      this.marks.setCategory(this.number, name === this.item.category ? null : name);
      this.root.focus();
    });
  }

  toggleSplit() {
    if (!this.takesClicks) return;
    this.marks.toggleSplit(this.number);
    if (this.marks.of(this.number).split) {
      announce("two objects in one mask: click positive on the one that stays, negative on the other");
    }
  }

  undo() {
    announce(this.marks.undo(this.number) === null ? "nothing to undo" : "undone");
  }

  /** Start or stop pointing with the keyboard. */
  toggleAim() {
    if (!this.takesClicks) return;
    const { left, top, width, height } = this.stage.box;
    const middle = { x: left + Math.floor(width / 2), y: top + Math.floor(height / 2) };
    this.setAim(this.aim ? null : (this.marks.of(this.number).clicks.at(-1) ?? middle));
    if (this.aim) announce("cross hair: arrows move it, P positive, N negative, Escape leaves");
  }

  setAim(pixel) {
    this.aim = pixel && { x: pixel.x, y: pixel.y };
    this.stage?.showCross(this.aim);
    this.root.classList.toggle("aiming", this.aim !== null);
  }

  moveAim(columns, rows, fine) {
    const step = fine ? 1 : Math.max(1, Math.round(this.stage.box.width / AIM_STEPS));
    const { x, y } = this.aim;
    this.setAim(this.stage.inside({ x: x + columns * step, y: y + rows * step }));
    announce(`${this.aim.x}, ${this.aim.y}`);
  }

  /** Show the mark as it is now. */
  update() {
    const mark = this.marks.of(this.number);
    const badges = badgesOf(mark);
    this.badges.replaceChildren(
      ...badges.map(([kind, text]) => element("span", { class: `badge ${kind}` }, text)),
    );
    this.root.dataset.mark = mark.action ?? (badges.length ? "changed" : "none");
    const what = [this.item.category, this.item.label, "in", this.item.file];
    const state = badges.map(([, text]) => text).join(", ") || "no mark";
    this.root.setAttribute("aria-label", `${what.join(" ")}: ${state}`);
    this.stage?.showClicks(mark.clicks, this.stage.old);
    for (const { name, button } of this.buttons) {
      const pressed = {
        accept: mark.action === "accept",
        delete: mark.action === "delete",
        category: mark.category !== null,
        split: mark.split,
      }[name];
      if (pressed !== undefined) button.setAttribute("aria-pressed", pressed);
    }
  }

  /** Only the buttons of the current card are stops of the Tab key. */
  setCurrent(current) {
    this.root.classList.toggle("current", current);
    this.root.tabIndex = current ? 0 : -1;
    for (const { button } of this.buttons) button.tabIndex = current ? 0 : -1;
    if (!current && this.aim) this.setAim(null);
  }
}

/** A mark as short words: [[kind, text], ...]. */
function badgesOf(mark) {
  const positive = mark.clicks.filter((click) => click.positive).length;
  const negative = mark.clicks.length - positive;
  const badges = [];
  if (mark.action === "accept") badges.push(["accept", "fine"]);
  if (mark.action === "delete") badges.push(["delete", "delete"]);
  if (mark.category !== null) badges.push(["category", `is ${mark.category}`]);
  if (mark.split) badges.push(["split", hasBothKinds(mark) ? "split" : "split: click + and \u2212"]);
  if (positive) badges.push(["positive", `+${positive}`]);
  if (negative) badges.push(["negative", `\u2212${negative}`]);
  return badges;
}
