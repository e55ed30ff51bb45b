// The status page: it shows what the supervisor says, as it says it, and has no opinion of its own.
//
// Text is only ever set as text. Rows are kept and changed in place, so that focus, selection and a
// screen reader's position survive an update.
"use strict";

const PAGE_OF_ROOMS = 100;
const TIMELINE_LENGTH = 200;
const RETRY_MS = 3000;
let lostAfterMs = 40_000; // something is sent every 15 s
const ROOM_STATES = ["conflict", "missing_agent", "unknown", "healthy", "empty"];
const TONES = {
  ready: "good", healthy: "good",
  starting: "warning", draining: "warning", backoff: "warning", conflict: "warning", unknown: "warning",
  stopping: "plain", stopped: "plain", empty: "plain",
  crash_loop: "bad", missing_agent: "bad",
};

const byId = (id) => document.getElementById(id);
const words = (name) => String(name).replaceAll("_", " ");
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// --- the little that is needed to build a page ---

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Make the children of `parent` those of `items`: what is the same stays, what differs is made anew.
function keep(parent, items, keyOf, make) {
  const present = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const shape = JSON.stringify(item);
    let node = present.get(key);
    if (node && node.dataset.shape !== shape) {
      const next = make(item);
      node.replaceChildren(...next.childNodes);
      for (const { name } of [...node.attributes]) if (!next.hasAttribute(name)) node.removeAttribute(name);
      for (const { name, value } of next.attributes) node.setAttribute(name, value);
      node.dataset.key = key;
    } else if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    node.dataset.shape = shape;
    present.delete(key);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of present.values()) node.remove();
}

function cell(label, content, className = "") {
  return element("td", { className, role: "cell", "data-label": label }, content);
}

function state(name, tone = TONES[name] ?? "plain") {
  const node = element("span", { className: "state" }, words(name));
  node.dataset.tone = tone;
  return node;
}

// --- times and sizes ---

function ago(iso) {
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

function since(iso) {
  if (!iso) return "–";
  const node = element("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, ago(iso));
  node.dataset.ago = "";
  return node;
}

function bytes(n) {
  if (!n) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  const value = n / 1024 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

setInterval(() => {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
}, 5000);

// --- what is to be known first ---

function showVerdict(status) {
  const problems = status.problems.filter((problem) => problem.severity !== "info");
  const worst = problems.some((problem) => problem.severity === "error") ? "bad" : "warning";
  const agents = status.agents.filter((agent) => agent.want === "running");
  const ready = agents.filter((agent) => agent.ready).length;
  const rooms = Object.values(status.rooms).reduce((sum, n) => sum + n, 0);

  byId("verdict").dataset.tone = problems.length ? worst : "good";
  setText(byId("verdict-text"), problems.length
    ? plural(problems.length, "thing is wrong", "things are wrong") : "All is well");
  setText(byId("verdict-detail"),
    `${ready} of ${plural(agents.length, "agent")} ready, ${plural(rooms, "room")}, ` +
    (status.livekit.up ? `LiveKit reached at ${status.livekit.url}` : `LiveKit not reached at ${status.livekit.url}`));
  keep(byId("problems"), status.problems, (p) => JSON.stringify([p.severity, p.agent_id, p.room, p.message]), problemItem);

  setText(byId("version"), status.daemon.version);
  byId("mode").hidden = status.daemon.mode === "production";
  setText(byId("mode"), status.daemon.mode);
  document.title = (problems.length ? `(${problems.length}) ` : "") + "livekit-supervisor";
}

function problemItem(problem) {
  const tone = { error: "bad", warning: "warning" }[problem.severity] ?? "plain";
  const about = [problem.agent_id, problem.room].filter(Boolean).join(", ");
  const item = element("li", {},
    state(problem.severity, tone),
    element("span", { className: "what" }, about ? element("b", {}, `${about}: `) : "", problem.message),
    problem.fix ? element("code", {}, problem.fix) : "");
  item.dataset.tone = tone;
  return item;
}

// --- agents ---

const names = new Map();

function nameOf(agentId) {
  return names.get(agentId) || agentId;
}

function showAgents(agents) {
  for (const agent of agents) names.set(agent.id, agent.name);
  keep(byId("agents"), agents, (agent) => agent.id, agentRow);
  byId("agents-empty").hidden = agents.length > 0;
  byId("agents").parentElement.hidden = agents.length === 0;
  setText(byId("agents-count"), agents.length > 1 ? plural(agents.length, "agent") : "");
}

function agentRow(agent) {
  const stateCell = cell("State", state(agent.state));
  stateCell.classList.add("wordless");
  if (agent.reason) stateCell.append(element("small", {}, agent.reason));
  return element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader", className: "name" },
      agent.name || (agent.name === "" ? "unnamed" : "–"), element("small", { className: "mono" }, agent.id)),
    stateCell,
    cell("Since", since(agent.since)),
    cell("Rooms", String(agent.jobs), "number"),
    cell("Restarts", String(agent.restarts), "number"),
    cell("Memory", bytes(agent.memory_bytes), "number"));
}

// --- rooms ---

const rooms = new Map();
const order = new Intl.Collator(undefined, { numeric: true });
let shownState = null;
let shownRooms = PAGE_OF_ROOMS;
let drawing = 0;

function takeRooms({ reset, changed, removed }) {
  if (reset) rooms.clear();
  for (const room of changed) rooms.set(room.name, room);
  for (const name of removed) rooms.delete(name);
  drawRoomsSoon();
}

function drawRoomsSoon() {
  drawing ||= setTimeout(() => { drawing = 0; drawRooms(); }, 50);
}

function drawRooms() {
  const counts = Object.fromEntries(ROOM_STATES.map((name) => [name, 0]));
  for (const room of rooms.values()) counts[room.state] = (counts[room.state] ?? 0) + 1;
  keep(byId("states"), Object.entries(counts).map(([name, count]) => ({ name, count, pressed: shownState === name })),
    (s) => s.name, stateButton);

  const search = byId("search").value.trim().toLowerCase();
  const wanted = [...rooms.values()].filter((room) =>
    (shownState === null || room.state === shownState) && (!search || searchable(room).includes(search)));
  wanted.sort((a, b) =>
    ROOM_STATES.indexOf(a.state) - ROOM_STATES.indexOf(b.state) || order.compare(a.name, b.name));

  keep(byId("rooms"), wanted.slice(0, shownRooms), (room) => room.name, roomRow);
  const hidden = wanted.length - shownRooms;
  byId("more").hidden = hidden <= 0;
  setText(byId("more"), `Show ${plural(Math.min(hidden, PAGE_OF_ROOMS), "more", "more")} of ${hidden.toLocaleString("en")}`);
  byId("rooms").parentElement.hidden = wanted.length === 0;
  byId("rooms-empty").hidden = wanted.length > 0;
  setText(byId("rooms-empty"), rooms.size ? "No room is like that." : "No rooms at the moment.");
  byId("states").parentElement.hidden = rooms.size === 0;
  setText(byId("rooms-count"), wanted.length === rooms.size
    ? (rooms.size ? plural(rooms.size, "room") : "") : `${wanted.length.toLocaleString("en")} of ${plural(rooms.size, "room")}`);
}

function searchable(room) {
  const agents = room.agents.map((agent) => `${agent.identity} ${agent.agent_id ?? ""} ${nameOf(agent.agent_id) ?? ""}`);
  return [room.name, room.reason ?? "", ...agents].join("\n").toLowerCase();
}

function stateButton({ name, count, pressed }) {
  return element("button", { type: "button", ariaPressed: String(pressed), disabled: count === 0 && !pressed },
    `${words(name)} `, element("b", {}, count.toLocaleString("en")));
}

byId("states").addEventListener("click", (event) => {
  const name = event.target.closest("button")?.parentElement === byId("states")
    ? event.target.closest("button").dataset.key : null;
  if (name === null) return;
  shownState = shownState === name ? null : name;
  shownRooms = PAGE_OF_ROOMS;
  drawRooms();
});
byId("search").addEventListener("input", () => { shownRooms = PAGE_OF_ROOMS; drawRoomsSoon(); });
byId("more").addEventListener("click", () => { shownRooms += PAGE_OF_ROOMS; drawRooms(); });

function roomRow(room) {
  const stateCell = cell("State", state(room.state));
  stateCell.classList.add("wordless");
  if (room.reason) stateCell.append(element("small", {}, room.reason));
  const agents = cell("Agents", "");
  agents.append(...room.agents.map((agent) => element("div", { className: "name" },
    element("span", { className: agent.holder ? "holder" : "", title: agent.agent_id ?? "" },
      agent.agent_id ? nameOf(agent.agent_id) : "not ours"),
    agent.holder ? element("span", { className: "unseen" }, " (holds the room)") : "",
    element("small", { className: "mono" }, agent.identity))));
  if (!room.agents.length) agents.append(element("span", { className: "quiet" }, "none"));
  return element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader", className: "name" }, room.name),
    stateCell,
    cell("Humans", String(room.humans), "number"),
    agents);
}

// --- timeline ---

let timeline = [];
let lines = 0;

function takeTimeline(entries, first) {
  if (first) timeline = [];
  for (const entry of entries) timeline.push({ ...entry, number: ++lines });
  timeline = timeline.slice(-TIMELINE_LENGTH);
  keep(byId("timeline"), [...timeline].reverse(), (entry) => entry.number, timelineItem);
  if (!first) for (const node of [...byId("timeline").children].slice(0, entries.length)) node.classList.add("new");
  byId("timeline").hidden = timeline.length === 0;
  byId("timeline-empty").hidden = timeline.length > 0;
}

function timelineItem(entry) {
  const when = new Date(entry.time);
  const today = when.toDateString() === new Date().toDateString();
  const clock = when.toLocaleTimeString(undefined, CLOCK);
  const about = [entry.detail, entry.agent_id && nameOf(entry.agent_id), entry.room && `room ${entry.room}`];
  const item = element("li", {},
    element("time", { dateTime: entry.time, title: when.toLocaleString() },
      clock, today ? "" : element("small", {}, when.toLocaleDateString(undefined, { month: "short", day: "numeric" }))),
    element("div", {},
      element("span", { className: "dot", ariaHidden: "true" }),
      element("b", {}, entry.title),
      element("small", { title: entry.agent_id ?? "" }, about.filter(Boolean).join(" · "))));
  item.dataset.tone = entry.tone;
  return item;
}

// --- the connection ---

let heard = null;

function setConnection(state, text) {
  byId("connection").dataset.state = state;
  document.body.classList.toggle("lost", state === "lost");
  setText(byId("connection-text"), text);
}

function connect() {
  const source = new EventSource("/api/events");
  let fresh = true;
  let heardAt = performance.now();
  const on = (name, show) => source.addEventListener(name, (event) => {
    heard = new Date();
    heardAt = performance.now();
    setConnection("live", "live");
    show(JSON.parse(event.data));
  });
  on("status", (status) => { showVerdict(status); showAgents(status.agents); });
  on("rooms", takeRooms);
  on("timeline", (entries) => { takeTimeline(entries, fresh); fresh = false; });
  on("ping", () => {});
  const lose = () => {
    clearInterval(listening);
    source.close();
    setConnection("lost", heard ? `no connection; this is from ${heard.toLocaleTimeString(undefined, CLOCK)}` : "no connection");
    setTimeout(connect, RETRY_MS);
  };
  source.onerror = lose;
  // Who is frozen, or has no network any more, does not say so.
  const listening = setInterval(() => { if (performance.now() - heardAt > lostAfterMs) lose(); }, 1000);
}

connect();
