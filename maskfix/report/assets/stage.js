// A crop of an image with outlines and clicks on it, that knows which pixel is where.

/**
 * @param picture {src, box: {left, top, width, height}} in pixels of the whole image
 * @param outlines [{kind, path}]: SVG paths in pixels, whole numbers at pixel centres
 * @param label for people who listen
 */
class Stage {
  constructor(picture, outlines, label) {
    const { left, top, width, height } = (this.box = picture.box);
    this.clicks = element("div", { class: "clicks" });
    this.cross = element("div", { class: "cross", hidden: true });
    const overlay = element("svg:svg", {
      class: "outlines",
      viewBox: `${left - 0.5} ${top - 0.5} ${width} ${height}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    for (const { kind, path } of outlines) {
      overlay.append(
        element("svg:path", { class: `${kind} fill`, d: path }),
        element("svg:path", { class: `${kind} halo`, d: path }),
        element("svg:path", { class: `${kind} line`, d: path }),
      );
    }
    const image = element("img", { src: picture.src, alt: label, draggable: "false", decoding: "async" });
    this.root = element("div", { class: "stage" }, image, overlay, this.clicks, this.cross);
    this.root.style.setProperty("--ratio", width / height);
  }

  /** The pixel of the whole image under a point of the window. */
  pixelAt(clientX, clientY) {
    const { left, top, width, height } = this.box;
    const shown = this.root.getBoundingClientRect();
    const column = Math.floor(((clientX - shown.left) * width) / shown.width);
    const row = Math.floor(((clientY - shown.top) * height) / shown.height);
    return this.inside({ x: left + column, y: top + row });
  }

  /** The nearest pixel of the crop. */
  inside({ x, y }) {
    const { left, top, width, height } = this.box;
    return {
      x: Math.min(Math.max(x, left), left + width - 1),
      y: Math.min(Math.max(y, top), top + height - 1),
    };
  }

  /** Draw clicks; those of an earlier round are `old`. */
  showClicks(clicks, old = []) {
    const dots = [...old.map((click) => this.dot(click, "old ")), ...clicks.map((c) => this.dot(c))];
    this.clicks.replaceChildren(...dots);
  }

  showCross(pixel) {
    this.cross.hidden = pixel === null;
    if (pixel) this.place(this.cross, pixel);
  }

  dot(click, more = "") {
    const kind = click.positive ? "positive" : "negative";
    const made = element("span", { class: `click ${more}${kind}` }, click.positive ? "+" : "\u2212");
    this.place(made, click);
    return made;
  }

  place(what, { x, y }) {
    const { left, top, width, height } = this.box;
    what.style.left = `${(100 * (x - left + 0.5)) / width}%`;
    what.style.top = `${(100 * (y - top + 0.5)) / height}%`;
  }
}
