// The details of a span or a log line.

import { copy } from "./connection.js";
import { byId, button, clock, duration, element, inline, link } from "./elements.js";

export function showDetail(entry) {
  const detail = byId("detail");
  detail.hidden = !entry;
  if (!entry) return detail.replaceChildren();
  const isLine = entry.event !== undefined;
  const facts = { ...(isLine ? entry.facts : entry.attributes) };
  const known = isLine
    ? { level: entry.level, service: entry.service, time: entry.time && clock(entry.time), request: entry.request }
    : { service: entry.service, kind: entry.kind, duration: duration(entry.duration), begins: `after ${duration(entry.offset)}` };
  if (entry.waited) known.waited = `${duration(entry.waited)} ${waitedWhere(entry)}`;
  if (entry.message) known.status = entry.message;
  const close = button("close", "×", () => showDetail(null));
  close.setAttribute("aria-label", "Close the details");
  detail.replaceChildren(
    close,
    element("h2", "", entry.name ?? entry.event),
    facts["db.query.text"] ? element("pre", "", facts["db.query.text"]) : "",
    pairs(known),
    pairs(facts),
  );
  for (const [name, attributes] of entry.events ?? []) detail.append(element("h3", "", name), pairs(attributes));
  const links = isLine && entry.time ? [entry.trace] : (entry.links ?? []);
  for (const id of links.filter(Boolean)) detail.append(element("h3", "", link(`Trace ${id}`, `#/traces/${encodeURIComponent(id)}`)));
  detail.append(element("h3", "", button("", "Copy JSON", () => copy(JSON.stringify(entry, null, 2)))));
}

export const waitedWhere = (entry) => (entry.kind === "PRODUCER" ? "in the outbox" : "at the broker");

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
