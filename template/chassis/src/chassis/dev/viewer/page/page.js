// The page: which view is open, the keys, and the changes that the viewer announces.

import { copy, get, hasStopped, product, say } from "./connection.js";
import { showDetail } from "./detail.js";
import { byId, element } from "./elements.js";
import { enter, filter, list, listAsText, open, showList, useList } from "./lists.js";
import { draw, edgesAsJson, showMap } from "./map.js";
import { messagesAsJson, showMessages } from "./messages.js";
import { showHealth, showServices } from "./services.js";
import { copyTrace, nextFailure, setFolded, showTrace, toggleZoom, useTrace, waterfall } from "./waterfall.js";

const REFRESH_MS = 300;
const SUMMARY_MS = 2000;
const VIEWS = {
  services: { title: "Services", show: showServices, pause: SUMMARY_MS, text: () => JSON.stringify(product, null, 2) },
  traces: { title: "Traces", box: "list", show: showList, pause: REFRESH_MS, rows: list, text: listAsText },
  logs: { title: "Logs", box: "list", show: showList, pause: REFRESH_MS, rows: list, text: listAsText },
  map: { title: "Map", show: showMap, pause: SUMMARY_MS, text: edgesAsJson },
  messages: { title: "Messages", show: showMessages, pause: SUMMARY_MS, text: messagesAsJson },
};
const TRACE = { box: "trace", show: showTrace, pause: REFRESH_MS, rows: waterfall };
const view = { name: "traces", trace: null };
const now = () => (view.trace ? TRACE : VIEWS[view.name]);

let isRefreshing = false;
let isStale = false;
let isPaused = false;

async function showProduct() {
  Object.assign(product, await get("product"));
  showHealth();
  for (const name of product.panels) {
    const tab = document.getElementById(`to-${name}`);
    if (tab) tab.hidden = !product.services?.some((state) => state.panels.includes(name));
  }
}

// A panel that only some services have is a module of the same name, with a style sheet.
async function add(name) {
  const { view: added } = await import(`./${name}.js`);
  const style = element("link");
  Object.assign(style, { rel: "stylesheet", href: `${name}.css` });
  document.head.append(style);
  const box = element("section");
  Object.assign(box, { id: name, tabIndex: -1, hidden: true });
  document.querySelector("main").insertBefore(box, byId("detail"));
  const tab = element("a", "", added.title);
  Object.assign(tab, { id: `to-${name}`, href: `#/${name}`, hidden: true });
  document.querySelector("nav").append(tab);
  document.querySelector("#keys dl").append(element("dt", "", added.key), element("dd", "", added.title.toLowerCase()));
  VIEWS[name] = added;
  KEYS[added.key] = toView(name);
}

async function refresh() {
  isStale = true;
  if (isRefreshing || document.hidden) return;
  isRefreshing = true;
  while (isStale) {
    isStale = false;
    await showProduct();
    await now().show();
    await new Promise((resume) => setTimeout(resume, now().pause));
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

// The address after # says what is shown: a view, /traces/<id>, or any trace id or X-Request-Id.
async function go() {
  const path = decodeURIComponent(location.hash.slice(1));
  const found = /^\/([a-z]+)(?:\/([0-9a-f]{32}))?$/.exec(path || (product.services ? "/services" : "/traces"));
  if (!found || !VIEWS[found[1]] || (found[2] && found[1] !== "traces")) return seek(path);
  if (found[1] === "services" && !product.services) return location.replace("#/traces");
  [, view.name, view.trace = null] = found;
  useTrace(view.trace);
  showDetail(null);
  if (now() !== TRACE && now().rows === list) useList(view.name);
  for (const box of document.querySelectorAll("main > section")) box.hidden = box.id !== (now().box ?? view.name);
  for (const name of Object.keys(VIEWS)) byId(`to-${name}`).setAttribute("aria-current", name === view.name ? "page" : "false");
  document.title = VIEWS[view.name].title;
  byId("heading").textContent = document.title;
  byId("heading").hidden = Boolean(view.trace);
  sayState();
  await now().show();
  // A reader may type already while the view is read.
  if (!document.activeElement.closest("input, select")) (now().rows?.box ?? byId(view.name)).focus({ preventScroll: true });
}

async function seek(id) {
  const answer = await get(`find?id=${encodeURIComponent(id)}`);
  if (!answer?.trace) filter.elements.text.value = id;
  location.replace(answer?.trace ? `#/traces/${answer.trace}` : "#/traces");
}

function move(by) {
  const { rows } = now();
  if (!rows) return;
  const entry = rows.select(rows.chosen < 0 && by > 0 && by < Infinity ? 0 : rows.chosen + by);
  if (rows === waterfall || !byId("detail").hidden) showDetail(entry);
}

const page = () => Math.floor((now().rows?.box.clientHeight ?? 0) / (now().rows?.height ?? 1));
const chosen = () => now().rows?.items[now().rows.chosen];
const toView = (name) => () => byId(`to-${name}`).hidden || (location.hash = `#/${name}`);
const copyView = () => (view.trace ? copyTrace(".txt") : copy(now().text()));
const KEYS = {
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  j: () => move(1),
  k: () => move(-1),
  PageDown: () => move(page()),
  PageUp: () => move(-page()),
  Home: () => move(-Infinity),
  End: () => move(Infinity),
  Enter: () => (view.trace ? showDetail(chosen()) : chosen() && enter(chosen())),
  ArrowLeft: () => view.trace && setFolded(chosen(), true),
  ArrowRight: () => view.trace && setFolded(chosen(), false),
  e: () => view.trace && nextFailure(),
  z: () => view.trace && toggleZoom(),
  c: copyView,
  "/": () => now().box === "list" && filter.elements.text.select(),
  s: toView("services"),
  t: toView("traces"),
  l: toView("logs"),
  m: toView("map"),
  b: toView("messages"),
  p: pause,
  "?": () => byId("keys").showModal(),
  Escape: () => (byId("detail").hidden ? view.trace && (location.hash = "#/traces") : showDetail(null)),
};

const SCROLLS = ["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") byId("rows").focus();
    return;
  }
  if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
  const act = KEYS[event.key];
  if (!act || (SCROLLS.includes(event.key) && !now().rows)) return;
  event.preventDefault();
  act();
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
byId("copy").addEventListener("click", copyView);
byId("pause").addEventListener("click", pause);
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("window").addEventListener("change", showMap);
document.addEventListener("visibilitychange", () => isStale && refresh());
addEventListener("hashchange", go);
addEventListener("resize", () => view.name === "map" && draw());

const changes = new EventSource("events");
changes.addEventListener("message", () => (isPaused ? say("paused, with newer entries") : refresh()));
changes.addEventListener("open", sayState);
changes.addEventListener("error", () => say(hasStopped(), true));
// Rates fall by themselves while nothing arrives.
setInterval(() => now().pause === SUMMARY_MS && !isPaused && refresh(), 10_000);

// A link from elsewhere, `?trace=ID`, is the same as `#ID`.
const linked = new URLSearchParams(location.search).get("trace");
if (linked) history.replaceState(null, "", `${location.pathname}#${encodeURIComponent(linked)}`);
await showProduct();
await Promise.all(product.panels.map(add));
await showProduct();
go();
