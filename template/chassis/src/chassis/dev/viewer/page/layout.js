// Where the services of the map stand: in layers from callers to the services that they use. The same edges always give
// the same map.

export function layers(edges) {
  const below = new Map();
  for (const { source, target } of edges) {
    for (const name of [source, target]) if (!below.has(name)) below.set(name, new Set());
    if (source !== target) below.get(source).add(target);
  }
  const called = new Set([...below.values()].flatMap((names) => [...names]));
  const names = [...below.keys()].sort((a, b) => called.has(a) - called.has(b) || (a < b ? -1 : 1));
  const forward = withoutCycles(names, below);
  const depth = new Map(names.map((name) => [name, 0]));
  // Callers come before the services that they call, so one pass suffices.
  for (const [source, target] of forward) depth.set(target, Math.max(depth.get(target), depth.get(source) + 1));
  const rows = [];
  for (const name of names) (rows[depth.get(name)] ??= []).push(name);
  return straighten(rows, forward);
}

// Leave out the edges that lead back to a caller.
function withoutCycles(names, below) {
  const seen = new Set();
  const finished = new Map();
  const visit = (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    [...below.get(name)].sort().forEach(visit);
    finished.set(name, finished.size);
  };
  names.forEach(visit);
  const forward = names.flatMap((name) => [...below.get(name)].map((next) => [name, next]));
  return forward
    .filter(([source, target]) => finished.get(source) > finished.get(target))
    .sort((a, b) => finished.get(b[0]) - finished.get(a[0]));
}

// Order each layer by the mean place of its callers, so that fewer edges cross.
function straighten(rows, forward) {
  const place = new Map(rows.flatMap((row) => row.map((name, index) => [name, index - (row.length - 1) / 2])));
  for (const row of rows.slice(1)) {
    const wanted = new Map(
      row.map((name) => {
        const callers = forward.filter(([, target]) => target === name).map(([source]) => place.get(source));
        return [name, callers.length ? callers.reduce((sum, each) => sum + each, 0) / callers.length : place.get(name)];
      }),
    );
    row.sort((a, b) => wanted.get(a) - wanted.get(b) || (a < b ? -1 : 1));
    row.forEach((name, index) => place.set(name, index - (row.length - 1) / 2));
  }
  return rows;
}
