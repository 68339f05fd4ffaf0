// What a person has decided, one mark an instance, kept in local storage.

const NO_MARK = Object.freeze({ clicks: [], action: null, category: null, split: false });
const MOST_UNDO = 300;

/**
 * A mark is {clicks: [{x, y, positive}], action: "accept" | "delete" | null, category: name | null,
 * split: boolean}. Marks are never changed in place. Dispatches "change" with detail.number, which
 * is null when everything may have changed.
 */
class Marks extends EventTarget {
  constructor(key) {
    super();
    this.key = key;
    this.kept = true; // whether local storage works
    this.restore();
    addEventListener("storage", (event) => {
      if (event.key !== this.key) return; // the same page in another tab
      this.restore();
      this.tell(null);
    });
  }

  of(number) {
    return this.marks.get(number) ?? NO_MARK;
  }

  /** Numbers of the instances that have a mark, ascending. */
  numbers() {
    return [...this.marks.keys()].sort((a, b) => a - b);
  }

  /** Add a click; a click at the same pixel gives way, and so does a decision without clicks. */
  addClick(number, click) {
    const { clicks, category, split } = this.of(number);
    const others = clicks.filter((other) => other.x !== click.x || other.y !== click.y);
    this.put(number, { clicks: [...others, click], action: null, category, split });
  }

  /** Accept or delete; the same again takes it back. These leave the mask as it is: no clicks. */
  toggleAction(number, action) {
    const mark = this.of(number);
    this.put(number, mark.action === action ? NO_MARK : { ...NO_MARK, action });
  }

  toggleSplit(number) {
    const mark = this.of(number);
    this.put(number, { ...mark, action: null, split: !mark.split });
  }

  setCategory(number, category) {
    this.put(number, { ...this.of(number), action: null, category });
  }

  /** Take back the last change, of one instance or of any; returns its number, null if none. */
  undo(number = null) {
    const at = this.history.findLastIndex(([changed]) => number === null || changed === number);
    if (at < 0) return null;
    const [[changed, before]] = this.history.splice(at, 1);
    this.set(changed, before);
    return changed;
  }

  put(number, mark) {
    this.history = [...this.history, [number, this.of(number)]].slice(-MOST_UNDO);
    this.set(number, mark);
  }

  set(number, mark) {
    if (isNothing(mark)) this.marks.delete(number);
    else this.marks.set(number, mark);
    try {
      const content = { marks: [...this.marks], history: this.history };
      localStorage.setItem(this.key, JSON.stringify(content));
    } catch {
      this.kept = false;
    }
    this.tell(number);
  }

  restore() {
    let content = null;
    try {
      content = JSON.parse(localStorage.getItem(this.key));
    } catch {
      this.kept = false;
    }
    this.marks = new Map(content?.marks ?? []);
    this.history = content?.history ?? [];
  }

  tell(number) {
    this.dispatchEvent(new CustomEvent("change", { detail: { number } }));
  }
}

function isNothing(mark) {
  return !mark.clicks.length && !mark.action && mark.category === null && !mark.split;
}

/** Whether clicks of both kinds are there, which a split needs. */
function hasBothKinds(mark) {
  return new Set(mark.clicks.map((click) => click.positive)).size === 2;
}
