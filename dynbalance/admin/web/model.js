// One upstream as the page knows it.  Pure: no DOM, no network; times are handed in, in milliseconds.

export const SAMPLES = 60;

const OFF = new Set(["disabled", "draining"]);
const GOOD = new Set(["up"]);
const BUSY = new Set(["full", "draining"]);
const IDLE = new Set(["disabled", "down", "removed", "unknown"]);

/** Which of four tones a state has. */
export function tone(state) {
  if (GOOD.has(state)) return "good";
  if (BUSY.has(state)) return "warn";
  return IDLE.has(state) ? "idle" : "bad";
}

/** Whether enabling is what a person would do next. */
export function isOut(server) {
  return OFF.has(server.state) || server.state === "expired";
}

export class Model {
  constructor(name) {
    this.name = name;
    this.policy = "";
    this.revision = null;
    this.store = "ok";
    this.staleSince = null;
    this.waiting = 0;
    this.latency = {};
    this.servers = new Map();
    this.order = [];
    this.known = false;
  }

  /** The answer of status; the figures of servers that stay are kept. */
  takeStatus(answer, now) {
    this.known = true;
    this.order = answer.data.map((told) => told.addr);
    const before = this.servers;
    this.servers = new Map();
    for (const told of answer.data) {
      const was = before.get(told.addr);
      const beat = told.time_since_heartbeat;
      const server = {
        samples: was?.samples ?? [], latency: was?.latency ?? {}, peak: was?.peak ?? 0, ...told,
        beatAt: beat === undefined ? null : now - beat * 1000,
        drainEnd: told.drain_remaining === undefined ? null : now + told.drain_remaining * 1000,
      };
      server.drainTotal = server.drainEnd === null ? null : was?.drainTotal ?? told.drain_remaining;
      server.peak = server.state === "draining" ? Math.max(server.peak, server.connections) : 0;
      this.servers.set(told.addr, server);
    }
    if (answer.code === 200) {
      this.revision = answer.etag ? Number(answer.etag.replace(/"/g, "")) : this.revision;
      this.takeStore("ok", now);
    } else {
      this.takeStore("away", now);
    }
  }

  takeStore(word, now) {
    this.store = word;
    if (word === "ok") this.staleSince = null;
    else this.staleSince ??= now;
  }

  /** What the node says of how long it has not heard the store. */
  takeStale(seconds, now) {
    if (seconds > 0) this.staleSince = now - seconds * 1000;
  }

  /** @return whether the status has to be asked for: a server came or went. */
  takeState({ server: addr, state, why }) {
    const server = this.servers.get(addr);
    if (!server || state === "removed") return true;
    Object.assign(server, { state, why });
    return OFF.has(state);
  }

  takeFigures({ waiting, latency, servers }) {
    this.waiting = waiting;
    this.latency = latency ?? {};
    for (const [addr, told] of Object.entries(servers)) {
      const server = this.servers.get(addr);
      if (!server) continue;
      server.connections = told.connections;
      server.node_connections = told.node_connections;
      if (server.state === "draining") server.peak = Math.max(server.peak, told.connections);
      server.latency = told.latency ?? {};
      server.samples.push({ rate: told.requests || told.picks, picks: told.picks, errors: told.errors });
      if (server.samples.length > SAMPLES) server.samples.shift();
    }
  }

  list() {
    return this.order.map((addr) => this.servers.get(addr));
  }

  usable(except = null) {
    return this.list().filter((server) => server.state === "up" && server.addr !== except);
  }

  totals() {
    const all = this.list();
    const longest = Math.max(0, ...all.map((server) => server.samples.length));
    const samples = [];
    for (let back = longest; back > 0; back -= 1) {
      const sum = { rate: 0, picks: 0, errors: 0 };
      for (const { samples: own } of all) {
        const sample = own[own.length - back];
        if (sample) for (const key of Object.keys(sum)) sum[key] += sample[key];
      }
      samples.push(sum);
    }
    return {
      usable: this.usable().length,
      all: all.length,
      connections: all.reduce((sum, server) => sum + server.connections, 0),
      samples,
    };
  }

  /** The part of the usable weight that a server would have with another weight. */
  weightShare(addr, weight) {
    const others = this.usable(addr).filter((server) => !server.backup);
    const sum = others.reduce((total, server) => total + server.weight, weight);
    return sum > 0 ? weight / sum : 0;
  }
}

export function lastRate(samples) {
  return samples.length ? samples[samples.length - 1].rate : 0;
}

/** Failed attempts of all attempts; null when there were none. */
export function errorShare(samples) {
  let picks = 0, errors = 0;
  for (const sample of samples) {
    picks += Math.max(sample.picks, sample.rate);
    errors += sample.errors;
  }
  return picks > 0 ? Math.min(1, errors / picks) : errors > 0 ? 1 : null;
}

/** A line through the samples, newest at the right, in a box of 60 by 16. */
export function sparkline(samples, highest) {
  if (samples.length < 2) return "";
  const top = Math.max(highest, 1e-9);
  const left = SAMPLES - samples.length;
  const points = samples.map(({ rate }, index) => {
    const x = (left + index) * (60 / (SAMPLES - 1));
    return `${x.toFixed(1)} ${(15 - 14 * Math.min(1, rate / top)).toFixed(1)}`;
  });
  return `M${points.join("L")}`;
}
