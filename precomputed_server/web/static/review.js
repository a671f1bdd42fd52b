// The review page: how far a dataset is, what is left, and buttons that confirm it.
"use strict";

const page = document.querySelector("#review");
const api = page.dataset.api;
const viewerState = JSON.parse(page.dataset.state);
const body = document.querySelector("#annotations tbody");
const filters = document.querySelector("#filters");
const message = document.querySelector("#message");
const REFRESH_MS = 10000; // for what no event tells: files that another tool has written
const SOON_MS = 200; // several edits often come together
const OFTEN_MS = 2000;
const MESSAGE_MS = 8000;
const NARROW = matchMedia("(max-width: 40rem)"); // as in style.css
const NONE = { author: "nobody knows", anntype: "none", slice: "none" };
const STATES = { untouched: "not looked at", visited: "looked at", moved: "moved since it was confirmed" };

let shownTag = null; // of the progress that is shown
let since = null; // what is confirmed after this moment stays in the list
let following = null; // the cursor of the next part of the list
let rows = new Map(); // key → {item, tr}
let refusals = new Map(); // key → why it was refused
let seen = new Map(); // key → the geometry that the person was shown, whatever has come since
let progressAsked = 0; // how often it was asked for: an answer that is overtaken is not shown
let listAsked = 0;
let forgetting = null; // the timer that takes a message away
let stream = null; // edits as they are made
let waiting = null; // the timer after which they are shown
let shownAt = 0;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

// What was done is told for a while, what is wrong until something else is done.
function said(text, isProblem = false) {
  message.textContent = text;
  message.classList.toggle("problem", isProblem);
  clearTimeout(forgetting);
  if (text && !isProblem) forgetting = setTimeout(() => said(""), MESSAGE_MS);
}

async function asked(path, options) {
  const answer = await fetch(api + path, { cache: "no-cache", ...options });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The server answered ${answer.status}.`);
  }
  return answer;
}

// What the address says: it keeps the place over a reload, and Back and Forward work.
function query() {
  return new URLSearchParams(location.search);
}

function go(change) {
  const wanted = query();
  wanted.delete("cursor");
  for (const [name, value] of Object.entries(change)) {
    if (value === null) wanted.delete(name);
    else wanted.set(name, value);
  }
  const depth = (history.state && history.state.depth) || 0;
  history.pushState({ depth: "cursor" in change ? depth + 1 : 0 }, "", "?" + wanted);
  refusals.clear();
  seen.clear();
  said("");
  showFilters();
  return showList();
}

function numbers(count) {
  return count.toLocaleString("en");
}

function bar(counts) {
  const share = (part) => (counts.total ? (100 * part) / counts.total : 0);
  const text = `${numbers(counts.reviewed)} of ${numbers(counts.total)} confirmed, ${numbers(counts.visited)} looked at`;
  const made = element("span", null, { class: "bar", role: "img", "aria-label": text, title: text });
  made.append(element("span", null, { class: "visited" }), element("span", null, { class: "reviewed" }));
  made.children[0].style.width = share(counts.visited) + "%";
  made.children[1].style.width = share(counts.reviewed) + "%";
  return made;
}

function showSum(progress) {
  const percent = progress.total ? Math.floor((1000 * progress.reviewed) / progress.total) / 10 : 0;
  const text =
    `${numbers(progress.reviewed)} of ${numbers(progress.total)} annotations confirmed (${percent} %), ` +
    `${numbers(progress.visited)} looked at.`;
  const found = [bar(progress), element("p", text)];
  for (const leaf of progress.unreadable)
    found.push(element("p", `${leaf.block}/${leaf.leaf} is not counted: ${leaf.detail}`, { class: "problem" }));
  document.querySelector("#sum").replaceChildren(...found);
}

// A table of counts whose first column narrows the list down to that row.
function countTable(title, field, listed, columns = []) {
  const section = element("details", null, NARROW.matches ? {} : { open: "" });
  section.append(element("summary", `${title} (${numbers(listed.length)})`));
  const scrolled = element("div", null, { class: "scrolled", tabindex: "0", role: "region", "aria-label": title });
  const table = element("table");
  const heads = [title, "confirmed", "of", ...columns.map(([name]) => name), ""];
  const head = element("tr");
  head.append(...heads.map((name) => (name ? element("th", name, { scope: "col" }) : element("td"))));
  const lines = listed.map((row) => {
    const line = element("tr");
    const name = row[field] === null ? NONE[field] : String(row[field]);
    const link = element("a", name, { href: "?" + new URLSearchParams({ [field]: row[field] ?? "" }) });
    link.addEventListener("click", (event) => {
      event.preventDefault();
      go({ [field]: String(row[field] ?? "") });
    });
    const first = element("th", null, { scope: "row" });
    first.append(link);
    const cells = [numbers(row.reviewed), numbers(row.total), ...columns.map(([, member]) => numbers(row[member]))];
    const last = element("td");
    last.append(bar(row));
    line.append(first, ...cells.map((cell) => element("td", cell)), last);
    return line;
  });
  const top = element("thead");
  top.append(head);
  const rest = element("tbody");
  rest.append(...lines);
  table.append(top, rest);
  scrolled.append(table);
  section.append(scrolled);
  return section;
}

function showTables(progress) {
  const held = document.querySelector("#tables");
  const before = [...held.children].map((each) => [each.open, each.lastChild.scrollTop]);
  const focused = held.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  held.replaceChildren(
    countTable("Slice", "slice", progress.slices),
    countTable("Author", "author", progress.authors, [["confirmed by them", "confirmed_by_them"], ["of own", "confirmed_own"]]),
    countTable("Kind", "anntype", progress.types),
    countTable("Block", "block", progress.blocks),
  );
  before.forEach(([open, top], place) => {
    held.children[place].open = open;
    held.children[place].lastChild.scrollTop = top;
  });
  if (focused !== null) [...held.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function showChoices(progress) {
  for (const [name, listed] of [["author", progress.authors], ["anntype", progress.types], ["block", progress.blocks]]) {
    const choice = filters.elements[name];
    const values = listed.map((row) => row[name] ?? "");
    const known = [...choice.options].slice(1).map((option) => option.value);
    if (choice.options.length && known.join("\n") === values.join("\n")) continue;
    const options = values.map((value) => new Option(value === "" ? NONE[name] : value, value));
    choice.replaceChildren(new Option("any", "*"), ...options);
  }
  showFilters();
}

function showFilters() {
  const wanted = query();
  filters.elements.state.value = wanted.get("state") || "unreviewed";
  for (const name of ["author", "anntype", "type", "block"]) filters.elements[name].value = wanted.get(name) ?? "*";
  if (document.activeElement !== filters.elements.slice) filters.elements.slice.value = wanted.get("slice") ?? "";
}

async function showProgress() {
  const mine = ++progressAsked;
  const answer = await asked("progress");
  const tag = answer.headers.get("ETag");
  if (tag === shownTag) return false;
  const progress = await answer.json();
  if (mine !== progressAsked) return false;
  showSum(progress);
  showTables(progress);
  showChoices(progress);
  shownTag = tag;
  return true;
}

function keyOf(item) {
  return JSON.stringify([item.block, item.leaf, item.id]);
}

function viewerLink(item) {
  const home = new URL(page.dataset.home, location.href).href;
  const scheme = "precomputed://";
  const layers = viewerState.layers.map((layer) =>
    typeof layer.source === "string" && layer.source.startsWith(scheme)
      ? { ...layer, source: (scheme + home + layer.source.slice(scheme.length)).replace(/\/$/, "") }
      : { ...layer },
  );
  layers[0].annotations = [{ type: "point", id: item.id, point: item.position, description: item.description }];
  const state = { ...viewerState, layers, position: item.position };
  return new URL(page.dataset.viewer, location.href).href + "#!" + encodeURIComponent(JSON.stringify(state));
}

function reviewText(item) {
  if (item.review === null) return STATES[item.state];
  const time = new Date(item.review.time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const by = `${item.review.author}, ${time}`;
  return item.state === "reviewed" ? `confirmed by ${by}` : `${STATES.moved} (${by})`;
}

function cell(label, ...content) {
  const made = element("td", null, { "data-label": label });
  made.append(...content);
  return made;
}

// What of a row the person should know before it is confirmed; nothing of one that is.
function noteOf(item) {
  if (item.state === "reviewed") return null;
  const key = keyOf(item);
  if (refusals.has(key)) return refusals.get(key);
  return seen.get(key) !== item.geometry ? "Somebody has moved it since it was listed; look at it again." : null;
}

function described(item) {
  const name = `${item.leaf} · ${item.id}`;
  const parts = [[item.anntype, item.type].filter(Boolean).join(", ") || "none"];
  if (item.description) parts.push(element("span", item.description, { class: "hint" }));
  parts.push(element("code", name, { class: "hint id", title: `${item.block}/${item.leaf}, ${item.id}` }));
  return parts;
}

function fill(tr, item) {
  const text = item.position === null ? "no place" : item.position.map((length) => +length.toFixed(1)).join(", ");
  const place = page.dataset.viewer && item.position !== null;
  const link = place ? element("a", text, { href: viewerLink(item), target: "neuroglancer" }) : element("span", text);
  const isReviewed = item.state === "reviewed";
  const isFocused = tr.contains(document.activeElement) && document.activeElement.tagName;
  const button = element("button", isReviewed ? "Withdraw" : "Confirm", { type: "button" });
  button.setAttribute("aria-label", `${button.textContent} ${item.anntype ?? "annotation"} at ${text}`);
  button.addEventListener("click", () => decide([item], !isReviewed));
  link.addEventListener("click", () => {
    seen.set(keyOf(item), item.geometry); // it is looked at where it lies now
    refusals.delete(keyOf(item));
    fill(tr, item);
  });
  const note = noteOf(item);
  const noted = note ? [element("span", note, { class: "problem" })] : [];
  tr.className = item.state;
  tr.dataset.note = note ?? "";
  tr.replaceChildren(
    cell("Place", link),
    cell("Annotation", ...described(item)),
    cell("Drawn by", item.author ?? NONE.author),
    cell("Review", element("span", reviewText(item)), ...noted),
    cell("Decide", button),
  );
  if (isFocused && isFocused !== "TR") tr.querySelector(isFocused.toLowerCase())?.focus();
}

async function showList() {
  const mine = ++listAsked;
  const wanted = query();
  if (since !== null) wanted.set("since", since);
  if (NARROW.matches) wanted.set("limit", "20");
  const found = await (await asked("review?" + wanted)).json();
  if (mine !== listAsked) return;
  since ??= found.time;
  following = found.next;
  const listed = new Map(found.annotations.map((item) => [keyOf(item), item]));
  const focused = document.activeElement?.closest("#annotations tbody tr");
  const made = new Map();
  for (const [key, item] of listed) {
    const tr = rows.get(key)?.tr ?? element("tr", null, { tabindex: "0" });
    tr.dataset.key = key;
    if (!seen.has(key) || item.state === "reviewed") seen.set(key, item.geometry);
    const isSame = JSON.stringify(rows.get(key)?.item) === JSON.stringify(item);
    if (!isSame || tr.dataset.note !== (noteOf(item) ?? "")) fill(tr, item);
    made.set(key, { item, tr });
  }
  rows = made;
  // Rows stay where they are: moving one would take the focus and the place from it.
  for (const tr of [...body.children]) if (!listed.has(tr.dataset.key)) tr.remove();
  let place = 0;
  for (const { tr } of rows.values()) {
    if (body.children[place] !== tr) body.insertBefore(tr, body.children[place] ?? null);
    place += 1;
  }
  if (focused && !body.contains(focused)) body.firstElementChild?.focus();
  if (rows.size === 0) body.append(emptyRow());
  showPager(found.matching);
}

function showPager(matching) {
  const depth = (history.state && history.state.depth) || 0;
  const items = [...rows.values()].map(({ item }) => item);
  const open = items.filter((item) => item.state !== "reviewed");
  const kept = filters.elements.state.value === "unreviewed" ? items.length - open.length : 0;
  document.querySelector("#next").disabled = following === null;
  document.querySelector("#back").disabled = depth === 0 && !query().has("cursor");
  document.querySelector("#confirm-all").disabled = open.length === 0;
  const text = `${numbers(matching)} in this choice`;
  document.querySelector("#matching").textContent = kept ? `${text}, and ${kept} just confirmed` : text;
}

function emptyRow() {
  const tr = element("tr", null, { "data-key": "" });
  tr.append(element("td", "No annotation in this choice.", { colspan: "5" }));
  return tr;
}

// Confirm or withdraw; what the person saw is sent along, so that nothing is confirmed that was moved since.
async function decide(items, reviewed) {
  said("");
  if (items.length === 0) return;
  const leaves = new Map();
  for (const item of items) {
    const key = JSON.stringify([item.block, item.leaf]);
    if (!leaves.has(key)) leaves.set(key, { block: item.block, leaf: item.leaf, ids: {} });
    leaves.get(key).ids[item.id] = seen.get(keyOf(item)) ?? item.geometry;
    refusals.delete(keyOf(item));
  }
  try {
    const sent = { reviewed, annotations: [...leaves.values()] };
    const told = await (await asked("review", { method: "POST", body: JSON.stringify(sent) })).json();
    noteRefusals(told, items, reviewed ? "confirmed" : "withdrawn");
    await refreshed(true);
  } catch (error) {
    said(error.message, true);
  }
}

function noteRefusals(told, items, deed) {
  const problems = [];
  let changed = 0;
  for (const block of told.blocks) {
    if (block.detail) problems.push(`${block.block}: ${block.detail}`);
    for (const edit of block.edits ?? []) {
      changed += edit.changed;
      for (const refusal of edit.refused) {
        problems.push(refusal.detail);
        const key = keyOf({ block: block.block, leaf: edit.leaf, id: refusal.id });
        if (items.some((item) => keyOf(item) === key)) refusals.set(key, refusal.detail);
        seen.delete(key); // it is told: what is listed next is what the person sees
      }
    }
  }
  const done = `${numbers(changed)} ${deed}.`;
  said(problems.length ? `${done} Refused: ${[...new Set(problems)].join(" ")}` : done, problems.length > 0);
}

async function refreshed(always = false) {
  const isNew = await showProgress();
  if (isNew || always) await showList();
}

async function looked(always = false) {
  if (document.hidden) return;
  try {
    await refreshed(always);
    shownAt = Date.now();
    if (message.dataset.lost) said("");
    delete message.dataset.lost;
  } catch (error) {
    said(`Not up to date: ${error.message}`, true);
    message.dataset.lost = "yes";
  }
}

// Edits are shown soon after they are made, and not more often than one can follow.
function lookSoon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    looked(true);
  }, Math.max(SOON_MS, shownAt + OFTEN_MS - Date.now()));
}

// A browser has six connections to a server: a page that nobody sees gives its own back.
function listen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (stream === null) {
    stream = new EventSource(api + "events");
    stream.addEventListener("message", lookSoon);
  }
}

function trOf(event) {
  return event.target.closest("tr[data-key]");
}

function decideByKey(item, reviewed) {
  if (reviewed && item.state === "reviewed") said("It is confirmed already.");
  else if (!reviewed && item.review === null) said("It is not confirmed: there is nothing to withdraw.");
  else decide([item], reviewed);
}

body.addEventListener("keydown", (event) => {
  const tr = trOf(event);
  if (!tr || event.ctrlKey || event.altKey || event.metaKey) return;
  const found = rows.get(tr.dataset.key);
  const moves = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" };
  if (event.key in moves) {
    event.preventDefault();
    tr[moves[event.key]]?.focus();
  } else if (event.key === "o") {
    tr.querySelector("a")?.click();
  } else if (found && "cnw".includes(event.key)) {
    decideByKey(found.item, event.key !== "w");
    if (event.key === "n") tr.nextElementSibling?.focus();
  }
});

filters.addEventListener("change", (event) => {
  const { name, value } = event.target;
  const isAny = value === "*" || (name === "slice" && value === "") || (name === "state" && value === "unreviewed");
  go({ [name]: isAny ? null : value }).catch((error) => said(error.message, true));
});
filters.addEventListener("submit", (event) => event.preventDefault());

document.querySelector("#reviewer").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = event.target.elements.name.value;
  location.href = new URL(`${page.dataset.home}~${name}/${page.dataset.here}`, location.href).href + location.search;
});
document.querySelector("#next").addEventListener("click", () => go({ cursor: following }).then(() => body.firstElementChild?.focus()));
document.querySelector("#back").addEventListener("click", () => {
  if (history.state && history.state.depth) history.back();
  else go({ cursor: null });
});
document.querySelector("#confirm-all").addEventListener("click", () => {
  decide([...rows.values()].map(({ item }) => item).filter((item) => item.state !== "reviewed"), true);
});
window.addEventListener("popstate", () => {
  said("");
  showFilters();
  showList().catch((error) => said(error.message, true));
});
document.addEventListener("visibilitychange", () => {
  listen();
  looked(true);
});
addEventListener("pagehide", () => stream?.close());
setInterval(looked, REFRESH_MS);
listen();
refreshed(true).catch((error) => said(error.message, true));
