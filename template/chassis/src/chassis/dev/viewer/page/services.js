// The services that run together, and what a reader may do with them.

import { copy, get, post, product, say } from "./connection.js";
import { byId, button, counted, element, link, service, table } from "./elements.js";
import { onlyOf } from "./lists.js";

const TONES = { ready: "good", starting: "warn", unready: "warn", broken: "bad", stopped: "", stub: "" };
const TITLES = ["Service", "State", "Address", "Version", "Migration", "Restarts", "Memory", "Last 5 minutes", "Open or copy", "Do"];
const SECONDS = 300;
const traffic = new Map();
let drawn = "";

export function showHealth() {
  const { services } = product;
  byId("to-services").hidden = !services;
  const wrong = (services ?? []).filter((each) => each.state === "broken" || each.state === "unready").length;
  byId("wrong").textContent = wrong || "";
  byId("wrong").title = wrong ? `${counted(wrong, "service")} not ready` : "";
}

export async function showServices() {
  const answer = await get(`edges?seconds=${SECONDS}`);
  traffic.clear();
  for (const edge of answer?.edges ?? []) {
    if (!edge.count) continue;
    const sum = traffic.get(edge.target) ?? { count: 0, failed: 0 };
    traffic.set(edge.target, { count: sum.count + edge.count, failed: sum.failed + edge.failed });
  }
  const states = product.services ?? [];
  const now = JSON.stringify([states, [...traffic]]);
  if (now === drawn) return;
  drawn = now;
  const focused = document.activeElement?.dataset?.key;
  const open = new Set([...document.querySelectorAll("#problems details[open]")].map((each) => each.dataset.key));
  byId("states").replaceChildren(table("Services", TITLES, states.map(row)));
  byId("problems").replaceChildren(...states.filter((each) => each.problem).map((each) => problem(each, open)));
  if (focused) document.querySelector(`#services [data-key="${CSS.escape(focused)}"]`)?.focus();
  const running = states.filter((each) => each.state !== "stub");
  const ready = running.filter((each) => each.state === "ready").length;
  byId("ready").textContent = `${ready} of ${running.length} ready`;
}

function row(state) {
  const { name } = state;
  const isStub = state.state === "stub";
  const possible = { stopped: ["start"], stub: [] }[state.state] ?? ["restart", "stop"];
  return [
    service(name),
    element("span", `chip ${TONES[state.state]}`, state.doing ? `${state.state}: ${state.doing}` : state.state),
    state.url ? link(state.url, state.url) : "",
    state.version,
    state.migration.slice(0, 4),
    isStub ? "" : element("span", state.restarts ? "warned" : "", String(state.restarts)),
    state.memory_bytes ? `${(state.memory_bytes / 2 ** 20).toFixed(0)} MiB` : "",
    used(name),
    element(
      "span",
      "actions",
      state.docs_url ? link("docs", state.docs_url) : "",
      state.checkout ? copying(name, "checkout", state.checkout) : "",
      state.psql ? copying(name, "psql", state.psql) : "",
    ),
    element("span", "actions", ...possible.map((action) => acting(name, action)), button("small", "Traces", () => onlyOf(name))),
  ];
}

function used(name) {
  const { count, failed } = traffic.get(name) ?? { count: 0, failed: 0 };
  if (!count) return "nothing";
  return element("span", failed ? "failing" : "", failed ? `${count}, ${failed} failed` : String(count));
}

function problem(state, open) {
  const lines = state.problem.trimEnd().split("\n");
  const shown = element("details", "", element("summary", "", service(state.name, lines.at(-1))), element("pre", "", state.problem));
  shown.dataset.key = `problem ${state.name}`;
  shown.open = state.state === "broken" || open.has(shown.dataset.key);
  return shown;
}

function copying(name, what, text) {
  const made = button("small", what, () => copy(text));
  made.title = text;
  made.setAttribute("aria-label", `Copy the ${what} of ${name}`);
  made.dataset.key = `${what} ${name}`;
  return made;
}

function acting(name, action) {
  const made = button("small", action, async () => {
    made.disabled = true;
    say(`${action}: ${name} …`);
    if ((await post(`services/${encodeURIComponent(name)}/${action}`)) !== null) say(`${action}: ${name}, done`);
    made.disabled = false;
  });
  made.setAttribute("aria-label", `${action} ${name}`);
  made.dataset.key = `${action} ${name}`;
  return made;
}
