"use strict";
const PAGE_SIZE = 20, CLUSTER_SHOWN = 12, LONG = 4000, LONG_TOKENS = 3000;
const byId = (id) => document.getElementById(id);
const node = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
// Control characters would be invisible, or steer what shows the text; those of direction would turn what follows.
const visible = (text) => text
  .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
  .replace(/[\u202a-\u202e\u2066-\u2069]/g, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase()}]`);

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const area = node("textarea", { class: "visually-hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not copied";
    area.remove();
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => copy(button.parentElement.querySelector("code").textContent, button));
}

// --- the data browser ------------------------------------------------------------------------------------------------
// `group`: rows shown together instead of a page: near-duplicates side by side, or what shares a packed row.
let rows = [], found = [], order = null, pageNumber = 1, group = null, isRead = false;
const clusters = new Map(), packedRows = new Map();
const about = byId("about") ? JSON.parse(byId("about").textContent) : {};
const collect = (groups, key, row) => { if (groups.has(key)) groups.get(key).push(row); else groups.set(key, [row]); };
const [topicOf, personaOf] = [0, 1].map((side) => (row) => {
  const cell = row.meta && row.meta.cell, at = typeof cell === "string" ? cell.lastIndexOf(" x ") : -1;
  return at < 0 ? (side === 0 && typeof cell === "string" ? cell : "") : side === 0 ? cell.slice(0, at) : cell.slice(at + 3);
});
const textMeta = (name) => (row) => (row.meta && typeof row.meta[name] === "string" ? row.meta[name] : "");
const FILTERS = [
  ["verdict", (row) => row.part], ["reason", (row) => row.reasons || ""], ["source", textMeta("source")], ["topic", topicOf],
  ["persona", personaOf], ["model", textMeta("model")], ["near-duplicates", (row) => (row.cluster ? "in a cluster" : "")],
];
const chosen = {}, selects = {}, seen = {};

function addFilter(name) {
  const select = node("select", { id: `filter-${name}` });
  selects[name] = select;
  seen[name] = new Map();
  select.addEventListener("change", () => { chosen[name] = select.value; refilter(); });
  const label = node("label", { class: "hidden" }, name, select);
  byId("filters").append(label);
}
function countValues(batch) {
  for (const [name, valueOf] of FILTERS) {
    for (const row of batch) {
      for (const value of [valueOf(row)].flat()) if (value) seen[name].set(value, (seen[name].get(value) || 0) + 1);
    }
    const values = [...seen[name]].sort((a, b) => b[1] - a[1]).slice(0, 500);
    selects[name].replaceChildren(node("option", { value: "" }, "all"), ...values.map(([value, count]) => node("option", { value }, `${value.slice(0, 60)} (${count.toLocaleString("en")})`)));
    selects[name].value = chosen[name] || "";
    selects[name].parentElement.classList.toggle("hidden", values.length < (name === "verdict" || name === "source" || name === "model" ? 2 : 1));
  }
  const scored = batch.some((row) => row.meta && typeof row.meta.score === "number");
  if (scored && !byId("score")) {
    const input = node("input", { id: "score", type: "number", step: "any" });
    input.addEventListener("input", refilter);
    byId("filters").append(node("label", {}, "score at least", input));
  }
}
const textsOf = (row) => [...row.messages.map((m) => (typeof m.content === "string" ? m.content : m.content.map((part) => part.text).join(""))), row.raw || "", row.detail || ""];

function matches(row, pattern, score) {
  for (const [name, valueOf] of FILTERS) if (chosen[name] && ![valueOf(row)].flat().includes(chosen[name])) return false;
  if (score !== null && !(row.meta && row.meta.score >= score)) return false;
  return !pattern || (row.id && row.id.startsWith(pattern.source)) || textsOf(row).some((text) => pattern.test(text));
}
function refilter() {
  const words = byId("search").value, score = byId("score") && byId("score").value !== "" ? Number(byId("score").value) : null;
  const pattern = words ? new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i") : null;
  found = rows.filter((row) => matches(row, pattern, score));
  if (order !== null) shuffle(found, order);
  pageNumber = 1;
  group = null;
  show();
}
// mulberry32: the same seed gives the same order everywhere.
function shuffle(list, seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
}
function addText(element, text) {
  text = visible(text);
  const words = byId("search").value.toLowerCase();
  const lower = text.toLowerCase();
  if (!words || lower.length !== text.length) return element.append(text);
  let at = 0, hit;
  while ((hit = lower.indexOf(words, at)) >= 0) {
    element.append(text.slice(at, hit), node("mark", {}, text.slice(hit, hit + words.length)));
    at = hit + words.length;
  }
  element.append(text.slice(at));
}
// A long text is cut until it is asked for: 100 kB in one paragraph are slow to lay out.
function addLongText(element, text) {
  if (text.length <= LONG) return addText(element, text);
  const rest = node("button", { type: "button" }, `… ${(text.length - LONG).toLocaleString("en")} more characters`);
  const cut = /[\ud800-\udbff]/.test(text[LONG - 1]) ? LONG - 1 : LONG;
  addText(element, text.slice(0, cut));
  rest.addEventListener("click", () => { rest.remove(); addText(element, text.slice(cut)); });
  element.append(rest);
}
function showMessage(message) {
  const element = node("div", { class: `message ${message.role}` }, node("b", {}, message.role));
  if (typeof message.content === "string") addLongText(element, message.content);
  else {
    for (const part of message.content) {
      const piece = node("span", part.type === "text" ? {} : { class: "tool", title: part.type });
      addLongText(piece, part.text);
      element.append(piece);
    }
  }
  return element;
}
function showTokens(row) {
  const element = node("div", { class: "tokens", dir: "auto" });
  const { text, sizes, mask, kept } = row.tokens || guessTokens(row);
  let at = 0, run = 0, left = mask[0];
  for (let i = 0; i < sizes.length && i < LONG_TOKENS; i++) {
    while (left === 0) left = mask[++run];
    left--;
    const cut = kept !== undefined && i >= kept ? " cut" : "";
    if (sizes[i]) element.append(node("span", { class: `t${run % 2}${i % 2 ? " odd" : ""}${cut}` }, visible(text.slice(at, at + sizes[i]))));
    at += sizes[i];
  }
  if (sizes.length > LONG_TOKENS) element.append(` … ${(sizes.length - LONG_TOKENS).toLocaleString("en")} more`);
  const counted = mask.reduce((sum, length, i) => sum + (i % 2 ? length : 0), 0);
  const what = row.tokens ? "tokens" : "words (no tokenizer's tokens are here)";
  const note = node("p", { class: "note" }, `${sizes.length.toLocaleString("en")} ${what}, ${counted.toLocaleString("en")} supervised`);
  if (kept !== undefined) note.append(kept && row.packed ? `; the first ${kept.toLocaleString("en")} are trained on, the rest has no room` : "; no row has room for it");
  if (row.packed && group === null) note.append(" ", showPacking(row));
  return [note, element];
}
// Which conversations share the row, in their order: what attention sees beside this one where `--attention row` is set.
function showPacking(row) {
  const [number] = row.packed, all = packedRows.get(number);
  const others = all.length === 1 ? "alone" : `packed with ${all.length - 1} other${all.length === 2 ? "" : "s"}`;
  const button = node("button", { type: "button", class: "near" }, `row ${(number + 1).toLocaleString("en")} of ${about.packed.toLocaleString("en")}, ${others}`);
  button.addEventListener("click", () => {
    const members = [...all].sort((a, b) => a.packed[1] - b.packed[1]);
    const taken = members.reduce((sum, member) => sum + (member.tokens.kept ?? member.tokens.sizes.length), 0);
    group = { rows: members, kind: "packed", said: `Row ${(number + 1).toLocaleString("en")} of the first epoch: ${members.length} conversation${members.length === 1 ? "" : "s"}, ${taken.toLocaleString("en")} of ${about.capacity.toLocaleString("en")} tokens` };
    show();
  });
  return button;
}
// Without the tokenizer: words, with the mask by whose they are.
function guessTokens(row) {
  const sizes = [], mask = [0];
  let text = "";
  const add = (piece, supervised) => {
    for (const word of piece.match(/\s*\S+\s*|\s+/g) || []) {
      if ((mask.length - 1) % 2 !== supervised) mask.push(0);
      mask[mask.length - 1]++;
      sizes.push(word.length);
      text += word;
    }
  };
  for (const message of row.messages) {
    const parts = typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
    for (const part of parts) add(part.text, Number(message.role === "assistant" && part.type !== "python_output"));
    add("\n", 0);
  }
  return { text, sizes, mask };
}
function toLine(row) {
  const { id, messages, meta, part, reasons, detail, raw } = row;
  return JSON.stringify(messages.length ? { id, messages, meta } : { ...meta, reasons, detail, raw, verdict: part });
}
function showRow(row) {
  const about = [row.part, textMeta("source")(row), textMeta("cell")(row), textMeta("model")(row)];
  const head = node("h3", {}, node("span", { class: `verdict ${row.part}` }, row.part), node("code", {}, row.id ? row.id.slice(0, 12) : `row ${row.meta.row}`));
  for (const word of about.slice(1)) if (word) head.append(node("span", {}, visible(word)));
  if (row.meta && typeof row.meta.score === "number") head.append(node("span", {}, `score ${row.meta.score}`));
  const copier = node("button", { type: "button" }, "Copy");
  copier.addEventListener("click", () => copy(toLine(row), copier));
  head.append(copier);
  const isPacked = group !== null && group.kind === "packed";
  const element = node("article", { class: isPacked ? `row k${row.packed[1] % 6}` : "row" }, head);
  if (row.cluster && group === null) {
    const all = clusters.get(row.cluster);
    const button = node("button", { type: "button", class: "near" }, `${all.length} near-duplicates side by side`);
    button.addEventListener("click", () => { group = { rows: all.slice(0, CLUSTER_SHOWN), kind: "side", said: `${all.length} conversations that nearly equal one another` }; show(); });
    head.append(button);
  }
  if (row.reasons && row.reasons.length) element.append(node("p", { class: "why" }, visible(`${row.reasons.join(", ")}${row.detail ? `: ${row.detail}` : ""}`)));
  if ((byId("show-tokens").checked || isPacked) && row.messages.length) element.append(...showTokens(row));
  else element.append(...row.messages.map(showMessage));
  if (row.raw !== undefined) {
    const raw = node("div", { class: "message raw" }, node("b", {}, "raw answer"));
    addLongText(raw, row.raw || "(none came)");
    element.append(raw);
  }
  if (byId("show-meta").checked) element.append(node("pre", {}, visible(JSON.stringify(row.meta, null, 1))));
  return element;
}
const pageRows = () => (group !== null ? group.rows : found.slice((pageNumber - 1) * PAGE_SIZE, pageNumber * PAGE_SIZE));

function show() {
  const numPages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
  pageNumber = Math.min(Math.max(1, pageNumber), numPages);
  byId("legend").classList.toggle("hidden", !byId("show-tokens").checked && !(group && group.kind === "packed"));
  const target = byId("rows");
  target.className = group === null ? "" : group.kind;
  target.replaceChildren(...pageRows().map(showRow));
  if (group !== null) {
    const back = node("button", { type: "button", id: "back" }, "Back to all");
    back.addEventListener("click", () => { group = null; show(); });
    target.prepend(back);
  }
  const read = isRead ? "" : `; still reading (${rows.length.toLocaleString("en")} of ${about.rows.toLocaleString("en")})`;
  byId("found").textContent = group !== null ? group.said
    : `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${order === null ? "" : `, in random order by seed ${order}`}${read}`;
  byId("page").value = pageNumber;
  byId("page").max = numPages;
  byId("pages").textContent = `of ${numPages.toLocaleString("en")}`;
  byId("previous").disabled = pageNumber <= 1 || group !== null;
  byId("next").disabled = pageNumber >= numPages || group !== null;
}
async function unpack(element) {
  const binary = atob(element.textContent), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
async function readAll() {
  for (const [name] of FILTERS) addFilter(name);
  let shownMs = -1e9;
  for (const element of [...document.querySelectorAll(".chunk")]) {
    const batch = await unpack(element);
    for (const row of batch) {
      rows.push(row);
      if (row.cluster) collect(clusters, row.cluster, row);
      if (row.packed) collect(packedRows, row.packed[0], row);
    }
    countValues(batch);
    if (performance.now() - shownMs > 400 && group === null && !byId("search").value && pageNumber === 1) {
      refilter();
      shownMs = performance.now();
    }
    await new Promise((resolve) => setTimeout(resolve));
  }
  isRead = true;
  refilter();
}
function listen() {
  let timer = 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refilter, 200); });
  byId("previous").addEventListener("click", () => { pageNumber--; show(); byId("conversations").scrollIntoView(); });
  byId("next").addEventListener("click", () => { pageNumber++; show(); byId("conversations").scrollIntoView(); });
  byId("page").addEventListener("change", () => { pageNumber = Math.round(Number(byId("page").value)) || 1; show(); });
  byId("draw").addEventListener("click", () => { order = Number(byId("seed").value) || 0; byId("in-order").classList.remove("hidden"); refilter(); });
  byId("in-order").addEventListener("click", () => { order = null; byId("in-order").classList.add("hidden"); refilter(); });
  byId("show-tokens").addEventListener("change", show);
  byId("show-meta").addEventListener("change", show);
  byId("copy-page").addEventListener("click", (event) => copy(pageRows().map(toLine).join("\n") + "\n", event.target));
  byId("copy-all").addEventListener("click", (event) => copy(found.map(toLine).join("\n") + "\n", event.target));
}
if (byId("conversations")) {
  listen();
  requestAnimationFrame(() => setTimeout(readAll));
}
