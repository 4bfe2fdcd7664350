// Which services used each other in the last minutes, laid over what their documents declare.

import { get, product } from "./connection.js";
import { byId, button, counted, duration, element, service, table } from "./elements.js";
import { layers } from "./layout.js";
import { onlyOf } from "./lists.js";

const SVG = "http://www.w3.org/2000/svg";
const NARROW = 640;
const NODE = { width: 132, height: 44 };
const GAP = { wide: { along: 150, across: 40, label: 0.5 }, narrow: { along: 64, across: 16, label: 0.7 } };
const OUTSIDE = "outside";
let edges = [];
let drawn = "";

const seconds = () => Number(byId("window").value);
export const edgesAsJson = () => JSON.stringify(edges, null, 2);

export async function showMap() {
  const answer = await get(`edges?seconds=${seconds()}`);
  if (!answer) return;
  edges = answer.edges;
  draw();
}

export function draw() {
  const isNarrow = byId("map").clientWidth < NARROW;
  const now = JSON.stringify([edges, isNarrow, seconds()]);
  if (now === drawn) return;
  drawn = now;
  byId("unused").hidden = edges.length > 0;
  byId("drawing").replaceChildren(...(edges.length ? [picture(merged(), isNarrow)] : []));
  const undeclared = edges.filter((edge) => edge.declared === false).length;
  byId("undeclared").textContent = undeclared ? `${counted(undeclared, "edge")} that no document declares` : "";
  byId("edges").replaceChildren(...(edges.length ? [list()] : []));
}

// One line of the picture for all messages from one service to another.
function merged() {
  const lines = new Map();
  for (const edge of edges) {
    const key = JSON.stringify([edge.source, edge.target, edge.kind]);
    const line = lines.get(key) ?? { ...edge, count: 0, failed: 0, declared: true, names: [] };
    line.count += edge.count;
    line.failed += edge.failed;
    if (edge.declared === false) line.declared = false;
    if (edge.name) line.names.push(edge.name);
    lines.set(key, line);
  }
  return [...lines.values()];
}

const perMinute = (count) => {
  const rate = (count * 60) / seconds();
  return rate && rate < 10 ? rate.toFixed(1) : rate.toFixed(0);
};

function svg(name, attributes, ...content) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...content);
  return made;
}

function picture(lines, isNarrow) {
  const rows = layers(lines);
  const gap = isNarrow ? GAP.narrow : GAP.wide;
  const size = isNarrow ? { along: NODE.height, across: NODE.width - 28 } : { along: NODE.width, across: NODE.height };
  // Layers follow each other along the one side of the picture: from the left, or on a narrow screen from the top.
  const point = (along, across) => (isNarrow ? [across, along] : [along, across]);
  const step = size.across + gap.across;
  const middle = Math.max(...rows.map((row) => row.length)) * step / 2 + gap.across / 2;
  const along = rows.length * (size.along + gap.along) - gap.along + 24;
  const spots = new Map();
  rows.forEach((row, layer) => {
    row.forEach((name, index) => {
      const centre = middle + (index - (row.length - 1) / 2) * step;
      spots.set(name, { along: 12 + layer * (size.along + gap.along), across: centre - size.across / 2 });
    });
  });
  spread(lines, spots);
  const isRound = lines.some((line) => !isForward(line, spots));
  const [width, height] = point(along, 2 * middle + (isRound ? size.across / 2 : 0));
  const label = `Map of ${counted(spots.size, "service")}; the table has the same edges`;
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  made.append(svg("defs", {}, ...["used", "failing", "unused", "undeclared"].map(arrow)));
  made.append(...lines.flatMap((line) => edgeOf(line, spots, size, point, gap.label)));
  made.append(...[...spots].map(([name, spot]) => node(name, point(spot.along, spot.across), point(size.along, size.across))));
  return made;
}

const toneOf = (line) => (line.failed ? "failing" : line.declared === false ? "undeclared" : line.count ? "used" : "unused");

function arrow(tone) {
  const head = svg("path", { d: "M0,0 L8,4 L0,8 z", class: `head ${tone}` });
  const box = { viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse" };
  return svg("marker", { id: `arrow-${tone}`, orient: "auto", ...box }, head);
}

const isForward = (line, spots) => spots.get(line.target).along > spots.get(line.source).along;

// Spread the ends of the edges over the side of a service, in the order of the services at the other ends.
function spread(lines, spots) {
  for (const [own, other, port] of [["source", "target", "out"], ["target", "source", "into"]]) {
    for (const name of spots.keys()) {
      const ends = lines.filter((line) => line[own] === name && isForward(line, spots));
      ends.sort((a, b) => spots.get(a[other]).across - spots.get(b[other]).across || (a.kind < b.kind ? -1 : 1));
      ends.forEach((line, index) => (line[port] = (index + 1) / (ends.length + 1)));
    }
  }
}

// An edge that leads back, or to the same service, goes around beside the services.
function curve(line, spots, size) {
  const [from, to] = [spots.get(line.source), spots.get(line.target)];
  if (isForward(line, spots)) {
    const [start, end] = [from.along + size.along, to.along];
    const [out, into] = [from.across + size.across * line.out, to.across + size.across * line.into];
    const middle = (start + end) / 2;
    return { points: [[start, out], [middle, out], [middle, into], [end, into]], label: -6 };
  }
  const [start, end, bend] = [from.along + 0.6 * size.along, to.along + 0.4 * size.along, size.across + 8];
  const [low, high] = [from.across + size.across, to.across + size.across];
  return { points: [[start, low], [start, low + bend], [end, high + bend], [end, high]], label: 14 };
}

function onCurve([a, b, c, d], t) {
  const s = 1 - t;
  return s * s * s * a + 3 * s * s * t * b + 3 * s * t * t * c + t * t * t * d;
}

function edgeOf(line, spots, size, point, labelAt) {
  const { points, label } = curve(line, spots, size);
  const [start, ...others] = points.map(([along, across]) => point(along, across));
  const tone = toneOf(line);
  const path = svg("path", { d: `M${start} C${others.join(" ")}`, class: `edge ${tone} ${line.kind}`, "marker-end": `url(#arrow-${tone})` });
  path.style.strokeWidth = `${Math.min(5, 1.25 + Math.log10(1 + line.count))}px`;
  const by = line.names.join(", ") || "HTTP";
  path.append(svg("title", {}, `${line.source || OUTSIDE} → ${line.target}: ${by}, ${perMinute(line.count)} a minute, ${line.failed} failed`));
  if (!line.count) return [path];
  const failed = line.failed ? ` · ${Math.ceil((100 * line.failed) / line.count)} % failed` : "";
  const [along, across] = [0, 1].map((axis) => onCurve(points.map((each) => each[axis]), labelAt));
  const [x, y] = point(along, across + label);
  const write = (text, below) => svg("text", { x, y: y + below, class: `rate ${tone}`, "text-anchor": "middle" }, text);
  const texts = [write(`${perMinute(line.count)}/min${failed}`, 0)];
  if (line.declared === false) texts.push(write("undeclared", 18));
  return [path, ...texts];
}

function node(name, [x, y], [width, height]) {
  const state = product.services?.find((each) => each.name === name)?.state;
  const box = svg("rect", { width, height, rx: 8 });
  const shown = name || OUTSIDE;
  const text = svg("text", { x: width / 2, y: state ? height / 2 - 2 : height / 2 + 5, "text-anchor": "middle" }, shown.length > 18 ? `${shown.slice(0, 17)}…` : shown);
  const title = svg("title", {}, state ? `${name}: ${state}` : shown);
  const made = svg("g", { transform: `translate(${x},${y})`, class: `node ${name ? "" : "outside"} ${state ?? ""}` }, title, box, text);
  if (state) made.append(svg("text", { x: width / 2, y: height / 2 + 14, "text-anchor": "middle", class: "state" }, state));
  return made;
}

function showing(edge) {
  const made = button("small", "Show", () => onlyOf(edge.target));
  made.setAttribute("aria-label", `Show the traces of ${edge.target}`);
  return made;
}

function list() {
  const rows = edges.map((edge) => [
    edge.source ? service(edge.source) : OUTSIDE,
    service(edge.target),
    edge.kind === "http" ? "HTTP" : edge.name,
    perMinute(edge.count),
    edge.failed ? element("span", "failing", String(edge.failed)) : "0",
    edge.count ? duration(edge.mean) : "–",
    edge.count ? showing(edge) : element("span", "quiet", "unused"),
    edge.declared === false ? element("span", "warned", "undeclared") : edge.declared ? "yes" : "–",
  ]);
  return table("Edges of the map", ["From", "To", "By", "A minute", "Failed", "Mean", "Traces", "Declared"], rows);
}
