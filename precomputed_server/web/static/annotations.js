// The annotation page: how far each block and slice is, who edits, what was done last and how it is undone, and what
// waits to be applied or discarded.
"use strict";

const page = document.querySelector("#annotations-page");
const api = page.dataset.api;
const message = document.querySelector("#message");
const REFRESH_MS = 10000;
const SOON_MS = 300; // several edits often come together
const OFTEN_MS = 3000;
const MESSAGE_MS = 8000;
const SHADES = 5; // as in style.css
const DAYS = 30;
const EDITS = 20; // and as many more each time that more are asked for
const DEEDS = { add: "added", change: "changed", review: "confirmed or withdrawn", delete: "deleted", restore: "restored", external: "another tool wrote the file" };

let shownTag = null; // of the progress that is shown
let stream = null; // edits as they are made
let waiting = null;
let shownAt = 0;
let forgetting = null;
let limit = EDITS;

function element(name, text, attributes = {}, ...children) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

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

const numbers = (count) => count.toLocaleString("en");
const percent = (row) => (row.total ? Math.floor((100 * row.reviewed) / row.total) : 0);
const when = (time) => new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function table(heads, rows, name = "") {
  const head = element("tr", null, {}, ...heads.map((title) => element("th", title, { scope: "col" })));
  return element("table", null, { class: name }, element("thead", null, {}, head), element("tbody", null, {}, ...rows));
}

// New rows take the focus that was on the old ones.
function replace(place, ...made) {
  const label = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  place.replaceChildren(...made);
  if (label !== null) [...place.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === label)?.focus();
}

// ---- How far it is

function shade(row) {
  return row.total === 0 ? "shade-none" : `shade-${Math.floor((row.reviewed / row.total) * (SHADES - 1))}`;
}

function blockCell(row) {
  if (!row) return element("td", null, { class: "empty" });
  const link = element("a", `${numbers(row.reviewed)} / ${numbers(row.total)}`, {
    href: `${page.dataset.review}?${new URLSearchParams({ state: "all", block: row.block })}`,
    "aria-label": `Block ${row.block}: ${row.reviewed} of ${row.total} confirmed`,
  });
  return element("td", null, { class: shade(row), title: row.block }, link);
}

// A table for each height of blocks: x to the right, y down.
function showBlocks(blocks) {
  const placed = blocks.filter((row) => row.index);
  const heights = [...new Set(placed.map((row) => row.index[2]))].sort((a, b) => a - b);
  const [columns, lines] = [0, 1].map((axis) => {
    const found = [...new Set(placed.map((row) => row.index[axis]))].sort((a, b) => a - b);
    return found;
  });
  const made = heights.map((height) => {
    const here = placed.filter((row) => row.index[2] === height);
    const at = new Map(here.map((row) => [row.index.join(), row]));
    const range = here[0].start ? `Slices ${here[0].start[2]} to ${here[0].stop[2] - 1}` : `Blocks at z ${height}`;
    const head = element("tr", null, {}, element("th", "y \\ x"), ...columns.map((x) => element("th", x, { scope: "col" })));
    const rows = lines.map((y) =>
      element("tr", null, {}, element("th", y, { scope: "row" }), ...columns.map((x) => blockCell(at.get([x, y, height].join())))),
    );
    const map = element("table", null, { class: "heat" }, element("caption", range), element("thead", null, {}, head), element("tbody", null, {}, ...rows));
    return element("div", null, { class: "wider", tabindex: "0", role: "region", "aria-label": range }, map);
  });
  const others = blocks.filter((row) => !row.index);
  if (others.length) made.push(element("table", null, { class: "heat" }, element("tbody", null, {}, element("tr", null, {}, ...others.map(blockCell)))));
  replace(document.querySelector("#blocks"), ...(made.length ? made : [element("p", "There are no annotations yet.")]));
}

function showSlices(slices) {
  const place = document.querySelector("#slices");
  const placed = slices.filter((row) => row.slice !== null);
  if (placed.length === 0) {
    place.replaceChildren(element("p", "There are no annotations yet."));
    return;
  }
  const [first, last] = [placed[0].slice, placed[placed.length - 1].slice];
  const height = 100;
  const most = Math.max(...placed.map((row) => row.total));
  const count = last - first + 1;
  const bar = (row, value, name) => {
    const length = (value / most) * height;
    return drawn("rect", { x: row.slice - first, y: height - length, width: count > 150 ? 1 : 0.85, height: length, class: name });
  };
  const bars = placed.flatMap((row) => {
    const title = drawn("title", {});
    title.textContent = `Slice ${row.slice}: ${row.reviewed} of ${row.total} confirmed`;
    return [drawn("g", {}, title, bar(row, row.total, "all"), bar(row, row.reviewed, "done"))];
  });
  const text = `Annotations of slices ${first} to ${last}, at most ${most} in one.`;
  const picture = drawn("svg", { viewBox: `0 0 ${count} ${height}`, preserveAspectRatio: "none", class: "bars", role: "img", "aria-label": text }, ...bars);
  const scale = element("p", null, { class: "scale hint" }, element("span", first), element("span", `at most ${numbers(most)} in one`), element("span", last));
  const rows = placed.map((row) =>
    element("tr", null, {}, element("th", null, { scope: "row" }, element("a", row.slice, { href: `${page.dataset.review}?${new URLSearchParams({ state: "all", slice: row.slice })}` })), element("td", numbers(row.reviewed)), element("td", numbers(row.total)), element("td", `${percent(row)} %`)),
  );
  const isOpen = place.querySelector("details")?.open;
  const details = element("details", null, isOpen ? { open: "" } : {}, element("summary", "As a table"), element("div", null, { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Slices" }, table(["Slice", "confirmed", "of", "share"], rows)));
  replace(place, picture, scale, details);
}

async function showProgress() {
  const answer = await asked("progress");
  const tag = answer.headers.get("ETag");
  if (tag !== null && tag === shownTag) return;
  const progress = await answer.json();
  shownTag = tag;
  document.querySelector("#sum").textContent = `${numbers(progress.reviewed)} of ${numbers(progress.total)} annotations confirmed (${percent(progress)} %), ${numbers(progress.visited)} looked at.`;
  showBlocks(progress.blocks);
  showSlices(progress.slices);
}

// ---- Who edits

function showDays(rows) {
  const days = [...new Set(rows.map((row) => row.day))];
  const authors = [...new Set(rows.map((row) => row.author))].sort();
  const at = new Map(rows.map((row) => [`${row.day} ${row.author}`, row.edits]));
  const place = document.querySelector("#days");
  if (days.length === 0) {
    place.replaceChildren(element("p", `Nobody has edited anything in the last ${DAYS} days.`));
    return;
  }
  const lines = days.map((day) =>
    element("tr", null, {}, element("th", day, { scope: "row" }), ...authors.map((author) => element("td", numbers(at.get(`${day} ${author}`) ?? 0)))),
  );
  place.replaceChildren(table(["Day (UTC)", ...authors], lines));
}

async function undo(edit) {
  const leaf = `${encodeURIComponent(edit.block)}/${encodeURIComponent(edit.leaf)}`;
  try {
    if (edit.operation === "add") await asked(`${leaf}.json?${new URLSearchParams({ id: edit.id, seen: edit.version })}`, { method: "DELETE" });
    else await asked(`${leaf}/restore`, { method: "POST", body: JSON.stringify({ version: edit.first - 1, id: edit.id, seen: edit.version }) });
    said("Undone. That is an edit like any other, and can itself be undone.");
  } catch (error) {
    said(`Not undone: ${error.message}`, true);
  }
  await refreshed();
}

function showEdits(edits) {
  const place = document.querySelector("#edits");
  if (edits.length === 0) {
    place.replaceChildren(element("p", "There is none."));
    return;
  }
  const known = new Set();
  const lines = edits.map((edit) => {
    const key = `${edit.block}/${edit.leaf} ${edit.id}`;
    // Who undoes an edit undoes what came after it, too: only the last one of an annotation is undone by itself.
    const isLast = !known.has(key);
    known.add(key);
    const button = element("button", "Undo", { type: "button", "aria-label": `Undo version ${edit.version} of ${edit.block}/${edit.leaf}, ${edit.id}` });
    button.addEventListener("click", () => undo(edit));
    const isUndone = edit.id !== null && isLast && (edit.operation === "add" || edit.first > 1);
    return element(
      "tr", null, {},
      element("td", when(edit.time)), element("td", edit.author), element("td", DEEDS[edit.operation] ?? edit.operation),
      element("td", null, {}, element("code", edit.id ?? "", { class: "id", title: edit.id ?? "" })), element("td", `${edit.block}/${edit.leaf}, version ${edit.version}`),
      element("td", null, {}, ...(isUndone ? [button] : [])),
    );
  });
  replace(place, table(["When", "Who", "What", "Annotation", "File", "Undo"], lines, "stacked"));
  document.querySelector("#more").hidden = edits.length < limit;
}

async function showActivity() {
  const activity = await (await asked(`history?limit=${limit}&days=${DAYS}`)).json();
  showDays(activity.days);
  showEdits(activity.edits);
  document.querySelector("#cut").hidden = !activity.cut;
}

// ---- What waits

async function decided(row, how) {
  try {
    await asked(`parked/${encodeURIComponent(row.id)}/${how}`, { method: "POST" });
    said(how === "apply" ? "Applied." : "Discarded.");
  } catch (error) {
    said(error.message, true);
  }
  await refreshed();
}

function parkedRow(row) {
  const what = row.remove.length ? `removes ${row.remove.length}` : "a whole file";
  const named = `${row.block}/${row.leaf} by ${row.author}, ${when(row.time)}`;
  const buttons = [["apply", "Apply"], ["discard", "Discard"]].map(([how, text]) => {
    const button = element("button", text, { type: "button", "aria-label": `${text} what was saved to ${named}` });
    button.addEventListener("click", () => decided(row, how));
    return button;
  });
  const body = element("a", what, { href: `${api}parked/${encodeURIComponent(row.id)}`, "aria-label": `${what}: ${named}` });
  return element(
    "tr", null, {},
    element("td", when(row.time)), element("td", row.author), element("td", `${row.block}/${row.leaf}`),
    element("td", null, {}, body), element("td", row.reason, { class: "sentence" }), element("td", null, { class: "decide" }, ...buttons),
  );
}

async function showParked() {
  const { parked } = await (await asked("parked")).json();
  const place = document.querySelector("#parked");
  if (parked.length === 0) {
    place.replaceChildren(element("p", "Nothing waits."));
    return;
  }
  const made = table(["When", "Who", "File", "What", "Why it waits", "Decide"], parked.map(parkedRow), "stacked");
  replace(place, element("div", null, { class: "wider", tabindex: "0", role: "region", "aria-label": "Waiting" }, made));
}

// ---- Keeping up

async function refreshed() {
  if (document.hidden) return;
  try {
    await Promise.all([showProgress(), showActivity(), showParked()]);
    if (message.dataset.lost) said("");
    delete message.dataset.lost;
  } catch (error) {
    said(`Not up to date: ${error.message}`, true);
    message.dataset.lost = "yes";
  }
  shownAt = Date.now();
}

function lookSoon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    refreshed();
  }, Math.max(SOON_MS, shownAt + OFTEN_MS - Date.now()));
}

// A browser has six connections to a server: a page that nobody sees gives its own back.
function listen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (stream === null) {
    stream = new EventSource(`${api}events`);
    for (const type of ["message", "parked", "resolved"]) stream.addEventListener(type, lookSoon);
  }
}

document.querySelector("#editor").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = event.target.elements.name.value;
  location.href = new URL(`${page.dataset.home}~${name}/${page.dataset.here}`, location.href).href;
});
document.querySelector("#more").addEventListener("click", () => {
  limit += EDITS;
  refreshed();
});
document.addEventListener("visibilitychange", () => {
  listen();
  refreshed();
});
addEventListener("pagehide", () => stream?.close());
setInterval(refreshed, REFRESH_MS);
listen();
refreshed();
