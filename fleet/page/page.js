"use strict";

// The page is complete and readable without this script, which sorts, filters, groups, keeps the filters in the address, opens
// the target of a link, moves the focus in the heat map, and shows the age of the data.

const table = document.getElementById("table");
const filter = document.getElementById("filter");
const chips = [...document.querySelectorAll("button.chip")];
const ofServices = [...document.querySelectorAll("[data-service]")];
const rows = [...table.tBodies[0].rows];
const words = new Map(rows.map((row) => [row.dataset.service, `${row.textContent} ${row.dataset.words}`.toLowerCase()]));
const traits = new Map(rows.map((row) => [row.dataset.service, row.dataset]));
const CHOICES = ["state", "owner", "domain", "tier", "version"].filter((name) => filter.elements[name]);
const FIELDS = ["text", ...CHOICES, "group"].filter((name) => filter.elements[name]);
// The height of the note over the lower edge of a table.
const NOTE = 32;
let order = rows;

function sortBy(column) {
  const header = table.tHead.rows[0].cells[column];
  const isDown = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isDown ? "descending" : "ascending");
  const compare = (a, b) =>
    rows[0].cells[column].dataset.sort === undefined
      ? a.cells[column].textContent.localeCompare(b.cells[column].textContent, undefined, { numeric: true })
      : a.cells[column].dataset.sort - b.cells[column].dataset.sort;
  order = [...rows].sort((a, b) => (isDown ? compare(b, a) : compare(a, b)));
  group();
}

// Put the rows into one body for each value of the chosen trait, in the order of the first row of each.
function group() {
  const by = filter.elements.group?.value;
  const bodies = new Map();
  for (const row of order) {
    const value = by ? row.dataset[by] : "";
    if (!bodies.has(value)) bodies.set(value, document.createElement("tbody"));
    bodies.get(value).append(row);
  }
  if (!bodies.size) bodies.set("", document.createElement("tbody"));
  for (const [value, body] of bodies) if (by) body.prepend(heading(by, value, [...body.rows]));
  while (table.tBodies.length) table.tBodies[0].remove();
  table.append(...bodies.values());
}

function heading(by, value, members) {
  const row = document.createElement("tr");
  const cell = document.createElement("th");
  const shown = members.filter((one) => !one.hidden);
  const orderly = shown.filter((one) => one.dataset.state === "in order").length;
  row.className = "group";
  row.hidden = !shown.length;
  cell.colSpan = table.tHead.rows[0].cells.length;
  cell.scope = "rowgroup";
  cell.textContent = value === "-" ? `without ${by}` : value;
  const tally = document.createElement("span");
  tally.textContent = `${orderly} of ${shown.length} in order`;
  cell.append(" ", tally);
  row.append(cell);
  return row;
}

// A version is found whole: v1.1.1 does not find v1.1.10.
function finder(text) {
  if (!/^v?\d+(\.\d+)+$/.test(text)) return (words) => words.includes(text);
  const whole = new RegExp(`(?<![\\d.])${text.replaceAll(".", "\\.")}(?!\\d)`);
  return (words) => whole.test(words);
}

function show() {
  const isFound = finder(filter.elements.text.value.trim().toLowerCase());
  const isShown = (service) =>
    isFound(words.get(service)) &&
    CHOICES.every((name) => !filter.elements[name].value || traits.get(service)[name] === filter.elements[name].value);
  for (const part of ofServices) part.hidden = !isShown(part.dataset.service);
  const state = filter.elements.state.value;
  for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.state === state));
  filter.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
  group();
  stopAt(marks.find((mark) => !mark.closest("tr").hidden));
}

// The address has the filters after the #, so that a link to the page keeps them.
function remember() {
  const kept = new URLSearchParams();
  for (const name of FIELDS) if (filter.elements[name].value) kept.set(name, filter.elements[name].value);
  history.replaceState(null, "", String(kept) ? `#${kept}` : location.pathname + location.search);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  filter.reset();
  for (const name of FIELDS) {
    const field = filter.elements[name];
    const value = kept.get(name) ?? "";
    if (field.type === "search" || [...field.options].some((option) => option.value === value)) field.value = value;
  }
  show();
}

function open() {
  if (FIELDS.some((name) => new URLSearchParams(location.hash.slice(1)).has(name))) {
    recall();
    document.getElementById("services").scrollIntoView();
    return;
  }
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
filter.addEventListener("input", () => {
  show();
  remember();
});
filter.addEventListener("reset", () =>
  setTimeout(() => {
    show();
    remember();
  }),
);
filter.addEventListener("submit", (event) => event.preventDefault());
for (const chip of chips) {
  chip.addEventListener("click", () => {
    const select = filter.elements.state;
    select.value = select.value === chip.dataset.state ? "" : chip.dataset.state;
    show();
    remember();
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

// A table in a box that is too low states how many rows are below its edge, because a screen may show no scroll bar.
function countBelow(box) {
  const edge = box.getBoundingClientRect().bottom + 1;
  const ends = [...box.querySelectorAll("tbody tr:not(.group, [hidden])")].map((row) => row.getBoundingClientRect().bottom);
  const isCut = ends.at(-1) > edge;
  const below = ends.filter((end) => end > edge - NOTE).length;
  if (isCut) box.dataset.below = `↓ ${below} more below: scroll`;
  else delete box.dataset.below;
}

const sizes = new ResizeObserver((entries) => {
  for (const entry of entries) countBelow(entry.target.closest(".scroll"));
});
for (const box of document.querySelectorAll(".scroll")) {
  box.addEventListener("scroll", () => countBelow(box), { passive: true });
  sizes.observe(box.querySelector("table"));
  sizes.observe(box);
}

// A page that is a day old, or older, states its age: its findings may be fixed already.
const age = Math.floor((Date.now() - new Date(document.getElementById("generated").dateTime)) / 86_400_000);
if (age > 0) {
  const shown = document.getElementById("age");
  shown.textContent = `This page is ${age} ${age === 1 ? "day" : "days"} old`;
  shown.hidden = false;
}
show();
open();
