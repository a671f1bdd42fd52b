// The start page: searches as one types, keeps itself up to date, and opens several datasets together. What it shows is
// always what the server has made of the page's address, so that it says the same without this script.
"use strict";

const form = document.querySelector("#search");
const problem = document.querySelector("#problem");
const bar = document.querySelector("#selected");
const TYPING_MS = 200;
const CHANGING_MS = 2000; // while a conversion runs, or the catalog is being made
const REFRESH_MS = 10000;

const selected = new Set(); // paths
let asking = null; // the request that is under way: an answer that is overtaken is not shown
let typing = null;
let shownAt = Date.now();

function address() {
  const wanted = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value && !(name === "sort" && value === "path")) wanted.append(name, value);
  }
  const text = wanted.toString();
  return text ? `?${text}` : form.getAttribute("action");
}

// A proxy may have the server at another address than the server knows.
function here(url) {
  return url.replaceAll(`${bar.dataset.origin}/`, new URL(bar.dataset.home, location.href).href);
}

function keyOf(element) {
  return element.id || element.getAttribute("href") || `${element.name}=${element.value}`;
}

// Put the new parts in place of the old ones; cards that say the same stay, with their pictures.
function show(made) {
  const focused = document.activeElement && form.parentElement.contains(document.activeElement) ? keyOf(document.activeElement) : null;
  const place = document.querySelector("#found");
  const before = new Map([...place.querySelectorAll("li.card")].map((card) => [card.dataset.html, card]));
  const found = made.querySelector("#found");
  for (const card of found.querySelectorAll("li.card")) {
    card.dataset.html = card.innerHTML;
    const same = before.get(card.dataset.html);
    if (same) card.replaceWith(same);
  }
  place.replaceWith(found);
  const facets = made.querySelector("#facets");
  if (facets.innerHTML !== document.querySelector("#facets").innerHTML) document.querySelector("#facets").replaceWith(facets);
  prepare();
  if (focused !== null && document.activeElement === document.body) {
    [...document.querySelectorAll("#facets input, #found a, #found input")].find((each) => keyOf(each) === focused)?.focus();
  }
}

async function refreshed() {
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const answer = await fetch(location.href, { signal: mine.signal, cache: "no-cache" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(answer.headers.get("Content-Type").includes("problem") ? JSON.parse(text).detail : `The server answered ${answer.status}.`);
    show(new DOMParser().parseFromString(text, "text/html"));
    problem.textContent = "";
    shownAt = Date.now();
  } catch (error) {
    if (error.name !== "AbortError") problem.textContent = `Not up to date: ${error.message}`;
  } finally {
    if (asking === mine) asking = null;
  }
}

function search() {
  clearTimeout(typing);
  const wanted = address();
  if (new URL(wanted, location.href).search === location.search) return;
  history.replaceState(null, "", wanted);
  refreshed();
}

function prepare() {
  for (const card of document.querySelectorAll("li.card")) card.dataset.html ??= card.innerHTML;
  for (const label of document.querySelectorAll(".choose")) {
    label.hidden = false;
    label.firstElementChild.checked = selected.has(label.firstElementChild.value);
  }
  for (const link of document.querySelectorAll('#found a[href*="#!"]')) link.setAttribute("href", here(link.getAttribute("href")));
  for (const picture of document.querySelectorAll("#found img")) {
    if (picture.complete && picture.naturalWidth === 0) picture.hidden = true;
  }
  const count = selected.size;
  bar.hidden = count === 0;
  document.querySelector("#chosen").textContent = `${count} dataset${count === 1 ? "" : "s"} selected`;
}

form.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(search, event.target.name === "q" ? TYPING_MS : 0);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
document.addEventListener("change", (event) => {
  const label = event.target.closest(".choose");
  if (!label) return;
  if (event.target.checked) selected.add(event.target.value);
  else selected.delete(event.target.value);
  prepare();
});
// A dataset of which nothing can be drawn has no picture.
document.addEventListener("error", (event) => {
  if (event.target.tagName === "IMG") event.target.hidden = true;
}, true);

document.querySelector("#none").addEventListener("click", () => {
  selected.clear();
  prepare();
});
document.querySelector("#together").addEventListener("click", async () => {
  const wanted = new URLSearchParams([...selected].map((path) => ["dataset", path]));
  try {
    const answer = await fetch(`${bar.dataset.home}api/v1/link?${wanted}`);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail || `The server answered ${answer.status}.`);
    if (!told.url) throw new Error(told.reason);
    location.href = here(told.url);
  } catch (error) {
    problem.textContent = `They cannot be opened together: ${error.message}`;
  }
});

setInterval(() => {
  const pace = document.querySelector("#found").dataset.pace;
  const isTyping = typing !== null && document.activeElement?.name === "q" && new URL(address(), location.href).search !== location.search;
  if (document.hidden || asking || isTyping || pace === "never") return;
  if (Date.now() - shownAt < (pace === "often" ? CHANGING_MS : REFRESH_MS)) return;
  refreshed();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshed();
});
window.addEventListener("popstate", () => refreshed());
prepare();
