// Messages: what waits in the outboxes, what went over the broker, and what is parked.

import { get, post, product, say } from "./connection.js";
import { byId, button, clock, duration, element, service, table } from "./elements.js";

const SECONDS = 300;
let shown = {};
let drawn = "";
export const messagesAsJson = () => JSON.stringify(shown, null, 2);

export async function showMessages() {
  const [traffic, gauges] = await Promise.all([get(`edges?seconds=${SECONDS}`), get("gauges")]);
  if (!traffic || !gauges) return;
  const handled = traffic.edges.filter((edge) => edge.kind === "message" && edge.count);
  shown = { waiting: gauges, sent: traffic.sent, handled };
  const now = JSON.stringify(shown);
  if (now === drawn) return;
  drawn = now;
  const names = [...new Set([...traffic.sent, ...handled].map((each) => each.name))].sort();
  byId("silent").hidden = names.length > 0 || Object.keys(gauges).length > 0;
  byId("waiting").replaceChildren(...(Object.keys(gauges).length ? [outboxes(gauges)] : []));
  byId("carried").replaceChildren(...(names.length ? [carried(names, traffic.sent, handled)] : []));
}

const alarming = (number) => (number ? element("span", "failing", String(number)) : "0");

function outboxes(gauges) {
  const rows = Object.keys(gauges).sort().map((name) => {
    const { waiting = 0, oldest_seconds = 0, parked = 0 } = gauges[name];
    const look = product.services ? button("small", "Show", () => showParked(name)) : "";
    if (look) look.setAttribute("aria-label", `Show the parked messages of ${name}`);
    return [service(name), String(waiting), waiting ? duration(oldest_seconds * 1e9) : "–", alarming(parked), look];
  });
  return table("Outboxes and parked messages", ["Service", "To be sent", "Oldest", "Parked", "Look"], rows);
}

function carried(names, sent, handled) {
  const rows = names.flatMap((name) => {
    const senders = sent.filter((each) => each.name === name);
    const total = senders.reduce((sum, each) => sum + each.count, 0);
    const handlers = handled.filter((each) => each.name === name);
    const by = senders.length ? senders.map((each) => service(each.source)) : ["–"];
    return (handlers.length ? handlers : [null]).map((handler) => [
      element("code", "", name),
      element("span", "services", ...by),
      String(total),
      handler ? service(handler.target) : element("span", "quiet", "nobody here"),
      handler ? String(handler.count) : "–",
      handler ? alarming(handler.failed) : "–",
      handler?.waited == null ? "–" : duration(handler.waited),
      handler?.count ? duration(handler.mean) : "–",
    ]);
  });
  return table("Messages of the last 5 minutes", ["Message", "Sent by", "Sent", "Handled by", "Handled", "Failed", "Waited", "Took"], rows);
}

async function showParked(name) {
  say(`asking ${name} …`);
  const found = await get(`services/${encodeURIComponent(name)}/parked`);
  if (!found) return;
  say(`${found.length} parked in ${name}`);
  const rows = found.map((message) => [
    clock(message.parked_at.padEnd(23, "0")),
    element("code", "", message.name),
    message.direction,
    element("span", "reason", message.reason.split("\n")[0]),
    element("span", "actions", ...["replay", "drop"].map((action) => acting(name, message, action))),
  ]);
  const content = rows.length
    ? table(`Parked messages of ${name}`, ["Since", "Message", "Direction", "Reason", "Do"], rows)
    : element("p", "quiet", `No message is parked in ${name}.`);
  byId("parked").replaceChildren(content);
}

// A dropped message is gone for good, so `drop` asks once more.
function acting(name, message, action) {
  let isSure = action === "replay";
  const made = button("small", action, async () => {
    if (!isSure) {
      isSure = true;
      made.textContent = "drop for good?";
      return;
    }
    made.disabled = true;
    const answer = await post(`services/${encodeURIComponent(name)}/parked/${action}/${encodeURIComponent(message.id)}`);
    if (answer === null) made.disabled = false;
    else await showParked(name);
  });
  made.setAttribute("aria-label", `${action} ${message.name} ${message.id}`);
  return made;
}
