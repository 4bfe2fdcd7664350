// Everything that is shown came from a service or from a stranger, so it becomes text and nothing else: see `element`.

export const KINDS = { SERVER: "server", CLIENT: "client", PRODUCER: "message", CONSUMER: "message", INTERNAL: "internal" };
export const LEVELS = { warning: "warn", error: "bad", critical: "bad" };
const TONES = 8;

export const byId = (id) => document.getElementById(id);

export function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content.filter((each) => each !== "" && each !== null && each !== undefined));
  return made;
}

export function button(className, text, act) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", (event) => (event.stopPropagation(), act(made)));
  return made;
}

// Only an address of the web or of this page is a link: `javascript:` would run as our own code.
export function link(text, href) {
  if (!/^(https?:\/\/|#)/.test(href)) return text;
  const made = element("a", "", text);
  made.href = href;
  return made;
}

export function table(caption, titles, rows) {
  const cells = (row, kind) => element("tr", "", ...row.map((cell) => element(kind, "", cell)));
  const head = cells(titles, "th");
  for (const title of head.children) title.scope = "col";
  const body = element("tbody", "", ...rows.map((row) => cells(row, "td")));
  for (const row of body.children) [...row.children].forEach((cell, index) => (cell.dataset.title = titles[index]));
  const box = element("div", "scroll", element("table", "", element("caption", "", caption), element("thead", "", head), body));
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", caption);
  return box;
}

export function duration(nanoseconds) {
  if (nanoseconds >= 60e9) return `${(nanoseconds / 60e9).toFixed(1)} min`;
  if (nanoseconds >= 1e9) return `${(nanoseconds / 1e9).toFixed(2)} s`;
  return `${(nanoseconds / 1e6).toFixed(nanoseconds < 1e6 ? 2 : 1)} ms`;
}

export const clock = (time) => new Date(time).toTimeString().slice(0, 8) + time.slice(19, 23);
export const inline = (value) => (typeof value === "string" ? value : JSON.stringify(value));
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
export const facts = (line) => Object.entries(line.facts).map(([name, value]) => `${name}=${inline(value)}`).join(" ");

// A service keeps its colour while the page is open.
const tones = new Map();

export function service(name, more = "") {
  if (!tones.has(name)) tones.set(name, tones.size % TONES);
  return element("span", `service tone${tones.get(name)}`, name || "unnamed", more && element("small", "", more));
}
