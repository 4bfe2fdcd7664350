"use strict";

// The map is complete and readable without this script, which zooms, moves, searches, and shows the neighbours of a service.

(() => {
  const view = document.querySelector(".map-view");
  const drawing = view?.querySelector("svg");
  if (!drawing) return;

  const sheet = document.querySelector(".map-sheet");
  const tools = sheet.querySelector(".map-tools");
  const search = tools.querySelector("input");
  const said = tools.querySelector("output");
  const chosen = sheet.querySelector(".map-chosen");
  const whole = drawing.viewBox.baseVal;
  const all = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
  const services = new Map([...drawing.querySelectorAll(".service")].map((one) => [one.dataset.name, one]));
  const arrows = [...drawing.querySelectorAll(".arrows .arrow")];
  const badges = [...drawing.querySelectorAll(".badge")];
  const findings = [...sheet.querySelectorAll(".map-findings li")].map((row) => ({ row, names: JSON.parse(row.dataset.services) }));
  const rows = [...sheet.querySelectorAll(".map-services li")];
  const LEGIBLE = 0.56;
  const CLOSEST = 3;
  const VERBS = { call: ["calls", "is called by"], event: ["publishes to", "listens to"], job: ["sends jobs to", "gets jobs from"] };
  let shown = { ...all };

  // A view is the part of the drawing that is shown, as wide and high for its size as the box on the screen.

  function fitted({ x, y, width, height }) {
    const box = view.getBoundingClientRect();
    const ratio = box.width / box.height || 1;
    const [w, h] = width / height < ratio ? [height * ratio, height] : [width, width / ratio];
    return { x: x - (w - width) / 2, y: y - (h - height) / 2, width: w, height: h };
  }

  function scale() {
    return view.clientWidth / shown.width;
  }

  function show(next) {
    const most = fitted(all).width;
    const width = Math.min(Math.max(next.width, view.clientWidth / CLOSEST), Math.max(most, view.clientWidth / CLOSEST));
    const height = (width * next.height) / next.width;
    const clamp = (at, size, start, length) =>
      size >= length ? start - (size - length) / 2 : Math.min(Math.max(at, start), start + length - size);
    const x = next.x + (next.width - width) / 2;
    const y = next.y + (next.height - height) / 2;
    shown = { x: clamp(x, width, all.x, all.width), y: clamp(y, height, all.y, all.height), width, height };
    drawing.setAttribute("viewBox", `${shown.x} ${shown.y} ${shown.width} ${shown.height}`);
    drawing.classList.toggle("far", scale() < LEGIBLE);
    view.classList.toggle("near", height < all.height - 1);
  }

  function zoom(by, at = { x: 0.5, y: 0.5 }) {
    const most = fitted(all).width;
    const width = Math.min(Math.max(shown.width / by, view.clientWidth / CLOSEST), most);
    const part = width / shown.width;
    show({
      x: shown.x + shown.width * at.x * (1 - part),
      y: shown.y + shown.height * at.y * (1 - part),
      width,
      height: shown.height * part,
    });
  }

  function fit() {
    show(fitted(all));
  }

  // A screen that is narrow for the drawing first shows a part of it, so that titles can be read.
  function begin() {
    const box = view.getBoundingClientRect();
    const isNarrow = box.width < box.height && box.width / all.width < LEGIBLE;
    if (!isNarrow) return fit();
    const width = (all.height * box.width) / box.height;
    const middle = badges.length ? boxOf([badges[0]]) : all;
    show({ x: middle.x + middle.width / 2 - width / 2, y: all.y, width, height: all.height });
  }

  function place(event) {
    const box = view.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  function boxOf(parts) {
    const boxes = parts.map((part) => part.getBBox());
    const offset = drawing.querySelector("g[transform]").transform.baseVal.consolidate().matrix;
    const x = Math.min(...boxes.map((box) => box.x));
    const y = Math.min(...boxes.map((box) => box.y));
    const width = Math.max(...boxes.map((box) => box.x + box.width)) - x;
    const height = Math.max(...boxes.map((box) => box.y + box.height)) - y;
    return { x: x + offset.e - 40, y: y + offset.f - 40, width: width + 80, height: height + 80 };
  }

  function reveal(parts) {
    const wanted = fitted(boxOf(parts));
    const isInside =
      wanted.x >= shown.x && wanted.y >= shown.y && wanted.x + wanted.width <= shown.x + shown.width + 1 &&
      wanted.y + wanted.height <= shown.y + shown.height + 1;
    if (!isInside || scale() < LEGIBLE) show(wanted.width < view.clientWidth ? fitted({ ...wanted, ...grown(wanted) }) : wanted);
  }

  function grown({ x, y, width, height }) {
    const missing = Math.max(view.clientWidth - width, 0);
    const other = (missing * height) / width;
    return { x: x - missing / 2, y: y - other / 2, width: width + missing, height: height + other };
  }

  // The neighbours of one service. The address has its name, so a link leads to it, and "back" leads back.

  function named() {
    const found = /^#map\/(.*)$/.exec(location.hash);
    if (!found) return null;
    try {
      return decodeURIComponent(found[1]);
    } catch {
      return null;
    }
  }

  function touches(part, name) {
    return part.dataset.from === name || part.dataset.to === name;
  }

  function choose(name) {
    const service = services.get(name);
    const near = arrows.filter((arrow) => touches(arrow, name));
    const names = new Set([name, ...near.flatMap((arrow) => [arrow.dataset.from, arrow.dataset.to])]);
    drawing.classList.toggle("chosen", Boolean(service));
    for (const part of [...arrows, ...badges]) part.classList.toggle("near", Boolean(service) && touches(part, name));
    for (const [other, part] of services) {
      part.classList.toggle("near", Boolean(service) && names.has(other));
      part.classList.toggle("picked", Boolean(service) && other === name);
    }
    for (const { row, names: concerned } of findings) row.classList.toggle("lit", Boolean(service) && concerned.includes(name));
    chosen.hidden = !service;
    if (!service) return;
    describe(name, near);
    stopAt(service);
    reveal([...names].map((other) => services.get(other)).filter(Boolean));
  }

  function element(tag, text = "", attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function describe(name, near) {
    const words = element("dl");
    for (const [kind, [out, back]] of Object.entries(VERBS)) {
      for (const [verb, mine, other] of [[out, "from", "to"], [back, "to", "from"]]) {
        const there = near.filter((arrow) => arrow.classList.contains(kind) && arrow.dataset[mine] === name);
        if (!there.length) continue;
        words.append(element("dt", verb));
        for (const arrow of there) {
          const row = element("dd");
          row.append(element("a", arrow.dataset[other], { href: `#map/${encodeURIComponent(arrow.dataset[other])}` }));
          row.append(element("span", ` ${arrow.dataset.names}${arrow.classList.contains("wrong") ? " ✕ error" : ""}`));
          words.append(row);
        }
      }
    }
    if (!words.children.length) words.append(element("dt", "no calls and no messages"));
    const row = rows.find((one) => one.dataset.name === name);
    const ways = element("p", "", { class: "map-ways" });
    if (row?.dataset.link) ways.append(element("a", "Details", { href: row.dataset.link }));
    const back = element("button", "Show all", { type: "button" });
    back.addEventListener("click", leave);
    ways.append(back);
    const about = findings.filter(({ names }) => names.includes(name)).map(({ row: one }) => one.dataset.number);
    const numbers = about.length ? [element("p", `Findings: ${about.join(", ")}`)] : [];
    chosen.replaceChildren(element("h3", name), ...numbers, words, ways);
    sheet.querySelector(".map-side").scrollTop = 0;
  }

  function leave() {
    if (named() !== null) history.pushState(null, "", `${location.pathname}${location.search}#map`);
    choose(null);
    fit();
  }

  function follow() {
    choose(named());
  }

  // Search marks services by their names, their domains and their messages, and shortens the list.

  function find() {
    const text = search.value.trim().toLowerCase();
    const hits = new Set();
    for (const row of rows) {
      const domain = row.closest("ul").previousElementSibling.textContent;
      const isHit = Boolean(text) && `${domain} ${row.textContent}`.toLowerCase().includes(text);
      if (isHit) hits.add(row.dataset.name);
      row.hidden = Boolean(text) && !isHit;
    }
    for (const list of sheet.querySelectorAll(".map-services ul")) {
      list.hidden = list.previousElementSibling.hidden = [...list.children].every((row) => row.hidden);
    }
    for (const [name, part] of services) part.classList.toggle("hit", hits.has(name));
    sheet.querySelector(".map-services").open ||= Boolean(text);
    said.textContent = text ? `${hits.size} of ${rows.length} found` : "";
    return rows.filter((row) => hits.has(row.dataset.name)).map((row) => row.dataset.name);
  }

  search.addEventListener("input", () => {
    const hits = find();
    if (hits.length && hits.length < services.size) reveal(hits.map((name) => services.get(name)).filter(Boolean));
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const hits = find();
    const text = search.value.trim().toLowerCase();
    const best = hits.find((name) => name.toLowerCase() === text) ?? hits.find((name) => name.toLowerCase().includes(text)) ?? hits[0];
    if (best !== undefined) location.hash = `map/${encodeURIComponent(best)}`;
  });

  // The Tab key stops once in the drawing; the arrow keys go on to the next service in their direction.

  const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const KEYS = { "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, Escape: leave };

  function stopAt(service) {
    for (const other of services.values()) other.setAttribute("tabindex", other === service ? "0" : "-1");
  }

  function nextTo(service, [right, down]) {
    const middle = (part) => {
      const box = part.getBBox();
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const [x, y] = middle(service);
    let best = null;
    for (const other of services.values()) {
      const [otherX, otherY] = middle(other);
      const along = (otherX - x) * right + (otherY - y) * down;
      const beside = Math.abs((otherX - x) * down) + Math.abs((otherY - y) * right);
      if (along > 1 && (!best || along + 2 * beside < best.far)) best = { other, far: along + 2 * beside };
    }
    return best?.other;
  }

  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const service = event.target.closest(".service");
    const next = service && DIRECTIONS[event.key] && nextTo(service, DIRECTIONS[event.key]);
    if (next) {
      stopAt(next);
      if (scale() < LEGIBLE) zoom(LEGIBLE / scale() + 0.1);
      next.focus({ preventScroll: true });
      bring(next);
    } else if (KEYS[event.key]) KEYS[event.key]();
    else return;
    event.preventDefault();
  });

  function bring(service) {
    const box = boxOf([service]);
    const x = Math.min(Math.max(shown.x, box.x + box.width - shown.width), box.x);
    const y = Math.min(Math.max(shown.y, box.y + box.height - shown.height), box.y);
    if (x !== shown.x || y !== shown.y) show({ ...shown, x, y });
  }

  // Pointers: one moves the drawing, two zoom. A click after a movement is none.

  const pointers = new Map();
  let moved = 0;

  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, place(event));
    moved = 0;
  });
  addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    pointers.set(event.pointerId, now);
    moved += Math.abs(now.x - before.x) * view.clientWidth + Math.abs(now.y - before.y) * view.clientHeight;
    if (moved < 4) return;
    view.classList.add("moving");
    if (others.length) {
      const far = (at) => Math.hypot((at.x - others[0].x) * view.clientWidth, (at.y - others[0].y) * view.clientHeight) || 1;
      zoom(far(now) / far(before), { x: (now.x + others[0].x) / 2, y: (now.y + others[0].y) / 2 });
    } else show({ ...shown, x: shown.x - (now.x - before.x) * shown.width, y: shown.y - (now.y - before.y) * shown.height });
  });
  for (const end of ["pointerup", "pointercancel"]) {
    addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      view.classList.remove("moving");
    });
  }
  view.addEventListener("dragstart", (event) => event.preventDefault());
  view.addEventListener("click", (event) => {
    if (moved >= 4) event.preventDefault();
  }, true);
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), place(event));
  }, { passive: false });
  view.addEventListener("dblclick", (event) => {
    if (!event.target.closest(".service")) zoom(1.8, place(event));
  });

  // A finding lights up its arrows.

  for (const { row, names } of findings) {
    row.addEventListener("mouseenter", () => light(names, row.dataset.number));
    row.addEventListener("mouseleave", follow);
  }

  function light(names, number) {
    if (named() !== null) return;
    const numbered = badges.filter((badge) => badge.textContent.split(" ").includes(number));
    const isOf = (part) => numbered.some((badge) => badge.dataset.from === part.dataset.from && badge.dataset.to === part.dataset.to);
    drawing.classList.add("chosen");
    for (const part of [...arrows, ...badges]) part.classList.toggle("near", isOf(part));
    for (const [name, part] of services) part.classList.toggle("near", names.includes(name));
  }

  const ACTIONS = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit, print: printMap };
  tools.addEventListener("click", (event) => ACTIONS[event.target.dataset.do]?.());

  // On paper is the whole map, on one sheet.

  function printMap() {
    document.documentElement.classList.add("map-only");
    print();
  }

  addEventListener("beforeprint", () => {
    drawing.setAttribute("viewBox", `${all.x} ${all.y} ${all.width} ${all.height}`);
    drawing.classList.remove("far");
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("map-only");
    show(shown);
  });

  // A font wider than expected is squeezed into its row, so that no text runs into another.

  function squeeze() {
    for (const service of services.values()) {
      const text = service.querySelector("text");
      const room = service.querySelector("rect").width.baseVal.value - 12;
      if (text.getComputedTextLength() > room) {
        text.setAttribute("textLength", room);
        text.setAttribute("lengthAdjust", "spacingAndGlyphs");
      }
    }
  }

  tools.hidden = false;
  sheet.querySelector(".map-hint").hidden = false;
  view.classList.add("movable");
  document.documentElement.style.setProperty("--bar", `${innerWidth - document.documentElement.clientWidth}px`);
  squeeze();
  stopAt(services.values().next().value);
  begin();
  addEventListener("hashchange", follow);
  addEventListener("resize", () => (named() === null ? begin() : follow()));
  if (named() !== null) follow();
})();
