"use strict";

// The page is complete and readable without this script, which sorts, filters, opens the target of a link, and moves the focus
// in the heat map.

const table = document.getElementById("table");
const filter = document.getElementById("filter");
const tiles = [...document.querySelectorAll("button.tile")];
const ofServices = [...document.querySelectorAll("[data-service]")];
const words = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.service, row.textContent.toLowerCase()]));

function sortBy(column) {
  const header = table.tHead.rows[0].cells[column];
  const isDown = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isDown ? "descending" : "ascending");
  const compare = (a, b) =>
    column === 0
      ? a.cells[0].textContent.localeCompare(b.cells[0].textContent, undefined, { numeric: true })
      : a.cells[column].dataset.sort - b.cells[column].dataset.sort;
  const rows = [...table.tBodies[0].rows].sort((a, b) => (isDown ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...rows);
}

function show() {
  const text = filter.elements.text.value.trim().toLowerCase();
  const state = filter.elements.state.value;
  for (const part of ofServices) {
    part.hidden = (state && part.dataset.state !== state) || !words.get(part.dataset.service).includes(text);
  }
  for (const tile of tiles) tile.setAttribute("aria-pressed", String(tile.dataset.state === state));
  const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
  filter.querySelector("output").textContent = `${shown} of ${words.size} shown`;
  stopAt(marks.find((mark) => !mark.closest("tr").hidden));
}

function open() {
  let target = null;
  try {
    target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return;
  }
  const folded = target?.closest("details");
  if (!folded) return;
  folded.open = true;
  folded.hidden = false;
  target.scrollIntoView({ block: target === folded ? "start" : "center" });
  (target === folded ? folded.querySelector("summary") : target).focus({ preventScroll: true });
}

[...table.tHead.rows[0].cells].forEach((header, column) => header.firstElementChild.addEventListener("click", () => sortBy(column)));
filter.addEventListener("input", show);
filter.addEventListener("submit", (event) => event.preventDefault());
for (const tile of tiles) {
  tile.addEventListener("click", () => {
    const select = filter.elements.state;
    select.value = select.value === tile.dataset.state ? "" : tile.dataset.state;
    show();
  });
}
addEventListener("hashchange", open);
// A second click on the same link changes no hash.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (link && link.getAttribute("href") === location.hash) open();
});

// The Tab key stops once in the heat map; the arrow keys move from there.
const marks = [...document.querySelectorAll("#heatmap td a")];
const DIRECTIONS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

function stopAt(mark) {
  for (const other of marks) other.tabIndex = other === mark ? 0 : -1;
}

function next(mark, down, right) {
  const column = mark.parentElement.cellIndex;
  let row = mark.closest("tr");
  let cell = mark.parentElement;
  while (row) {
    if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    cell = down ? row?.cells[column] : right > 0 ? cell.nextElementSibling : cell.previousElementSibling;
    if (!cell) return null;
    const found = cell.matches("td") && !row.hidden && cell.querySelector("a");
    if (found) return found;
  }
  return null;
}

document.getElementById("heatmap")?.addEventListener("keydown", (event) => {
  const mark = event.target.closest("td a");
  const found = mark && DIRECTIONS[event.key] && next(mark, ...DIRECTIONS[event.key]);
  if (!found) return;
  event.preventDefault();
  stopAt(found);
  found.focus();
});
show();
open();
