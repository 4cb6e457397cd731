// What is shown of a model.  Rows are made once and changed where something is new, so that
// the focus stays, and nothing jumps.

import { errorShare, isOut, lastRate, sparkline, tone } from "./model.js";
import { age, brief, count, duration, rate, reason, say, share, stateWord } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

export function $(id) {
  return document.getElementById(id);
}

export function make(tag, name = "", ...inside) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside);
  return node;
}

/** Change a text only if it is another one. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function draw(svg, samples, highest) {
  svg.firstElementChild.setAttribute("d", sparkline(samples, highest));
}

function spark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 60 16");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "path"));
  return svg;
}

function cell(label, name, ...inside) {
  const node = make("td", name, ...inside);
  node.dataset.label = label;
  return node;
}

/** Two lines of one cell; the lower one may be empty, but has its place. */
function pair(node) {
  const upper = make("span", "upper"), lower = make("small");
  node.append(upper, lower);
  return [upper, lower];
}

class Row {
  constructor(addr) {
    this.inSight = false;
    this.node = make("tr");
    this.node.dataset.addr = addr;
    this.node.tabIndex = -1;
    this.name = make("th", "server");
    this.name.scope = "row";
    [this.address, this.notes] = pair(this.name);
    this.state = cell("state", "state");
    this.badge = make("span", "badge");
    this.why = make("small");
    this.state.append(this.badge, this.why);
    this.conns = cell("connections", "conns");
    this.load = make("span", "upper");
    this.bar = make("div", "meter", make("div"));
    this.bar.setAttribute("role", "meter");
    this.conns.append(this.load, this.bar);
    this.weight = cell("weight", "n");
    this.beat = cell("heartbeat", "n");
    this.traffic = cell("rate", "rate");
    this.rate = make("span", "figure");
    this.spark = spark();
    this.traffic.append(this.rate, this.spark);
    this.errors = cell("errors", "n");
    this.times = cell("times", "n times");
    this.acts = cell("actions", "acts");
    this.buttons = {};
    for (const act of ["edit", "toggle", "disable", "remove"]) {
      const button = make("button", "act");
      button.type = "button";
      button.dataset.act = act;
      button.tabIndex = -1;
      this.buttons[act] = button;
      this.acts.append(button);
    }
    this.fixed = make("small", "fixed");
    this.acts.append(this.fixed);
    this.node.append(this.name, this.state, this.conns, this.weight, this.beat,
      this.traffic, this.errors, this.times, this.acts);
  }

  show(server, now, highest, locked) {
    const notes = [];
    if (server.backup) notes.push(say("backup"));
    if (server.slow_start < 1) notes.push(say("slow", { n: share(server.slow_start) }));
    if (server.drain_then) notes.push(say(server.drain_then === "remove" ? "drainThenRemove" : "drainThenDisable"));
    write(this.address, server.addr);
    this.address.title = server.addr;
    write(this.notes, notes.join(" · "));
    write(this.badge, stateWord(server.state));
    this.badge.dataset.tone = tone(server.state);
    this.badge.dataset.state = server.state;
    const draining = server.state === "draining" ? this.draining(server, now) : "";
    write(this.why, draining || brief(server.why));
    this.why.title = draining || reason(server.why);
    this.showLoad(server);
    write(this.weight, count(server.weight));
    write(this.beat, beatText(server, now));
    this.beat.classList.toggle("none", server.heartbeat === false || server.beatAt === null);
    write(this.rate, rate(lastRate(server.samples)));
    this.traffic.title = say("rateFull");
    draw(this.spark, server.samples, highest);
    const wrong = errorShare(server.samples);
    write(this.errors, share(wrong));
    this.errors.dataset.tone = wrong > 0.05 ? "bad" : wrong > 0 ? "warn" : "";
    write(this.times, `${duration(server.latency.p50)} / ${duration(server.latency.p99)}`);
    for (const [node, key] of [[this.state, "state"], [this.conns, "connections"], [this.weight, "weight"],
      [this.beat, "heartbeat"], [this.traffic, "rate"], [this.errors, "errors"], [this.acts, "actions"]]) {
      node.dataset.label = say(key);
    }
    this.times.dataset.label = "p50 / p99";
    this.showActs(server, locked);
  }

  showLoad(server) {
    const max = server.max_conns;
    const draining = server.state === "draining";
    write(this.load, !draining && max > 0 ? say("of", { n: count(server.connections), max: count(max) }) : count(server.connections));
    this.bar.hidden = !draining && !(max > 0);
    if (this.bar.hidden) return;
    const whole = draining ? Math.max(1, server.peak) : max;
    const part = Math.min(server.connections, whole);
    const filled = (draining ? whole - part : part) / whole;
    this.bar.firstChild.style.width = `${(filled * 100).toFixed(1)}%`;
    this.bar.className = `meter ${draining ? "drain" : filled >= 1 ? "bad" : filled >= 0.8 ? "warn" : ""}`;
    this.bar.setAttribute("aria-label", say(draining ? "drainProgress" : "barLabel"));
    this.bar.setAttribute("aria-valuemax", whole);
    this.bar.setAttribute("aria-valuenow", draining ? whole - part : part);
  }

  draining(server, now) {
    const n = count(server.connections);
    if (server.drainEnd === null) return say("drainLeft", { n });
    return say("drainLeftTime", { n, time: age((server.drainEnd - now) / 1000) });
  }

  showActs(server, locked) {
    const fixed = server.source === "file";
    const out = isOut(server);
    const labels = { edit: "edit", toggle: out ? "enable" : "drain", disable: "disable", remove: "remove" };
    for (const [act, key] of Object.entries(labels)) {
      const button = this.buttons[act];
      write(button, say(key));
      button.dataset.does = key;
      button.setAttribute("aria-label", say("actOn", { act: say(key), server: server.addr }));
      button.hidden = fixed;
      button.disabled = locked || (act === "disable" && server.state === "disabled");
    }
    write(this.fixed, fixed ? say("fromFile") : "");
  }

  /** Whether tab comes here. */
  reach(here) {
    this.node.tabIndex = here ? 0 : -1;
    for (const button of Object.values(this.buttons)) button.tabIndex = here ? 0 : -1;
  }
}

export function beatText(server, now) {
  if (server.heartbeat === false) return say("beatNone");
  if (server.beatAt === null) return say("beatNever");
  return age((now - server.beatAt) / 1000);
}

const FEW = 100;
const MARGIN = "400px";

export class Table {
  /** @param soon called when rows have come into sight that were left as they were. */
  constructor(soon) {
    this.body = $("servers").tBodies[0];
    this.rows = new Map();
    this.at = null;
    this.eye = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const row = this.rows.get(target.dataset.addr);
        if (row) row.inSight = isIntersecting;
      }
      soon();
    }, { rootMargin: MARGIN });
    this.body.addEventListener("focusin", (event) => {
      const row = event.target.closest("tr");
      if (row) this.stand(row.dataset.addr);
    });
  }

  show(model, now, wanted, locked) {
    const all = model.list();
    const words = wanted.trim().toLowerCase();
    const seen = all.filter((server) => !words
      || `${server.addr} ${server.state} ${stateWord(server.state)}`.toLowerCase().includes(words));
    const addresses = new Set(seen.map((server) => server.addr));
    let highest = 1;
    for (const { samples } of all) for (const sample of samples) highest = Math.max(highest, sample.rate);
    const held = document.activeElement?.closest?.("#servers tr");
    const heldAt = held ? [...this.body.rows].indexOf(held) : -1;
    for (const [addr, row] of this.rows) {
      if (!addresses.has(addr)) {
        this.eye.unobserve(row.node);
        row.node.remove();
        this.rows.delete(addr);
      }
    }
    let place = this.body.firstChild;
    for (const server of seen) {
      let row = this.rows.get(server.addr);
      const isNew = !row;
      if (isNew) {
        this.rows.set(server.addr, row = new Row(server.addr));
        this.eye.observe(row.node);
      }
      // Of many, those that nobody sees wait until they are seen.
      if (isNew || row.inSight || seen.length <= FEW) row.show(server, now, highest, locked);
      if (place === row.node) place = place.nextSibling;
      else this.body.insertBefore(row.node, place);
    }
    this.stand(this.rows.has(this.at) ? this.at : seen[0]?.addr ?? null);
    // The row that had the focus has gone: its neighbour has it now.
    if (held && !held.isConnected) this.body.rows[Math.min(heldAt, this.body.rows.length - 1)]?.focus();
    $("servers").hidden = seen.length === 0;
    $("empty").hidden = all.length > 0 || !model.known;
    $("nothing").hidden = all.length === 0 || seen.length > 0;
    write($("found"), words ? say("found", { n: seen.length, all: all.length }) : "");
  }

  clear() {
    this.eye.disconnect();
    this.rows.clear();
    this.body.replaceChildren();
    this.at = null;
  }

  stand(addr) {
    if (addr !== this.at) this.rows.get(this.at)?.reach(false);
    this.at = addr;
    this.rows.get(addr)?.reach(true);
  }

  step(by) {
    const nodes = [...this.body.rows];
    if (!nodes.length) return;
    const inside = this.body.contains(document.activeElement);
    const here = nodes.findIndex((node) => node.dataset.addr === this.at);
    const next = inside ? Math.min(Math.max(here + by, 0), nodes.length - 1) : Math.max(here, 0);
    nodes[next].focus();
  }
}

export function showTotals(model) {
  const { usable, all, connections, samples } = model.totals();
  write($("name"), model.name);
  write($("policy"), model.policy ? say("policyIs", { policy: model.policy }) : "");
  write($("t-usable"), say("usableOf", { n: usable, max: all }));
  $("t-usable").dataset.tone = usable || !all ? "" : "bad";
  write($("t-connections"), count(connections));
  write($("t-rate"), rate(lastRate(samples)));
  draw($("t-spark"), samples, Math.max(1, ...samples.map((sample) => sample.rate)));
  write($("t-errors"), share(errorShare(samples)));
  write($("t-p50"), duration(model.latency.p50));
  write($("t-p99"), duration(model.latency.p99));
  write($("t-waiting"), count(model.waiting));
  write($("revision"), model.revision === null ? "" : say("revision", { n: model.revision }));
}

/** The row of upstreams; there is none where there is one. */
export function showUpstreams(list, name) {
  const nav = $("upstreams");
  nav.hidden = list.length < 2;
  list.forEach((upstream, index) => {
    let button = nav.children[index];
    if (!button) {
      button = make("button", "tab", make("span", "upper"), make("small"));
      button.type = "button";
      nav.append(button);
    }
    button.dataset.upstream = upstream.name;
    button.dataset.tone = upstream.usable ? "good" : upstream.servers ? "bad" : "idle";
    if (upstream.name === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    write(button.firstChild, upstream.name);
    write(button.lastChild, say("tab", { n: upstream.usable, max: upstream.servers, conns: count(upstream.connections) }));
  });
  while (nav.children.length > list.length) nav.lastChild.remove();
}

/** A short word at the edge; one with an offer stays longer. */
export function toast(text, bad = false, offer = null) {
  const node = make("p", bad ? "toast bad" : "toast", make("span", "", text));
  const timer = setTimeout(() => node.remove(), offer || bad ? 10000 : 5000);
  if (offer) {
    const button = make("button", "quiet", offer.text);
    button.type = "button";
    button.addEventListener("click", () => {
      clearTimeout(timer);
      node.remove();
      offer.act();
    });
    node.append(button);
  }
  $("toasts").append(node);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
}
