// The choice of a class, and what is shown after a download.

const MOST_SHOWN = 60;

/** Ask for a category; `done` gets its name. */
function chooseCategory(categories, present, done) {
  const dialog = byId("classes");
  const input = byId("class-search");
  const list = byId("class-list");
  let active = 0;

  const show = () => {
    const wanted = input.value.trim().toLocaleLowerCase();
    const names = [...categories.keys()].filter((n) => n.toLocaleLowerCase().includes(wanted));
    active = Math.min(active, Math.max(0, Math.min(names.length, MOST_SHOWN) - 1));
    list.replaceChildren(
      ...names.slice(0, MOST_SHOWN).map((name, i) =>
        element(
          "li",
          {
            role: "option",
            id: `class-${i}`,
            "aria-selected": String(i === active),
            onclick: () => pick(name),
          },
          name,
          name === present ? element("small", {}, " as it is") : "",
        ),
      ),
    );
    if (!names.length) list.append(element("li", { class: "none" }, "no such class"));
    input.setAttribute("aria-activedescendant", names.length ? `class-${active}` : "");
    list.children[active]?.scrollIntoView({ block: "nearest" });
    return names;
  };
  const pick = (name) => {
    dialog.close();
    done(name);
  };
  input.oninput = () => {
    active = 0;
    show();
  };
  input.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) active = Math.max(0, active + step);
    if (event.key === "Enter") {
      const name = show()[active];
      if (name !== undefined) pick(name);
    }
    if (step || event.key === "Enter") {
      event.preventDefault();
      show();
    }
  };
  input.value = "";
  show();
  dialog.showModal();
  input.focus();
}

/** Say what was saved as `name`, and the command that comes next. */
function showSaved(script, name, command) {
  const left = script.halfSplits ? ` ${script.halfSplits} split without clicks of both kinds left out.` : "";
  byId("saved-text").textContent =
    `${name}: ${counted(script.instances, "mask")}, ${counted(script.clicks, "click")}.${left} Next:`;
  byId("saved-command").textContent = command;
  byId("saved-copy").textContent = "Copy";
  byId("saved").hidden = false;
  announce(byId("saved-text").textContent);
}

byId("saved-close").onclick = () => {
  byId("saved").hidden = true;
};
byId("saved-copy").onclick = async () => {
  const text = byId("saved-command").textContent;
  try {
    await navigator.clipboard.writeText(text);
    byId("saved-copy").textContent = "Copied";
    announce("copied");
  } catch {
    getSelection().selectAllChildren(byId("saved-command"));
    byId("saved-copy").textContent = "Now Ctrl+C";
  }
};
