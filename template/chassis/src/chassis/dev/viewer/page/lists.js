// The list of traces, and the stream of log lines.

import { get, product } from "./connection.js";
import { showDetail } from "./detail.js";
import { byId, clock, counted, duration, element, facts, LEVELS, service } from "./elements.js";
import { Rows } from "./rows.js";

export const filter = document.querySelector("#list form");
export const list = new Rows(byId("rows"), (item) => (item.event === undefined ? drawTrace(item) : drawLine(item)), open);
let name = "traces";
let slowest = 1;

export function useList(wanted) {
  if (wanted !== name) list.set([], -1);
  name = wanted;
  byId("rows").className = `rows ${name}`;
  for (const part of filter.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== name;
}

export async function showList() {
  offerServices();
  const fields = [...new FormData(filter)];
  const wanted = fields.filter(([field, value]) => value && !filter.elements[field].closest("[data-of]")?.hidden);
  const asked = name;
  const answer = await get(`${asked}?${new URLSearchParams(wanted)}`);
  if (!answer || name !== asked) return;
  const items = answer.traces ?? answer.lines;
  if (JSON.stringify(items) !== JSON.stringify(list.items)) {
    const key = (item) => item && (item.id ?? item.number);
    const before = key(list.items[list.chosen]);
    slowest = Math.max(1, ...items.map((item) => item.duration ?? 0));
    list.set(items, before === undefined ? -1 : items.findIndex((item) => key(item) === before));
  }
  const count = answer.count ?? items.length;
  const noun = counted(count, asked === "logs" ? "line" : "trace");
  filter.elements.count.value = count > items.length ? `the newest ${items.length} of ${noun}` : noun;
  const isFiltered = wanted.some(([field, value]) => !(field === "level" && value === "debug"));
  byId("empty").hidden = items.length > 0;
  byId("rows").hidden = items.length === 0;
  byId("empty").textContent = isFiltered
    ? "Nothing matches the filters."
    : `Nothing has happened yet. Send a request, for example with the curl command that ${product.command} has printed.`;
}

function offerServices() {
  const choice = filter.elements.service;
  const offered = [...choice.options].slice(1).map((option) => option.value);
  for (const seen of product.seen.filter((each) => each && !offered.includes(each))) choice.add(new Option(seen, seen));
  choice.hidden = product.seen.length < 2;
  byId("rows").classList.toggle("single", choice.hidden);
}

export function onlyOf(wanted) {
  filter.reset();
  offerServices();
  filter.elements.service.value = wanted;
  location.hash = "#/traces";
}

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
    element("span", "services", ...trace.services.map(([each, , failed]) => service(each, failed ? "failed" : ""))),
    meter,
    element("span", "duration number", duration(trace.duration)),
    element("span", "spans number quiet", counted(trace.spans, "span")),
  );
}

function drawLine(line) {
  return element(
    "div",
    `${LEVELS[line.level] ?? ""} ${Object.keys(line.facts).length ? "" : "plain"}`,
    element("span", "time quiet", clock(line.time)),
    element("span", `chip ${LEVELS[line.level] ?? ""}`, line.level),
    element("span", "services", service(line.service)),
    element("span", "name", line.event),
    element("span", "facts quiet", facts(line).slice(0, 500)),
  );
}

export function open(item) {
  if (item?.event !== undefined) showDetail(item);
  else if (item) location.hash = `#/traces/${item.id}`;
}

// Enter shows the details of a log line, and then its trace.
export function enter(item) {
  if (item?.trace && !byId("detail").hidden) location.hash = `#/traces/${item.trace}`;
  else open(item);
}

export function listAsText() {
  const line = (item) =>
    item.event === undefined
      ? [item.start, item.status ?? "", item.name, duration(item.duration), item.services.map(([each]) => each).join(","), item.id]
      : [item.time, item.level, item.service, item.event, facts(item), item.trace];
  return list.items.map((item) => line(item).join("  ").trimEnd()).join("\n");
}
