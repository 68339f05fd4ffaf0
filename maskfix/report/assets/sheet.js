// The click sheet: all given masks, waiting for clicks.

const { about, items } = data("content");

byId("about").textContent = about.title;
new Gallery({
  about,
  items,
  stages: (item, picture) => [
    new Stage(
      picture,
      [{ kind: "mask", path: picture.masks.given }],
      `crop of ${item.file} around ${item.category} ${item.label}`,
    ),
  ],
  sorts: [
    ["Order as given", null],
    ["By image", (a, b) => a.file.localeCompare(b.file)],
    ["By class", (a, b) => a.category.localeCompare(b.category)],
  ],
});
