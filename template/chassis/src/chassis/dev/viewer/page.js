"use strict";

// Everything that is shown came from a service or from a stranger, so it becomes text and nothing else: see `element`.

const byId = (id) => document.getElementById(id);
const filter = document.querySelector("#list form");
const KINDS = { SERVER: "server", CLIENT: "client", PRODUCER: "message", CONSUMER: "message", INTERNAL: "internal" };
const LEVELS = { warning: "warn", error: "bad", critical: "bad" };
const DEEPEST_INDENT = 20;
const REFRESH_MS = 300;

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content.filter((each) => each !== "" && each !== null && each !== undefined));
  return made;
}

function button(className, text, act) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", (event) => (event.stopPropagation(), act()));
  return made;
}

function duration(nanoseconds) {
  if (nanoseconds >= 60e9) return `${(nanoseconds / 60e9).toFixed(1)} min`;
  if (nanoseconds >= 1e9) return `${(nanoseconds / 1e9).toFixed(2)} s`;
  return `${(nanoseconds / 1e6).toFixed(nanoseconds < 1e6 ? 2 : 1)} ms`;
}

const clock = (time) => new Date(time).toTimeString().slice(0, 8) + time.slice(19, 23);
const inline = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const isFailure = (entry) => entry.failed || LEVELS[entry.level] === "bad";

// A list of rows of one height, of which only the visible ones are in the document.
class Rows {
  constructor(box, draw, open) {
    Object.assign(this, { box, draw, items: [], chosen: -1, shown: new Map(), waiting: false });
    box.addEventListener("scroll", () => this.soon());
    box.addEventListener("click", (event) => {
      // By the position, because a row that is drawn again between press and release gets no click.
      const index = Math.floor((event.clientY - box.getBoundingClientRect().top + box.scrollTop) / this.height);
      if (index < this.items.length) open(this.select(index));
    });
    new ResizeObserver(() => (this.height === this.rowHeight() ? this.render() : this.set(this.items))).observe(box);
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row"));
  }

  set(items, chosen = this.chosen) {
    this.items = items;
    this.chosen = Math.min(chosen, items.length - 1);
    this.height = this.rowHeight();
    this.box.firstElementChild.style.height = `${items.length * this.height}px`;
    for (const row of this.shown.values()) row.remove();
    this.shown.clear();
    this.render();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    this.waiting = false;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 8);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 8);
    for (const [index, row] of this.shown) {
      if (index >= first && index < last) continue;
      row.remove();
      this.shown.delete(index);
    }
    const added = document.createDocumentFragment();
    for (let index = first; index < last; index++) {
      if (this.shown.has(index)) continue;
      const row = this.draw(this.items[index], index);
      row.classList.add("row");
      row.id = `${this.box.id}-${index}`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-setsize", this.items.length);
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-selected", index === this.chosen);
      row.style.transform = `translateY(${index * this.height}px)`;
      this.shown.set(index, row);
      added.append(row);
    }
    this.box.firstElementChild.append(added);
  }

  select(index) {
    if (!this.items.length) return null;
    this.shown.get(this.chosen)?.setAttribute("aria-selected", false);
    this.chosen = Math.max(0, Math.min(index, this.items.length - 1));
    const top = this.chosen * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const bottom = top + this.height - this.box.clientHeight;
    if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.render();
    this.shown.get(this.chosen)?.setAttribute("aria-selected", true);
    this.box.setAttribute("aria-activedescendant", `${this.box.id}-${this.chosen}`);
    return this.items[this.chosen];
  }
}

// The address after # says what is shown: /traces, /logs, /traces/<id>, or any trace id or X-Request-Id.

const view = { name: "traces", trace: null };
let slowest = 1;
const list = new Rows(byId("rows"), (item) => (item.event === undefined ? drawTrace(item) : drawLine(item)), open);
const waterfall = new Rows(byId("waterfall"), drawEntry, (entry) => showDetail(entry));

function drawTrace(trace) {
  const tone = trace.failed || trace.status >= 500 ? "bad" : trace.status >= 400 ? "warn" : trace.status ? "good" : "";
  const meter = element("span", "meter");
  meter.style.width = `${Math.max(1, (100 * trace.duration) / slowest)}%`;
  return element(
    "div",
    tone,
    element("span", "time quiet", clock(trace.start)),
    element("span", `chip ${tone}`, String(trace.status ?? (trace.failed ? "failed" : "–"))),
    element("span", "name", trace.name),
    meter,
    element("span", "duration number", duration(trace.duration)),
    element("span", "spans number quiet", `${trace.spans} ${trace.spans === 1 ? "span" : "spans"}`),
  );
}

function drawLine(line) {
  const facts = Object.entries(line.facts).map(([name, value]) => `${name}=${inline(value)}`);
  return element(
    "div",
    "",
    element("span", "time quiet", clock(line.time)),
    element("span", `chip ${LEVELS[line.level] ?? ""}`, line.level),
    element("span", "name", line.event),
    element("span", "facts quiet", facts.join(" ").slice(0, 500)),
  );
}

function open(item) {
  if (view.name === "traces" && item) location.hash = `#/traces/${item.id}`;
  else if (item) showDetail(item);
}

async function showList() {
  const fields = new FormData(filter);
  const wanted = [...fields].filter(([name, value]) => value && filter.elements[name].closest("[data-of]")?.dataset.of !== other());
  const name = view.name;
  const answer = await get(`${name}?${new URLSearchParams(wanted)}`);
  if (!answer || view.trace || view.name !== name) return;
  const items = answer.traces ?? answer.lines;
  if (JSON.stringify(items) !== JSON.stringify(list.items)) {
    const key = (item) => item && (item.id ?? item.number);
    const before = key(list.items[list.chosen]);
    slowest = Math.max(1, ...items.map((item) => item.duration ?? 0));
    list.set(items, before === undefined ? -1 : items.findIndex((item) => key(item) === before));
  }
  const count = answer.count ?? items.length;
  filter.elements.count.value = `${count > items.length ? `the newest ${items.length} of ` : ""}${count} ${name === "logs" ? "lines" : "traces"}`;
  const isFiltered = wanted.some(([name, value]) => !(name === "level" && value === "debug"));
  byId("empty").hidden = items.length > 0;
  byId("rows").hidden = items.length === 0;
  byId("empty").textContent = isFiltered
    ? "Nothing matches the filters."
    : "Nothing has happened yet. Send a request, for example with the curl command that make dev has printed.";
}

const other = () => (view.name === "logs" ? "traces" : "logs");

// One trace.

const opened = { entries: [], folded: new Set(), parents: new Map(), tag: null, from: 0, length: 1 };

async function showTrace() {
  const id = view.trace;
  const answer = await get(`traces/${id}`, opened.tag ? { "If-None-Match": opened.tag } : {});
  if (!answer || view.trace !== id) return;
  opened.entries = answer.entries;
  opened.parents = new Map(answer.entries.filter((entry) => entry.id).map((entry) => [entry.id, entry]));
  const end = answer.entries.reduce((latest, entry) => Math.max(latest, entry.offset + (entry.duration ?? 0)), 0);
  opened.whole = Math.max(1, end);
  if (!opened.zoomed) zoom(null);
  const spans = answer.entries.filter((entry) => entry.id);
  const root = spans[0] ?? { name: "Log lines of a trace without spans" };
  byId("trace").querySelector("h1").textContent = document.title = root.name;
  byId("trace").querySelector("#title p").textContent =
    `${duration(opened.whole)} · ${spans.length} ${spans.length === 1 ? "span" : "spans"} · ${clock(answer.start)} · ${id}`;
  const failures = answer.entries.filter(isFailure);
  const shown = failures.slice(0, 3).map((entry) => {
    const error = entry.facts?.exception ?? Object.fromEntries(entry.events ?? []).exception ?? {};
    const reason = [error.type ?? error["exception.type"], error.message ?? error["exception.message"] ?? entry.message];
    return element("li", "", button("", [entry.name ?? entry.event, ...reason].filter(Boolean).join(" · "), () => choose(entry)));
  });
  if (failures.length > 3) shown.push(element("li", "quiet", `and ${failures.length - 3} more: e shows the next one`));
  byId("failures").replaceChildren(...shown);
  fold();
}

function zoom(entry) {
  opened.zoomed = entry;
  opened.from = entry ? entry.offset : 0;
  opened.length = Math.max(1, entry ? entry.duration : opened.whole);
  [...byId("ruler").children].forEach((tick, part) => {
    tick.textContent = duration(opened.from + (opened.length * part) / 4);
  });
}

function fold(kept = waterfall.items[waterfall.chosen]) {
  const rows = [];
  let hiddenBelow = Infinity;
  for (const entry of opened.entries) {
    if (entry.depth > hiddenBelow) continue;
    hiddenBelow = opened.folded.has(entry.id) ? entry.depth : Infinity;
    rows.push(entry);
  }
  const key = (entry) => entry.id || `${entry.offset} ${entry.event}`;
  waterfall.set(rows, kept ? rows.findIndex((entry) => key(entry) === key(kept)) : -1);
}

function setFolded(entry, isFolded) {
  if (isFolded) opened.folded.add(entry.id);
  else opened.folded.delete(entry.id);
  fold(entry);
}

function choose(entry) {
  if (!waterfall.items.includes(entry)) {
    opened.folded.clear();
    fold(entry);
  }
  waterfall.select(waterfall.items.indexOf(entry));
  showDetail(entry);
}

function nextFailure() {
  const at = opened.entries.indexOf(waterfall.items[waterfall.chosen]);
  const found = opened.entries.findIndex((entry, index) => index > at && isFailure(entry));
  const next = opened.entries[found] ?? opened.entries.find(isFailure);
  if (next) choose(next);
}

const percent = (offset) => (100 * (offset - opened.from)) / opened.length;

function drawEntry(entry, index) {
  const isLine = !entry.id;
  const hasChildren = waterfall.items[index + 1]?.depth > entry.depth || opened.folded.has(entry.id);
  const isFolded = opened.folded.has(entry.id);
  const sql = isLine ? "" : entry.attributes["db.query.text"];
  const facts = isLine ? Object.entries(entry.facts).map(([name, value]) => `${name}=${inline(value)}`).join(" ") : sql;
  const twist = hasChildren ? button("fold", isFolded ? "▸" : "▾", () => setFolded(entry, !isFolded)) : element("span", "fold");
  twist.tabIndex = -1;
  const name = element("span", "name", twist, element("span", "mark"), entry.name ?? entry.event);
  if (typeof facts === "string" && facts) name.append(element("code", "", facts.slice(0, 300)));
  name.style.paddingLeft = `${Math.min(entry.depth, DEEPEST_INDENT) * 0.9}rem`;
  const track = element("span", "track", ...(isLine ? drawDot(entry) : drawBar(entry)));
  const kind = isLine ? `log ${LEVELS[entry.level] ?? ""}` : sql ? "sql" : (KINDS[entry.kind] ?? "internal");
  return element("div", `${kind} ${isFailure(entry) ? "failed" : ""}`, name, track);
}

function drawDot(entry) {
  const dot = element("span", "dot");
  dot.style.left = `${percent(entry.offset)}%`;
  return [dot];
}

function drawBar(entry) {
  const bar = element("span", "bar");
  const label = element("span", "label", duration(entry.duration));
  const parent = opened.parents.get(entry.parent);
  const waited = parent && KINDS[entry.kind] === "message" ? Math.max(0, entry.offset - parent.offset - parent.duration) : 0;
  const from = percent(entry.offset);
  const to = percent(entry.offset + entry.duration);
  bar.style.left = `${from}%`;
  bar.style.width = `${Math.max(0, to - from)}%`;
  if (to < 80) label.style.left = `${Math.max(0, to)}%`;
  else label.style.right = `${Math.min(95, Math.max(0, 100 - percent(entry.offset - waited)))}%`;
  if (!waited) return [bar, label];
  const wait = element("span", "wait");
  wait.title = `waited ${duration(waited)}`;
  wait.style.left = `${percent(entry.offset - waited)}%`;
  wait.style.width = `${(100 * waited) / opened.length}%`;
  return [wait, bar, label];
}

// The details of a span or a log line.

function showDetail(entry) {
  const detail = byId("detail");
  detail.hidden = !entry;
  if (!entry) return detail.replaceChildren();
  const isLine = entry.event !== undefined;
  const facts = { ...(isLine ? entry.facts : entry.attributes) };
  const known = isLine
    ? { level: entry.level, service: entry.service, time: entry.time && clock(entry.time) }
    : { service: entry.service, kind: entry.kind, duration: duration(entry.duration), begins: `after ${duration(entry.offset)}` };
  if (entry.message) known.status = entry.message;
  detail.replaceChildren(
    button("close", "×", () => showDetail(null)),
    element("h2", "", entry.name ?? entry.event),
    facts["db.query.text"] ? element("pre", "", facts["db.query.text"]) : "",
    pairs(known),
    pairs(facts),
  );
  for (const [name, attributes] of entry.events ?? []) detail.append(element("h3", "", name), pairs(attributes));
  const links = isLine && !view.trace ? [entry.trace] : (entry.links ?? []);
  for (const id of links.filter(Boolean)) {
    const link = element("a", "", `Trace ${id}`);
    link.href = `#/traces/${encodeURIComponent(id)}`;
    detail.append(element("h3", "", link));
  }
  detail.append(element("h3", "", button("", "Copy JSON", () => copy(JSON.stringify(entry, null, 2)))));
}

function pairs(facts) {
  const made = element("dl");
  for (const [name, value] of Object.entries(facts)) {
    if (name === "db.query.text" || value === undefined || value === "") continue;
    const isNested = value !== null && typeof value === "object" && !Array.isArray(value);
    const text = isNested ? "" : inline(value);
    if (isNested) made.append(element("dt", "", name), element("dd", "", pairs(value)));
    else if (text.includes("\n")) made.append(element("dt", "", name), element("dd"), element("pre", "", text));
    else made.append(element("dt", "", name), element("dd", "", text));
  }
  return made;
}

// The connection to the viewer.

let isRefreshing = false;
let isStale = false;
let isPaused = false;

async function get(path, headers = {}) {
  try {
    const response = await fetch(path, { headers });
    if (response.ok && path.startsWith("traces/")) opened.tag = response.headers.get("ETag");
    if (response.status === 404) say(`There is no trace ${view.trace}. The viewer forgets the oldest traces.`, true);
    return response.ok ? await response.json() : null;
  } catch {
    say("make dev has stopped. Its next start prints a new address.", true);
    return null;
  }
}

function say(text, isLost = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("lost", isLost);
}

async function refresh() {
  isStale = true;
  if (isRefreshing || document.hidden) return;
  isRefreshing = true;
  while (isStale) {
    isStale = false;
    await (view.trace ? showTrace() : showList());
    await new Promise((resume) => setTimeout(resume, REFRESH_MS));
  }
  isRefreshing = false;
}

function sayState() {
  say(isPaused ? "paused" : "live");
}

function pause() {
  isPaused = !isPaused;
  byId("pause").textContent = isPaused ? "Resume" : "Pause";
  sayState();
  if (!isPaused) refresh();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
  } catch {
    say("The browser does not allow this page to copy.", true);
  }
}

async function copyTrace(suffix) {
  const response = await fetch(`traces/${view.trace}${suffix}`);
  await copy(await response.text());
}

async function go() {
  const path = decodeURIComponent(location.hash.slice(1));
  const found = /^\/(traces|logs)(?:\/([0-9a-f]{32}))?$/.exec(path || "/traces");
  if (!found) return seek(path);
  [, view.name, view.trace = null] = found;
  Object.assign(opened, { tag: null, zoomed: null, entries: [] });
  opened.folded.clear();
  waterfall.set([], -1);
  byId("waterfall").scrollTop = 0;
  showDetail(null);
  byId("list").hidden = Boolean(view.trace);
  byId("trace").hidden = !view.trace;
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = part.dataset.of === other();
  for (const name of ["traces", "logs"]) byId(`to-${name}`).setAttribute("aria-current", name === view.name ? "page" : "false");
  if (!view.trace) {
    if (byId("rows").className !== `rows ${view.name}`) list.set([], -1);
    byId("rows").className = `rows ${view.name}`;
    document.title = view.name === "logs" ? "Logs" : "Traces";
  }
  sayState();
  await (view.trace ? showTrace() : showList());
  (view.trace ? waterfall : list).box.focus({ preventScroll: true });
}

async function seek(id) {
  const answer = await get(`find?id=${encodeURIComponent(id)}`);
  if (answer?.trace) location.replace(`#/traces/${answer.trace}`);
  else {
    filter.elements.text.value = id;
    location.replace("#/traces");
  }
}

const KEYS = {
  ArrowDown: (rows) => move(rows, 1),
  ArrowUp: (rows) => move(rows, -1),
  j: (rows) => move(rows, 1),
  k: (rows) => move(rows, -1),
  PageDown: (rows) => move(rows, Math.floor(rows.box.clientHeight / rows.height)),
  PageUp: (rows) => move(rows, -Math.floor(rows.box.clientHeight / rows.height)),
  Home: (rows) => move(rows, -Infinity),
  End: (rows) => move(rows, Infinity),
  Enter: (rows) => rows === list && open(rows.items[rows.chosen]),
  ArrowLeft: (rows) => rows === waterfall && rows.items[rows.chosen]?.id && setFolded(rows.items[rows.chosen], true),
  ArrowRight: (rows) => rows === waterfall && rows.items[rows.chosen]?.id && setFolded(rows.items[rows.chosen], false),
  e: () => view.trace && nextFailure(),
  c: () => view.trace && copyTrace(".txt"),
  z: (rows) => {
    const entry = rows.items[rows.chosen];
    if (rows !== waterfall || (!opened.zoomed && !entry?.duration)) return;
    zoom(opened.zoomed ? null : entry);
    fold();
  },
  "/": () => !view.trace && filter.elements.text.select(),
  t: () => (location.hash = "#/traces"),
  l: () => (location.hash = "#/logs"),
  p: pause,
  "?": () => byId("keys").showModal(),
  Escape: () => (byId("detail").hidden ? view.trace && (location.hash = "#/traces") : showDetail(null)),
};

function move(rows, by) {
  const entry = rows.select(rows.chosen < 0 && by > 0 && by < Infinity ? 0 : rows.chosen + by);
  if (rows === waterfall || !byId("detail").hidden) showDetail(entry);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") byId("rows").focus();
    return;
  }
  if (event.key === "Enter" && event.target.closest("button, a")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act(view.trace ? waterfall : list);
});
filter.addEventListener("input", refresh);
filter.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = filter.elements.text.value.trim();
  const answer = text && (await get(`find?id=${encodeURIComponent(text)}`));
  if (answer?.trace) location.hash = `#/traces/${answer.trace}`;
});
byId("copy-text").addEventListener("click", () => copyTrace(".txt"));
byId("copy-json").addEventListener("click", () => copyTrace(""));
byId("pause").addEventListener("click", pause);
byId("help").addEventListener("click", () => byId("keys").showModal());
document.addEventListener("visibilitychange", () => isStale && refresh());
addEventListener("hashchange", go);

const changes = new EventSource("events");
changes.addEventListener("message", () => (isPaused ? say("paused, with newer entries") : refresh()));
changes.addEventListener("open", sayState);
changes.addEventListener("error", () => say("make dev has stopped. Its next start prints a new address.", true));
go();
