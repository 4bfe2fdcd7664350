// One trace, as a waterfall through all services and the broker.

import { ask, copy, say } from "./connection.js";
import { showDetail, waitedWhere } from "./detail.js";
import { button, byId, clock, counted, duration, element, facts, KINDS, LEVELS, service } from "./elements.js";
import { Rows } from "./rows.js";

const DEEPEST_INDENT = 20;
const INDENT_REM = 0.9;
export const waterfall = new Rows(byId("waterfall"), drawEntry, (entry) => showDetail(entry));
const opened = { id: null, entries: [], folded: new Set(), parents: new Map(), tag: null, zoomed: null, from: 0, length: 1 };
const isFailure = (entry) => entry.failed || LEVELS[entry.level] === "bad";

export function useTrace(id) {
  Object.assign(opened, { id, tag: null, zoomed: null, entries: [] });
  opened.folded.clear();
  waterfall.set([], -1);
  byId("waterfall").scrollTop = 0;
}

export async function showTrace() {
  const { id } = opened;
  const response = await ask(`traces/${id}`, { headers: opened.tag ? { "If-None-Match": opened.tag } : {} });
  if (!response || response.status === 304 || opened.id !== id) return;
  opened.tag = response.headers.get("ETag");
  const answer = await response.json();
  if (opened.id !== id) return;
  const { entries } = answer;
  opened.entries = entries;
  opened.parents = new Map(entries.filter((entry) => entry.id).map((entry) => [entry.id, entry]));
  for (const entry of entries) entry.waited = waited(entry);
  opened.whole = Math.max(1, entries.reduce((latest, entry) => Math.max(latest, entry.offset + (entry.duration ?? 0)), 0));
  if (!opened.zoomed) zoom(null);
  const spans = entries.filter((entry) => entry.id);
  const root = spans[0] ?? { name: "Log lines of a trace without spans" };
  byId("trace").querySelector("h1").textContent = document.title = root.name;
  byId("trace").querySelector("#title p").textContent =
    `${duration(opened.whole)} · ${counted(spans.length, "span")} · ${clock(answer.start)} · ${id}`;
  showParts(spans);
  showFailures(entries.filter(isFailure));
  fold();
}

// A message waits in the outbox until its `send`, and at the broker until its `process`.
function waited(entry) {
  const parent = opened.parents.get(entry.parent);
  if (!entry.id || !parent || KINDS[entry.kind] !== "message") return 0;
  return Math.max(0, entry.offset - parent.offset - parent.duration);
}

function showParts(spans) {
  const parts = new Map();
  for (const { service: name } of spans) parts.set(name, (parts.get(name) ?? 0) + 1);
  byId("parts").hidden = parts.size < 2;
  byId("parts").replaceChildren(...[...parts].map(([name, count]) => element("li", "", service(name, String(count)))));
}

// The failures that have a reason come first, and of those the deepest, where a failure begins.
function showFailures(failures) {
  const explained = failures.map((entry) => [entry, reasonOf(entry)]);
  explained.sort(([a, reason], [b, other]) => Boolean(other) - Boolean(reason) || b.depth - a.depth);
  const shown = explained.slice(0, 3).map(([entry, reason]) => {
    const text = [entry.service, entry.name ?? entry.event, reason].filter(Boolean).join(" · ");
    return element("li", "", button("", text, () => choose(entry)));
  });
  if (failures.length > 3) shown.push(element("li", "quiet", `and ${failures.length - 3} more: e shows the next one`));
  byId("failures").replaceChildren(...shown);
}

function reasonOf(entry) {
  const error = entry.facts?.exception ?? Object.fromEntries(entry.events ?? []).exception ?? {};
  const told = [error.type ?? error["exception.type"], error.message ?? error["exception.message"] ?? entry.message];
  return told.filter(Boolean).join(" · ") || (entry.facts && facts(entry));
}

function zoom(entry) {
  opened.zoomed = entry;
  opened.from = entry ? entry.offset : 0;
  opened.length = Math.max(1, entry ? entry.duration : opened.whole);
  [...byId("ruler").children].forEach((tick, part) => {
    tick.textContent = duration(opened.from + (opened.length * part) / 4);
  });
}

export function toggleZoom() {
  const entry = waterfall.items[waterfall.chosen];
  if (!opened.zoomed && !entry?.duration) return;
  zoom(opened.zoomed ? null : entry);
  fold();
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

export function setFolded(entry, isFolded) {
  if (!entry?.id) return;
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

export function nextFailure() {
  const at = opened.entries.indexOf(waterfall.items[waterfall.chosen]);
  const found = opened.entries.findIndex((entry, index) => index > at && isFailure(entry));
  const next = opened.entries[found] ?? opened.entries.find(isFailure);
  if (next) choose(next);
}

const percent = (offset) => (100 * (offset - opened.from)) / opened.length;

function drawEntry(entry, index) {
  const isLine = !entry.id;
  const isFolded = opened.folded.has(entry.id);
  const hasChildren = isFolded || waterfall.items[index + 1]?.depth > entry.depth;
  const sql = isLine ? "" : entry.attributes["db.query.text"];
  const more = isLine ? facts(entry) : (sql ?? (entry.kind === "CLIENT" && entry.attributes["url.full"]));
  const twist = hasChildren ? button("fold", isFolded ? "▸" : "▾", () => setFolded(entry, !isFolded)) : element("span", "fold");
  twist.tabIndex = -1;
  const isNew = opened.parents.get(entry.parent)?.service !== entry.service;
  const name = element("span", "name", twist, isNew ? service(entry.service) : element("span", "mark"), element("span", "", entry.name ?? entry.event));
  if (typeof more === "string" && more) name.append(element("code", "", more.slice(0, 300)));
  name.style.paddingLeft = `${Math.min(entry.depth, DEEPEST_INDENT) * INDENT_REM}rem`;
  const track = element("span", "track", ...(isLine ? drawDot(entry) : drawBar(entry)));
  const kind = isLine ? `log ${LEVELS[entry.level] ?? ""}` : sql ? "sql" : (KINDS[entry.kind] ?? "internal");
  const row = element("div", `${kind} ${isFailure(entry) ? "failed" : ""}`, name, track);
  row.setAttribute("aria-level", entry.depth + 1);
  if (hasChildren) row.setAttribute("aria-expanded", !isFolded);
  return row;
}

function drawDot(entry) {
  const dot = element("span", "dot");
  dot.style.left = `${percent(entry.offset)}%`;
  return [dot];
}

function drawBar(entry) {
  const bar = element("span", "bar");
  const label = element("span", "label", duration(entry.duration));
  const from = percent(entry.offset);
  const to = percent(entry.offset + entry.duration);
  bar.style.left = `${from}%`;
  bar.style.width = `${Math.max(0, to - from)}%`;
  if (to < 75) label.style.left = `${Math.max(0, to)}%`;
  else if (percent(entry.offset - entry.waited) < 12) label.classList.add("inside");
  else label.style.right = `${Math.max(0, 100 - percent(entry.offset - entry.waited))}%`;
  if (!entry.waited) return [bar, label];
  label.append(element("em", "", ` after ${duration(entry.waited)} ${waitedWhere(entry)}`));
  const wait = element("span", "wait");
  wait.title = `waited ${duration(entry.waited)}`;
  wait.style.left = `${percent(entry.offset - entry.waited)}%`;
  wait.style.width = `${(100 * entry.waited) / opened.length}%`;
  return [wait, bar, label];
}

export async function copyTrace(suffix) {
  const response = await ask(`traces/${opened.id}${suffix}`);
  if (response) await copy(await response.text());
  else say(`There is no trace ${opened.id}. The viewer forgets the oldest traces.`, true);
}
