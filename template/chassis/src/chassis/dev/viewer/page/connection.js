// The connection to the viewer.

import { byId } from "./elements.js";

export const product = { command: "make dev", services: null, seen: [], panels: [] };

export const hasStopped = () => `${product.command} has stopped. Its next start prints a new address.`;

export function say(text, isLost = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("lost", isLost);
}

// Return the answer, or null after a sentence for the reader.
export async function ask(path, options = {}) {
  try {
    const response = await fetch(path, options);
    if (response.ok || response.status === 304) return response;
    say((await response.text()).trim(), true);
  } catch {
    say(hasStopped(), true);
  }
  return null;
}

export async function get(path) {
  const response = await ask(path);
  return response && response.json();
}

export async function post(path) {
  const response = await ask(path, { method: "POST" });
  return response && response.text();
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
  } catch {
    say("The browser does not allow this page to copy.", true);
  }
}
