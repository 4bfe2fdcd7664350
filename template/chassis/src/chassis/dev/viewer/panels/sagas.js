// Sagas: the parked and the latest of each service as a line of steps, and what a reader may decide about a parked saga.

import { get, post, product, say } from "./connection.js";
import { button, clock, counted, element, link, service } from "./elements.js";

const MOST = 20;
const LONGEST = 600;
const RECENT_MS = 5000; // each question starts a program of the service
const TONES = { waiting: "warn", undoing: "warn", completed: "good", parked: "bad" };
// The class of a step's shape, and how the legend names it.
const SHAPES = { done: "done", answered: "answer", waits: "waits", late: "time is up", refused: "refused or failed", undone: "undone" };
const DECISIONS = { retry: "Retry", "by-hand": "Retry, done by hand", abandon: "Abandon" };
const SURE = { "by-hand": "Really done by hand?", abandon: "Undo all steps?" };
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

const answers = new Map();
const asked = new Map(); // the last question to each service, and when the service answered
const pressed = new Map(); // the buttons that ask "sure?" or wait for an answer
let drawn = "";

const concerned = () => (product.services ?? []).filter((state) => state.panels.includes("sagas")).map((state) => state.name);
const box = () => document.getElementById("sagas");
const short = (text, most = LONGEST) => (text.length > most ? `${text.slice(0, most)}…` : text);

export const view = {
  title: "Sagas",
  key: "g",
  pause: 2000,
  show: showSagas,
  text: () => JSON.stringify(Object.fromEntries(answers), null, 2),
};

// Nothing waits for the answers here, so that other views are not late.
async function showSagas() {
  for (const name of concerned()) if (Date.now() - (asked.get(name)?.answered ?? 0) > RECENT_MS) read(name).then(draw);
  draw();
}

async function read(name) {
  const question = { answered: Infinity };
  asked.set(name, question);
  const found = await get(`services/${encodeURIComponent(name)}/sagas`);
  question.answered = Date.now();
  // An answer from before a decision does not replace the answer from after it.
  if (asked.get(name) === question && Array.isArray(found)) answers.set(name, found.slice(0, MOST));
}

function draw() {
  const names = concerned();
  const now = JSON.stringify([names, names.map((name) => answers.get(name)), [...pressed]]);
  if (now !== drawn) {
    drawn = now;
    const focused = document.activeElement?.dataset?.key;
    box().replaceChildren(legend(), ...names.flatMap(part));
    if (focused) box().querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
  tick();
}

function legend() {
  const keys = Object.entries(SHAPES).map(([shape, text]) => element("li", shape, element("span", "", text)));
  const list = element("ul", "steps", ...keys);
  list.setAttribute("aria-label", "Legend");
  return list;
}

function part(name) {
  const found = answers.get(name);
  const parked = (found ?? []).filter((saga) => saga.problem).length;
  const count = found ? counted(found.length, "saga") : "asking …";
  const none = element("p", "quiet", `No saga has started in ${name}.`);
  const title = element("h2", "", service(name, count), parked ? element("span", "chip bad", `${parked} parked`) : "");
  return [title, ...(found?.length ? found.map((saga) => card(name, saga)) : [found ? none : ""])];
}

function card(name, saga) {
  const state = saga.problem ? "parked" : saga.state;
  const title = element(
    "p",
    "saga-title",
    element("strong", "", saga.name),
    element("code", "", short(saga.key, 200)),
    element("span", `chip ${TONES[state] ?? ""}`, saga.problem && saga.state === "undoing" ? "parked while undoing" : state),
    element("span", "quiet", "since ", relative(saga.started_at)),
    saga.trace_id ? link("Trace", `#/traces/${saga.trace_id}`) : "",
  );
  const line = element("ol", "steps", ...saga.steps.map(done), next(saga));
  line.setAttribute("aria-label", `Steps of ${saga.name} ${saga.key}`);
  const made = element(
    "article",
    saga.problem ? "bad" : "",
    title,
    line,
    saga.reason ? element("p", "quiet", `Abandoned because of: ${short(saga.reason)}`) : "",
    saga.problem ? element("p", "failing problem", short(saga.problem)) : "",
    saga.problem ? element("p", "actions", ...possible(saga).map((decision) => deciding(name, saga, decision))) : "",
  );
  made.setAttribute("aria-label", `${saga.name} ${saga.key}, ${state}`);
  return made;
}

function step(shape, name, detail, title = "") {
  const made = element("li", shape, element("span", "", short(name, 100)), element("small", "", ...[detail].flat()));
  made.title = title;
  return made;
}

function done({ name, at, answer, error, undone, by_hand }) {
  const title = `${clock(at)}${undone ? `, undone ${clock(undone)}` : ""}`;
  if (undone) return step("undone", name, by_hand ? "undone by hand" : "undone", title);
  if (error !== undefined) return step("refused", name, error, title);
  if (answer === "TimedOut") return step("late", name, "time is up", title);
  return answer ? step("answered", name, answer, title) : step("done", name, "done", title);
}

// The step that comes next is known by name only if the saga waits: the function decides about all others.
function next({ state, position, problem, deadline }) {
  const name = { waiting: position, undoing: "next compensation" }[state] ?? "next step";
  if (problem) return step("refused", name, "failed");
  if (state === "waiting") return step("waits", name, deadline ? ["time is up ", relative(deadline)] : ["waits"]);
  return state === "completed" || state === "abandoned" ? "" : step("waits", name, "comes next");
}

function possible({ state }) {
  return state === "undoing" ? ["retry", "by-hand"] : ["retry", "abandon"];
}

// An abandoned saga cannot be resumed, and a recorded compensation is not performed, so both buttons ask once more.
function deciding(name, saga, decision) {
  const key = `${decision} ${name} ${saga.id} ${saga.problem}`; // another problem is another question
  const sure = SURE[decision];
  const isAsking = pressed.get(key) === "sure";
  const made = button("small", isAsking ? sure : DECISIONS[decision], async () => {
    for (const [other, state] of pressed) if (state === "sure") pressed.delete(other);
    pressed.set(key, sure && !isAsking ? "sure" : "busy");
    draw();
    if (pressed.get(key) === "sure") return;
    const answer = await post(`services/${encodeURIComponent(name)}/sagas/${decision}/${encodeURIComponent(saga.id)}`);
    if (answer !== null) await read(name);
    pressed.delete(key);
    draw();
    if (answer !== null) say(`${saga.name} ${short(saga.key, 40)}: ${answer.trim().split("  ").at(-1)}`);
  });
  made.disabled = pressed.get(key) === "busy";
  made.setAttribute("aria-label", `${made.textContent} ${saga.name} ${saga.key}`);
  made.dataset.key = key;
  return made;
}

function relative(moment) {
  const made = element("time");
  made.dateTime = moment;
  made.title = new Date(moment).toLocaleString();
  return made;
}

const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });

function tick() {
  for (const time of box().querySelectorAll("time")) {
    const seconds = Math.round((Date.parse(time.dateTime) - Date.now()) / 1000);
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
    const text = words.format(Math.trunc(seconds / size), unit);
    if (time.textContent !== text) time.textContent = text;
  }
}

setInterval(() => box().hidden || tick(), 1000);
