// The page of a dataset: scrolls through its slices, sets the contrast with which the viewer opens, copies sources, edits
// what people say of it, and follows the saves of a NeuroTrALE session.
"use strict";

const page = document.querySelector("#dataset");
const api = page.dataset.api;
const home = new URL(page.dataset.home, location.href).href;
const message = document.querySelector("#message");
const SAVES_MS = 2000;
const STATE_MS = 2000;
const STEPS = 500; // of a contrast handle, over the values that occur
const OUTCOMES = { saved: "saved", merged: "saved, merged with what others drew", unchanged: "nothing had changed", parked: "kept back", refused: "refused" };

const contrasts = new Map(); // the name of a layer → its channels: {min, max, p01, p998, white, edges, counts, low, high}
let channels = []; // of the layer that is shown
let author = null; // whose session is followed
let session = null; // the URL of the dataset in it
let watching = null;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
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
}

async function asked(url, options) {
  const answer = await fetch(url, { cache: "no-cache", ...options });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || `The server answered ${answer.status}.`), { status: answer.status });
  }
  return answer;
}

const number = (value) => +value.toPrecision(5);

// ---- A look at it

const look = document.querySelector("#look");
const preview = document.querySelector("#preview");
const slice = document.querySelector("#z");
let loading = false;
let wanted = null; // what was asked for while another slice was loading: the last of it is shown next

function layer() {
  return document.querySelector("#layer")?.value ?? "";
}

function showSlice() {
  document.querySelector("#shown-z").textContent = `${slice.value} of ${slice.min} to ${slice.max}`;
  const asking = new URLSearchParams({ z: slice.value, size: "512" });
  if (layer()) asking.set("layer", layer());
  if (isSet(channels)) for (const channel of channels) asking.append("range", `${channel.low},${channel.high}`);
  wanted = `${api}/preview.png?${asking}`;
  if (!loading) load();
}

function load() {
  loading = true;
  const url = wanted;
  wanted = null;
  const image = new Image();
  const ended = (isThere) => {
    loading = false;
    if (isThere) {
      preview.src = url;
      look.hidden = false;
    }
    if (wanted !== null && (isThere || !look.hidden)) load();
  };
  image.addEventListener("load", () => ended(true));
  image.addEventListener("error", () => ended(false));
  image.src = url;
}

if (look) {
  slice.addEventListener("input", showSlice);
  document.querySelector("#layer")?.addEventListener("change", () => {
    showHistogram();
    showSlice();
  });
  showSlice();
}

// ---- Contrast

// A channel with the range in which it is drawn first, as the server has it.
function withRange(channel) {
  const white = channel.p998 > channel.p01 ? channel.p998 : channel.p01 + 1;
  return { ...channel, low: channel.p01, high: white, white };
}

function isSet(set) {
  return set.some((channel) => channel.low !== channel.p01 || channel.high !== channel.white);
}

function histogram(channel, stop) {
  const width = 300;
  const height = 60;
  const most = Math.log1p(Math.max(...channel.counts, 1));
  const place = (value) => ((value - channel.min) / (stop - channel.min || 1)) * width;
  const bars = channel.counts.map((count, at) => {
    const left = place(channel.edges[at]);
    const right = Math.min(width, place(channel.edges[at + 1]));
    if (right <= left || count === 0) return "";
    const top = height - (Math.log1p(count) / most) * height;
    return `M${left.toFixed(2)} ${height}V${top.toFixed(2)}H${right.toFixed(2)}V${height}Z`;
  });
  const range = drawn("rect", { y: 0, height, class: "range" });
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "histogram", "aria-hidden": "true" }, range, drawn("path", { d: bars.join("") }));
  const showRange = () => {
    range.setAttribute("x", Math.max(0, place(channel.low)));
    range.setAttribute("width", Math.max(1, place(channel.high) - place(channel.low)));
  };
  return [picture, showRange];
}

function handles(channel, at) {
  const box = element("fieldset", null, { class: "channel" });
  const name = channels.length === 1 ? "Values" : `Channel ${at}`;
  // Few values lie far above the rest: most of the picture is for where the others are.
  const stop = Math.max(channel.white, Math.min(channel.max, 2 * channel.white - channel.p01));
  const step = Number.isInteger(channel.min) && Number.isInteger(channel.max) ? Math.max(1, Math.round((stop - channel.min) / STEPS)) : "any";
  const [picture, showRange] = histogram(channel, stop);
  box.append(element("legend", name), picture);
  const outputs = {};
  for (const [which, text] of [["low", "Black at"], ["high", "White at"]]) {
    const label = element("label", `${text} `);
    const input = element("input", null, { type: "range", min: channel.min, max: stop, step, class: "wide", "aria-label": `${name}: ${text.toLowerCase()}` });
    input.value = channel[which];
    outputs[which] = element("output", number(channel[which]));
    input.addEventListener("input", () => {
      const value = Number(input.value);
      const gap = step === "any" ? (stop - channel.min) / STEPS : step;
      channel[which] = which === "low" ? Math.min(value, channel.high - gap) : Math.max(value, channel.low + gap);
      outputs[which].textContent = number(channel[which]);
      showRange();
      showSlice();
    });
    label.append(outputs[which], input);
    box.append(label);
  }
  showRange();
  return box;
}

function showChannels() {
  document.querySelector("#channels").replaceChildren(...channels.map(handles));
  document.querySelector("#contrast").hidden = channels.length === 0;
}

async function showHistogram() {
  const name = layer();
  if (!contrasts.has(name)) {
    const query = name ? `?${new URLSearchParams({ layer: name })}` : "";
    try {
      const found = await (await asked(`${api}/histogram${query}`)).json();
      contrasts.set(name, found.channels.map(withRange));
    } catch {
      contrasts.set(name, []); // there is none of labels
    }
  }
  if (name !== layer()) return; // another one was chosen since
  channels = contrasts.get(name);
  showChannels();
}

if (look) {
  showHistogram();
  document.querySelector("#reset").addEventListener("click", () => {
    channels.forEach((channel) => Object.assign(channel, withRange(channel)));
    showChannels();
    showSlice();
  });
}

// ---- Links

// A proxy may have the server at another address than the server knows.
function here(text) {
  return text.replaceAll(`${page.dataset.origin}/`, home);
}

// The viewer's URL with the contrast that was chosen here.
async function link() {
  const { url, state, reason } = await (await asked(`${api}/link`)).json();
  if (!url) throw new Error(reason);
  for (const [name, set] of contrasts) {
    const shown = state.layers.find((each) => (name ? each.name === name : each.shaderControls));
    const controls = Object.values(shown?.shaderControls ?? {}).filter((control) => control.range);
    controls.forEach((control, at) => set[at] && (control.range = [set[at].low, set[at].high]));
  }
  const [viewer, text] = [url.split("#")[0], JSON.stringify(state)].map(here);
  return { text, viewer, url: `${viewer}#!${encodeURIComponent(text)}` };
}

const open = document.querySelector("#open");
open?.addEventListener("click", async (event) => {
  const isMoved = home !== `${page.dataset.origin}/`;
  if (!isMoved && ![...contrasts.values()].some(isSet)) return;
  event.preventDefault();
  try {
    location.href = (await link()).url;
  } catch (error) {
    said(`It cannot be opened so: ${error.message}`, true);
  }
});

const short = document.querySelector("#short");
if (short) {
  short.hidden = false;
  short.addEventListener("click", async () => {
    try {
      const { text, viewer } = await link();
      const kept = await (await asked(`${home}states`, { method: "POST", body: text, headers: { "Content-Type": "application/json" } })).json();
      await copied(`${viewer}#!${here(kept)}`);
    } catch (error) {
      said(`There is no short link: ${error.message}`, true);
    }
  });
}

// ---- Copying

// A page that came over plain http from another machine may not use the clipboard: there the text is selected.
async function copied(text, place = null) {
  try {
    await navigator.clipboard.writeText(text);
    said("Copied.");
  } catch {
    if (place) getSelection().selectAllChildren(place);
    said(place ? "The text is selected: copy it with Ctrl+C." : text);
  }
}

for (const code of document.querySelectorAll(".copied code")) code.textContent = here(code.textContent);
for (const link of document.querySelectorAll('a[href*="#!"]')) link.setAttribute("href", here(link.getAttribute("href")));
for (const button of document.querySelectorAll(".copy")) {
  const code = button.parentElement.querySelector("code");
  button.addEventListener("click", () => copied(code.textContent, code));
}
for (const time of document.querySelectorAll("time")) {
  time.textContent = new Date(time.dateTime).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

// ---- What people say of it

const record = document.querySelector("#record");
const WORDS = ["title", "description", "tags"];
let version = null; // the ETag of the words that the form began with

const shown = (words, name) => (name === "tags" ? words.tags.join(", ") : (words[name] ?? "").replaceAll(/\r\n?/g, "\n")); // as a field has it
const listed = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
const isChanged = (field) => field.value !== field.defaultValue;

// Fill in what the server has; what was written here stays. Answers what others changed of that.
async function readWords() {
  const answer = await asked(api);
  const words = await answer.json();
  const others = [];
  for (const name of WORDS) {
    const field = record.elements[name];
    const [text, isMine] = [shown(words, name), isChanged(field)];
    if (isMine && field.defaultValue !== text) others.push(`Their ${name}: ${text || "none"}.`);
    const mine = field.value;
    field.defaultValue = text;
    field.value = isMine ? mine : text;
  }
  version = answer.headers.get("ETag");
  return others;
}

async function saveWords() {
  if (version === null) await readWords().catch(() => {}); // a catalog that does not know it yet gives no version
  const changed = {};
  for (const name of WORDS) {
    const field = record.elements[name];
    if (isChanged(field)) changed[name] = name === "tags" ? listed(field.value) : name === "title" ? field.value.trim() : field.value;
  }
  if (Object.keys(changed).length === 0) return said("There is nothing to save: nothing was changed here.");
  const headers = { "Content-Type": "application/merge-patch+json", ...(version && { "If-Match": version }) };
  await asked(api, { method: "PATCH", body: JSON.stringify(changed), headers });
  location.reload();
}

record?.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await saveWords();
  } catch (error) {
    if (error.status !== 412) return said(`Not saved: ${error.message}`, true);
    const others = await readWords().catch((problem) => [problem.message]);
    said(["Not saved: somebody else has changed it meanwhile; look at it again, and save what is to stay.", ...others].join(" "), true);
  }
});
if (record) readWords().catch(() => {}); // asked for again when something is saved

// ---- Sessions of NeuroTrALE

function names() {
  return document.querySelectorAll("#session input, #import input[name=name]");
}

function remember(name) {
  localStorage.setItem("name", name);
  for (const input of names()) input.value = name;
}

const neurotrale = document.querySelector("#neurotrale");
if (neurotrale) {
  for (const input of names()) input.value = neurotrale.dataset.name || localStorage.getItem("name") || "";
  document.querySelector("#session").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = event.target.elements.name.value;
    remember(name);
    author = name;
    session = `${home}~${name}/${page.dataset.place}`.replace(/\/$/, "");
    const source = `precomputed://${home}~${name}.voxel/${page.dataset.place}`.replace(/\/$/, "");
    document.querySelector("#neurotrale-source").textContent = source;
    document.querySelector("#opened").hidden = false;
    const state = { layers: { [neurotrale.dataset.title]: { type: "image", source } } };
    const url = neurotrale.dataset.template
      .replaceAll("{source}", encodeURIComponent(source))
      .replaceAll("{state}", encodeURIComponent(JSON.stringify(state)));
    if (url) window.open(url, "neurotrale");
    showSaves();
    watching ??= setInterval(() => !document.hidden && showSaves(), SAVES_MS);
  });
}

async function showSaves() {
  try {
    const { saves } = await (await asked(`${session}/annotations/saves`)).json();
    const { parked } = await (await asked(`${session}/annotations/parked`)).json();
    const mine = parked.filter((row) => row.session === author);
    const sum = saves.length === 0 ? "Nothing was saved yet." : `${saves.length} of the last saves are listed.`;
    const waiting = mine.length ? ` ${mine.length} wait: see the annotation page.` : "";
    document.querySelector("#sum-of-saves").textContent = sum + waiting;
    document.querySelector("#sum-of-saves").classList.toggle("problem", mine.length > 0);
    document.querySelector("#saves tbody").replaceChildren(...saves.map(saveRow));
  } catch (error) {
    document.querySelector("#sum-of-saves").textContent = `Not up to date: ${error.message}`;
  }
}

function saveRow(save) {
  const isKept = save.outcome === "parked" || save.outcome === "refused";
  const line = element("tr", null, isKept ? { class: "problem" } : {});
  const when = new Date(save.time).toLocaleTimeString("en-GB");
  const became = (OUTCOMES[save.outcome] ?? save.outcome) + (save.reason ? `: ${save.reason}` : "");
  line.append(element("td", when), element("td", `${save.block}/${save.leaf}`), element("td", became));
  return line;
}

// ---- Saving what was drawn in Neuroglancer

document.querySelector("#import")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { state, name } = event.target.elements;
  const isDry = event.submitter?.name === "dry";
  const told = document.querySelector("#imported");
  remember(name.value);
  told.classList.remove("problem");
  try {
    const url = `${home}~${name.value}/${page.dataset.place}/annotations/import`.replace("//annotations", "/annotations");
    const report = await (await asked(url + (isDry ? "?dry_run=1" : ""), { method: "POST", body: state.value.trim() })).json();
    const counts = Object.entries(report.counts).filter(([, count]) => count).map(([kind, count]) => `${count} ${kind}`);
    const refused = report.blocks.filter((block) => block.detail).map((block) => block.detail);
    told.textContent = [`${isDry ? "It would be" : "Done"}: ${counts.join(", ") || "nothing changes"}.`, ...report.notes, ...refused].join(" ");
    told.classList.toggle("problem", refused.length > 0);
  } catch (error) {
    told.textContent = error.message;
    told.classList.add("problem");
  }
});

// ---- A conversion that goes on

async function showState() {
  const place = document.querySelector("#state");
  if (!place.dataset.changing || document.hidden) return;
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (!answer.ok) return;
  const made = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#state");
  place.replaceWith(made);
  if (!made.dataset.changing) location.reload(); // it is whole now: there is more to show
}

setInterval(() => showState().catch(() => {}), STATE_MS);
