// The page: which upstream is shown, when the API is asked, and what the keys do.

import { hasCredentials, listen, look, onSignIn, Refused, setCredentials } from "./api.js";
import { askWho, Dialogs, open } from "./dialogs.js";
import { isOut, Model } from "./model.js";
import { $, make, showTotals, showUpstreams, Table, toast, write } from "./view.js";
import { age, begin, change, clock, language, say, translate } from "./words.js";

const GLANCE = 3000;
const ASK = 5000;
const TICK = 1000;
const PATIENCE = 150;
const FIRST = 500;
const LONGEST = 8000;
const KEYS_KEPT = "dynbalance.keys";

const KEYS = [
  ["/", "keyFind"], ["↑ ↓", "keyRows"], ["a", "keyAdd"], ["w", "keyWhy"], ["h", "keyHistory"], ["[ ]", "keyUpstreams"],
  ["e", "keyEdit"], ["d", "keyDrain"], ["x", "keyDisable"], ["Del", "keyRemove"], ["?", "keyHelp"], ["Esc", "keyEscape"],
];

class Page {
  constructor() {
    this.upstreams = [];
    this.shown = null;
    this.table = new Table(() => this.showSoon());
    this.signedOut = false;
    this.heard = 0;
    this.answers = true;
    this.stop = null;
    this.soon = null;
    this.frame = null;
    this.signing = null;
    this.asking = null;
    onSignIn((message, wrong) => this.signIn(message, wrong));
    this.dialogs = new Dialogs({ model: () => this.shown, refresh: () => this.refresh() });
    this.wire();
  }

  // Who

  signIn(message, wrong) {
    // Whoever gave up is not asked again by every look of the page.
    if (this.signedOut) return Promise.resolve(false);
    this.signing ??= askWho(message, wrong).then((given) => {
      this.signing = null;
      this.signedOut = !given;
      return given;
    });
    return this.signing;
  }

  signOut() {
    setCredentials("");
    location.reload();
  }

  // What is known

  async glance() {
    try {
      const { data } = await look("upstreams");
      this.answers = true;
      this.upstreams = data;
      const name = this.shown?.name;
      if (!data.some((upstream) => upstream.name === name)) this.choose(wished(data));
      const own = data.find((upstream) => upstream.name === this.shown?.name);
      if (own) Object.assign(this.shown, { policy: own.policy, panic: own.panic });
    } catch (error) {
      this.answers = !(error instanceof Refused) || error.status !== 0;
    }
    this.show();
  }

  choose(name) {
    if (!name || name === this.shown?.name) return;
    this.shown = new Model(name);
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    this.table.clear();
    $("search").value = "";
    this.follow();
    this.refresh();
    this.show();
  }

  /** The status of what is shown; one look at a time, and one more if asked meanwhile. */
  async refresh() {
    if (this.asking) {
      this.again = true;
      await this.asking;
      return;
    }
    this.asking = this.askStatus();
    try {
      await this.asking;
    } finally {
      this.asking = null;
    }
    if (this.again) {
      this.again = false;
      await this.refresh();
    }
  }

  async askStatus() {
    const model = this.shown;
    if (!model) return;
    try {
      const told = await look("status", { upstream: model.name });
      model.takeStatus(told, Date.now());
      this.heard = Date.now();
      if (told.code !== 200) {
        const health = await look("health", { upstream: model.name });
        model.takeStale(health.data?.stale_for ?? 0, Date.now());
      }
      this.answers = true;
    } catch (error) {
      if (error instanceof Refused && error.status === 0) this.answers = false;
    }
    this.show();
  }

  /** Listen to the shown upstream while the page is seen. */
  async follow() {
    this.stop?.abort();
    if (document.hidden || !this.shown) return;
    const stop = this.stop = new AbortController();
    const model = this.shown;
    let last = "", pause = FIRST;
    while (!stop.signal.aborted) {
      try {
        await listen(model.name, last, stop.signal, (name, data, id) => {
          pause = FIRST;
          if (id) last = id;
          if (!stop.signal.aborted) this.hear(model, name, data);
        });
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.status === 401 || error.status === 404) break;
      }
      await new Promise((resolve) => { setTimeout(resolve, pause); });
      pause = Math.min(pause * 2, LONGEST);
    }
  }

  hear(model, name, data) {
    this.heard = Date.now();
    this.answers = true;
    if (name === "figures") model.takeFigures(data);
    else if (name === "store") model.takeStore(data.store, Date.now());
    if (name === "state" ? model.takeState(data) : name !== "figures") this.refreshSoon();
    this.showSoon();
  }

  /** Many changes in a row need one look. */
  refreshSoon() {
    this.soon ??= setTimeout(() => {
      this.soon = null;
      this.refresh();
      if ($("history").open && !$("rollback").open) this.dialogs.showHistory();
    }, PATIENCE);
  }

  // What is shown

  /** Many events in a row need one picture. */
  showSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.show();
    });
  }

  get locked() {
    return this.shown?.store !== "ok" || !this.answers;
  }

  show() {
    const model = this.shown;
    $("main").hidden = !model?.known;
    $("sign-out").hidden = !hasCredentials();
    this.showPulse();
    this.showBanner();
    showUpstreams(this.upstreams, model?.name);
    if (!model) return;
    showTotals(model);
    this.table.show(model, Date.now(), $("search").value, this.locked);
    for (const id of ["add-open", "empty-add", "reset-open"]) $(id).disabled = this.locked;
    document.title = `${model.usable().length}/${model.order.length} ${model.name} · dynbalance`;
  }

  showPulse() {
    const fresh = Date.now() - this.heard < 4000;
    const word = this.signedOut ? "paused" : !this.answers ? "lost" : fresh ? "live" : "connecting";
    $("pulse").dataset.pulse = word;
    write($("pulse-text"), say(word));
  }

  showBanner() {
    const model = this.shown;
    let text = "", time = "", tone = "bad";
    if (this.signedOut) {
      text = say("needSignIn");
      tone = "warn";
    } else if (!this.answers) {
      text = say("nodeAway");
      time = this.heard ? clock(this.heard) : "";
    } else if (model?.store === "away") {
      const since = model.staleSince ?? Date.now();
      text = say("storeAway");
      time = age((Date.now() - since) / 1000);
      tone = "warn";
    } else if (model?.panic) {
      text = say("panic");
    }
    $("banner").hidden = !text;
    $("banner").dataset.tone = tone;
    $("sign-in").hidden = !this.signedOut;
    write($("banner-text"), text);
    write($("banner-time"), time);
  }

  // What people do

  wire() {
    $("language").addEventListener("click", () => {
      change();
      this.speak();
    });
    $("search").addEventListener("input", () => this.show());
    $("sign-in").addEventListener("click", () => {
      this.signedOut = false;
      this.glance().then(() => this.follow());
      this.refresh();
    });
    $("sign-out").addEventListener("click", () => this.signOut());
    $("help-open").addEventListener("click", () => open($("help")));
    $("keys-on").checked = keysOn();
    $("keys-on").addEventListener("change", (event) => keepKeys(event.target.checked));
    $("upstreams").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.choose(button.dataset.upstream);
    });
    $("servers").addEventListener("click", (event) => {
      const button = event.target.closest("button[data-act]");
      if (button) this.act(button.dataset.does, button.closest("tr").dataset.addr);
    });
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => {
      this.follow();
      if (!document.hidden) this.refresh();
    });
    addEventListener("hashchange", () => this.choose(wished(this.upstreams)));
  }

  act(does, addr) {
    const server = this.shown.servers.get(addr);
    if (!server || server.source === "file") return;
    if (does === "enable" || does === "disable") this.dialogs.toggle(server, does);
    else this.dialogs[does](server);
  }

  key(event) {
    const typing = event.target.closest?.("input, textarea, select");
    if (event.key === "Escape" && event.target === $("search")) {
      event.target.value = "";
      event.target.blur();
      this.show();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || !this.shown) return;
    const inTable = $("servers").contains(event.target);
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (inTable || !typing)) {
      if (inTable || document.activeElement === document.body) {
        event.preventDefault();
        this.table.step(event.key === "ArrowDown" ? 1 : -1);
      }
      return;
    }
    if (typing || !keysOn()) return;
    const act = this.keys()[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  keys() {
    const { dialogs, table, shown } = this;
    const keys = { "/": () => $("search").focus(), "?": () => open($("help")), w: () => dialogs.explain(), h: () => dialogs.history() };
    keys["["] = () => this.neighbour(-1);
    keys["]"] = () => this.neighbour(1);
    if (this.locked) return keys;
    keys.a = () => dialogs.add();
    const server = table.body.contains(document.activeElement) ? shown.servers.get(table.at) : null;
    if (server) {
      keys.e = () => this.act("edit", server.addr);
      keys.d = () => this.act(isOut(server) ? "enable" : "drain", server.addr);
      keys.x = () => this.act(server.state === "disabled" ? "enable" : "disable", server.addr);
      keys.Delete = () => this.act("remove", server.addr);
    }
    return keys;
  }

  neighbour(by) {
    const names = this.upstreams.map((upstream) => upstream.name);
    const next = names[names.indexOf(this.shown.name) + by];
    if (next) this.choose(next);
  }

  speak() {
    translate(document.body);
    const other = language() === "en" ? ["中文", "zh"] : ["English", "en"];
    write($("language"), other[0]);
    $("language").lang = other[1];
    $("keys").replaceChildren(...KEYS.flatMap(([keys, word]) => [
      make("dt", "", ...keys.split(" ").map((key) => make("kbd", "", key))), make("dd", "", say(word))]));
    write($("empty-code"), `curl -X POST ${location.origin}/upstream/add -d host=10.0.0.5 -d port=8080`);
    this.show();
  }

  start() {
    this.speak();
    this.glance();
    setInterval(() => { if (!document.hidden && !this.signedOut) this.glance(); }, GLANCE);
    setInterval(() => { if (!document.hidden && !this.signedOut) this.refresh(); }, ASK);
    setInterval(() => { if (!document.hidden) this.show(); }, TICK);
    addEventListener("unhandledrejection", (event) => toast(say("failed", { message: String(event.reason?.message ?? event.reason) }), true));
  }
}

function wished(upstreams) {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* no name of ours */ }
  return (upstreams.find((upstream) => upstream.name === name) ?? upstreams[0])?.name;
}

function keysOn() {
  try { return localStorage.getItem(KEYS_KEPT) !== "off"; } catch { return true; }
}

function keepKeys(on) {
  try { localStorage.setItem(KEYS_KEPT, on ? "on" : "off"); } catch { /* they stay on */ }
}

begin();
new Page().start();
