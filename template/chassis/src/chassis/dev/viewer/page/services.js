// The services that run together, and what a reader may do with them.

import { copy, get, post, product, say } from "./connection.js";
import { byId, button, counted, element, link, service } from "./elements.js";
import { onlyOf } from "./lists.js";

const TONES = { ready: "good", starting: "warn", unready: "warn", broken: "bad", stopped: "", stub: "" };
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
  const open = new Set([...document.querySelectorAll("#services details[open]")].map((each) => each.dataset.key));
  byId("cards").replaceChildren(...states.map(card));
  for (const each of document.querySelectorAll("#services details")) each.open ||= open.has(each.dataset.key);
  if (focused) document.querySelector(`#services [data-key="${CSS.escape(focused)}"]`)?.focus();
  const running = states.filter((each) => each.state !== "stub");
  const ready = running.filter((each) => each.state === "ready").length;
  byId("ready").textContent = `${ready} of ${running.length} ready`;
}

function card(state) {
  const title = element("h2", "", service(state.name), element("span", `chip ${TONES[state.state]}`, state.doing ? `${state.state}: ${state.doing}` : state.state));
  const facts = element("dl");
  const add = (name, ...content) => facts.append(element("dt", "", name), element("dd", "", ...content));
  if (state.url) add("address", link(state.url, state.url), state.docs_url ? link("docs", state.docs_url) : "");
  if (state.version) add("version", state.version);
  if (state.migration) add("migration", state.migration);
  if (state.state !== "stub") add("restarts", element("span", state.restarts ? "warned" : "", String(state.restarts)));
  if (state.memory_bytes) add("memory", `${(state.memory_bytes / 2 ** 20).toFixed(0)} MiB`);
  add("last 5 minutes", used(state.name));
  if (state.checkout) add("checkout", element("code", "", state.checkout), copying(state.name, "checkout", state.checkout));
  if (state.psql) add("database", element("code", "", state.psql), copying(state.name, "psql", state.psql));
  const possible = { stopped: ["start"], stub: [] }[state.state] ?? ["restart", "stop"];
  const actions = element("p", "actions", ...possible.map((action) => acting(state.name, action)));
  actions.append(button("", "Traces", () => onlyOf(state.name)));
  return element("article", `card ${TONES[state.state]}`, title, facts, problem(state), actions);
}

function used(name) {
  const { count, failed } = traffic.get(name) ?? { count: 0, failed: 0 };
  if (!count) return "nothing";
  return element("span", failed ? "failing" : "", failed ? `${count}, ${failed} failed` : String(count));
}

function problem(state) {
  if (!state.problem) return "";
  const lines = state.problem.trimEnd().split("\n");
  const shown = element("details", "", element("summary", "", lines.at(-1)), element("pre", "", state.problem));
  shown.dataset.key = `problem ${state.name}`;
  shown.open = state.state === "broken";
  return shown;
}

function copying(name, what, text) {
  const made = button("small", "Copy", () => copy(text));
  made.setAttribute("aria-label", `Copy the ${what} of ${name}`);
  made.dataset.key = `${what} ${name}`;
  return made;
}

function acting(name, action) {
  const made = button("", action, async () => {
    made.disabled = true;
    say(`${action}: ${name} …`);
    if ((await post(`services/${encodeURIComponent(name)}/${action}`)) !== null) say(`${action}: ${name}, done`);
    made.disabled = false;
  });
  made.setAttribute("aria-label", `${action} ${name}`);
  made.dataset.key = `${action} ${name}`;
  return made;
}
