// The page: the document's parts as elements. Text from the document only ever becomes text.
const data = JSON.parse(document.getElementById("document").textContent);
const $ = (id) => document.getElementById(id);

function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 999.5 && unit + 1 < units.length) { count /= 1000; unit++; }
  return (unit === 0 || count >= 99.95 ? count.toFixed(0) : count.toFixed(1)) + " " + units[unit];
}

const seconds = (ms) => (ms / 1000).toFixed(1) + " s";
const short = (digest) => (digest ? digest.replace("sha256:", "").slice(0, 12) : "unresolved");
const vertices = data.vertices;
const drawing = layout(vertices, data.stages);
const path = critical(vertices, drawing.inputs, data.target.vertex);

const STATES = {
  cached: "cached", likely: "likely cached", run: "will run", unknown: "not known before it runs", ran: "ran",
  unchanged: "cached, although something above it ran", failed: "failed", cancelled: "cancelled",
};
const state = (id) => { const known = vertices[id].outcome || vertices[id].forecast; return known ? known.state : ""; };
const stateText = (id) => {
  const { outcome, forecast } = vertices[id];
  if (outcome) return (STATES[outcome.state] || outcome.state) + (outcome.durationMs === undefined ? "" : ` in ${seconds(outcome.durationMs)}`);
  return forecast ? `${STATES[forecast.state] || forecast.state}: ${forecast.reason}` : "unknown before the release";
};
const stateShort = (id) => {
  const { outcome } = vertices[id];
  return outcome && outcome.state !== "cached" && outcome.durationMs !== undefined ? `${outcome.state} ${seconds(outcome.durationMs)}` : state(id);
};
const label = (id) => {
  const vertex = vertices[id], inputs = drawing.inputs[id];
  return `step ${id + 1}: ${vertex.name}, ${vertex.kind}, ${inputs.length ? "from " + inputs.map((from) => from + 1).join(", ") : "takes nothing in"}` +
    (state(id) ? `, ${stateText(id)}` : "") + (path.chain.includes(id) ? `, on the ${path.timed ? "critical path" : "longest chain"}` : "");
};

function digest(text) {
  if (!text) return el("span", { class: "missing" }, "unresolved");
  return el("code", { class: "digest", title: text }, text);
}

function table(place, columns, rows, first) {
  if (!rows.length) { $(place).append(el("p", { class: "missing" }, "nothing")); return; }
  const most = first || 400;
  const body = el("tbody", {});
  const add = (from, to) => body.append(...rows.slice(from, to).map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell)))));
  add(0, most);
  $(place).append(el("table", {}, el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, name)))), body));
  if (rows.length > most) {
    const more = el("button", { type: "button", onclick: () => { add(most, rows.length); more.remove(); } }, `show all ${rows.length}`);
    $(place).append(more);
  }
}

const stepButton = (id, text) => el("button", { type: "button", class: "step", onclick: () => { choose(id, true); open(id); } }, text || `${id + 1}  ${vertices[id].name}`);

function list(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function details(vertex) {
  const id = vertex.id, parts = [];
  const steps = (ids) => (ids.length ? el("span", { class: "links" }, ids.slice(0, 60).map((other) => stepButton(other)), ids.length > 60 ? `and ${ids.length - 60} more` : "") : "nothing");
  parts.push(list([
    ["kind", vertex.kind],
    ["digest", digest(vertex.digest)],
    ["state", stateText(id)],
    ["platform", vertex.platform],
    ["takes in", steps(drawing.inputs[id])],
    ["goes into", id === data.target.vertex ? "the image" : steps(drawing.outputs[id])],
  ]));
  if (vertex.kind === "source") {
    parts.push(el("h3", {}, "Source"), el("pre", {}, vertex.identifier));
    parts.push(list(Object.entries(vertex.attrs || {})));
  }
  if (vertex.kind === "exec") {
    parts.push(el("h3", {}, "Command"), el("pre", {}, vertex.args.map((arg) => (/^[\w./:=@%+,-]+$/.test(arg) ? arg : JSON.stringify(arg))).join(" ")));
    parts.push(list([["in", vertex.cwd], ["as", vertex.user || "root"], ["network", vertex.network]]));
    parts.push(el("h3", {}, "Sees"), el("table", {}, el("tbody", {}, vertex.mounts.map((mount) => el("tr", {},
      el("td", {}, el("code", {}, mount.target)),
      el("td", {}, mount.source ? stepButton(mount.source.vertex) : mount.kind === "bind" ? "an empty folder" : mount.kind),
      el("td", { class: "missing" }, mount.output !== undefined ? "kept" : mount.readonly ? "read-only" : "thrown away"))))));
    if (vertex.env.length) parts.push(el("h3", {}, "Environment"), el("pre", {}, vertex.env.join("\n")));
  }
  if (vertex.kind === "file") {
    parts.push(el("h3", {}, "Files"), el("ul", { class: "files" }, vertex.actions.map((action) => el("li", {},
      el("span", { class: "verb" }, action.action), el("code", {}, action.path),
      action.action === "copy" ? el("span", { class: "missing" }, " of ", el("code", {}, action.source), action.from ? [" from ", stepButton(action.from.vertex)] : "") : "",
      action.target ? [" to ", el("code", {}, action.target)] : "",
      el("span", { class: "missing" }, [action.mode, action.owner, action.content ? bytes(action.content.sizeBytes) : ""].filter(Boolean).map((text) => "  " + text)),
      action.content ? digest(action.content.digest) : ""))));
  }
  const gains = data.contents.filter((entry) => entry.vertex === id);
  if (gains.length) parts.push(el("h3", {}, "In the image"), el("ul", { class: "files" }, gains.map((entry) => el("li", {}, el("code", {}, entry.path)))));
  return parts;
}

let chosen = -1;

function choose(id, focus) {
  chosen = id;
  graph.choose(id, focus);
  $("said").textContent = id < 0 ? "" : label(id);
}

function open(id) {
  const panel = $("panel");
  const close = el("button", { type: "button", class: "close", "aria-label": "close", onclick: () => shut() }, "\u00d7");
  panel.replaceChildren(el("header", {}, el("span", { class: "badge " + vertices[id].kind }, String(id + 1)), el("h2", {}, vertices[id].name), close), ...details(vertices[id]));
  panel.hidden = false;
  panel.scrollTop = 0;
  try { history.replaceState(null, "", "#step=" + (id + 1)); } catch { /* a frame may have no history */ }
}

function shut() {
  $("panel").hidden = true;
  try { history.replaceState(null, "", "#"); } catch { /* as above */ }
  if (chosen >= 0) graph.choose(chosen, true);
}

const graph = new Graph($("graph"), vertices, drawing, path.chain, {
  label,
  line: (id) => [vertices[id].kind, short(vertices[id].digest), stateShort(id)].filter(Boolean).join(" \u00b7 "),
  state,
  choose: (id) => choose(id, true),
  open,
  entry: data.target.vertex,
});

// Search.
const texts = vertices.map((vertex) => [vertex.name, vertex.kind, vertex.digest, vertex.identifier, ...(vertex.args || []),
  ...(vertex.actions || []).flatMap((action) => [action.path, action.source, action.content && action.content.digest])].filter(Boolean).join("\n").toLowerCase());
data.contents.forEach((entry) => { texts[entry.vertex] += "\n" + entry.path.toLowerCase(); });
let found = [], at = -1;
$("search").addEventListener("input", () => {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  found = words.length ? vertices.map((vertex) => vertex.id).filter((id) => words.every((word) => texts[id].includes(word))) : [];
  at = -1;
  graph.hits = new Set(found);
  $("found").textContent = words.length ? String(found.length) : "";
  graph.draw();
});
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && found.length) {
    at = (at + (event.shiftKey ? found.length - 1 : 1) + (at < 0 && event.shiftKey ? 1 : 0)) % found.length;
    choose(found[at], false);
    open(found[at]);
    $("found").textContent = `${at + 1} of ${found.length}`;
    event.preventDefault();
  } else if (event.key === "Escape") {
    $("search").value = "";
    $("search").dispatchEvent(new Event("input"));
    if (chosen >= 0) choose(chosen, true); else $("search").blur();
    event.stopPropagation();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, dialog")) return;
  const inGraph = graph.svg.contains(event.target) || event.target === document.body;
  if (event.key === "/") { $("search").focus(); $("search").select(); }
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "+" || event.key === "=") graph.zoom(1.25);
  else if (event.key === "-") graph.zoom(0.8);
  else if (event.key === "0") graph.fit();
  else if (event.key === "Escape" && !$("panel").hidden) shut();
  else if (inGraph && (event.key === "Enter" || event.key === " ") && chosen >= 0) { open(chosen); $("panel").querySelector(".close").focus(); }
  else if (inGraph && event.key.startsWith("Arrow") && vertices.length) choose(chosen < 0 ? data.target.vertex : graph.beside(chosen, event.key), true);
  else return;
  event.preventDefault();
});
$("in").addEventListener("click", () => graph.zoom(1.25));
$("out").addEventListener("click", () => graph.zoom(0.8));
$("fit").addEventListener("click", () => graph.fit());
$("keys").addEventListener("click", () => $("help").showModal());
addEventListener("beforeprint", () => { shut(); graph.fit(); graph.paint(); });

// What is no graph.
$("title").textContent = data.image.names.join("  ") || "release";
const fact = (name, value) => el("li", {}, el("span", {}, name), value);
const forecasts = vertices.map((vertex) => state(vertex.id)).filter(Boolean);
$("facts").append(...[
  fact("platform", data.image.platform), fact("steps", String(vertices.length)),
  data.definition ? fact("definition", el("code", { title: data.definition.digest }, short(data.definition.digest))) : null,
  forecasts.some((one) => one !== "unknown") ? fact("cached", `${forecasts.filter((one) => ["cached", "unchanged", "likely"].includes(one)).length} of ${vertices.length}${forecasts.includes("likely") ? ", likely" : ""}`) : null,
  path.timed ? fact("critical path", seconds(path.total)) : fact("longest chain", `${path.chain.length} steps`),
].filter(Boolean));
if (!data.resolved) {
  $("unresolved").hidden = false;
  $("unresolved").textContent = "Unresolved: " + data.unresolved.map((one) => `${one.image}: ${one.reason}`).join("; ") + ". Digests below are not known.";
}
const kinds = [...new Set(vertices.map((vertex) => vertex.kind))].sort();
$("legend").append(...kinds.map((kind) => el("li", {}, el("i", { class: "swatch " + kind }), kind)),
  el("li", {}, el("i", { class: "swatch hot" }), path.timed ? "critical path" : "longest chain"),
  ...[...new Set(forecasts)].sort().map((one) => el("li", {}, el("i", { class: "dot state-" + one }), STATES[one] || one)));
table("contents", ["path", "kind", "mode", "owner", "size", "made by"], data.contents.map((entry) => [
  el("code", {}, entry.path), entry.kind, el("code", {}, entry.mode || "\u2013"), entry.owner || "\u2013",
  entry.sizeBytes === undefined ? "\u2013" : bytes(entry.sizeBytes), stepButton(entry.vertex)]));
table("steps", ["step", "kind", "digest", "from", "state"], vertices.map((vertex) => [
  stepButton(vertex.id), el("span", { class: "kind" }, el("i", { class: "swatch " + vertex.kind }), vertex.kind), el("code", { title: vertex.digest || "" }, short(vertex.digest)),
  drawing.inputs[vertex.id].slice(0, 12).map((from) => from + 1).join(", ") + (drawing.inputs[vertex.id].length > 12 ? ", \u2026" : ""),
  state(vertex.id) ? stateText(vertex.id) : "\u2013"]), 200);
$("inputs").append(list([...data.function.map((file) => [file.path, [bytes(file.sizeBytes) + "  ", digest(file.digest)]]),
  ...data.bases.map((base) => [base.reference, digest(base.digest || base.configDigest)])]));
const config = data.image.config.config || {};
const lines = (value) => (value && value.length ? el("pre", {}, value.join("\n")) : "");
$("config").append(list([
  ["command", [...(config.Entrypoint || []), ...(config.Cmd || [])].map((word) => (/\s/.test(word) ? JSON.stringify(word) : word)).join(" ")],
  ["folder", config.WorkingDir], ["user", config.User], ["ports", Object.keys(config.ExposedPorts || {}).join(", ")], ["environment", lines(config.Env)],
  ["labels", lines(Object.entries(config.Labels || {}).map(([key, value]) => `${key}=${value}`))],
  ["notes", lines(data.notices)],
]));
// As high as the drawing needs, within what the window has.
const stage = document.querySelector(".stage");
const needed = drawing.height * Math.min(1.15, stage.clientWidth / drawing.width) + 76;
stage.style.height = Math.round(Math.max(340, Math.min(needed, innerHeight * 0.68))) + "px";
graph.fit();
graph.paint();
const asked = /^#step=(\d+)$/.exec(location.hash);
if (asked && vertices[asked[1] - 1]) { choose(asked[1] - 1, false); open(asked[1] - 1); }
document.documentElement.dataset.ready = "yes";
