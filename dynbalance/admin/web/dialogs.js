// What is asked of a person before something is done.  Each dialog is a form: it is sent
// once at a time, says what was refused where it was asked, and gives the focus back.

import { basic, look, order, Refused, setCredentials } from "./api.js";
import { $, make, toast, write } from "./view.js";
import { actionWord, count, moment, reason, say, share, stateWord } from "./words.js";

/** Open a dialog; whoever closes it gets back to where they were. */
export function open(dialog, first = null) {
  write(dialog.querySelector(".wrong") ?? make("p"), "");
  if (!dialog.open) dialog.showModal();
  first?.focus();
  first?.select?.();
}

function refused(dialog, error) {
  const message = error instanceof Refused ? error.message : String(error);
  if (dialog.open) write(dialog.querySelector(".wrong"), say("failed", { message }));
  else toast(say("failed", { message }), true);
}

/** Do something once, while its dialog waits. */
async function attempt(dialog, act) {
  const buttons = [...dialog.querySelectorAll("footer .main, footer .danger")];
  if (dialog.dataset.busy) return;
  dialog.dataset.busy = "yes";
  buttons.forEach((button) => { button.disabled = true; });
  write(dialog.querySelector(".wrong"), "");
  try {
    await act();
  } catch (error) {
    refused(dialog, error);
  } finally {
    delete dialog.dataset.busy;
    buttons.forEach((button) => { button.disabled = false; });
  }
}

function onSend(dialog, act) {
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(dialog, () => act(new FormData(event.target), event.target));
  });
}

const YES = (box) => (box ? "true" : "false");

/**
 * @param page what the dialogs need of the page: model(), refresh(), and words().
 */
export class Dialogs {
  constructor(page) {
    this.page = page;
    this.server = null;
    for (const button of document.querySelectorAll("dialog [data-close]")) {
      button.addEventListener("click", () => button.closest("dialog").close());
    }
    for (const dialog of document.querySelectorAll("dialog")) {
      // A click beside it, as Escape.
      dialog.addEventListener("mousedown", (event) => {
        if (event.target === dialog && dialog.id !== "login") dialog.close();
      });
    }
    onSend($("add"), (data) => this.sendAdd(data));
    onSend($("edit"), (data) => this.sendEdit(data));
    onSend($("drain"), (data) => this.sendDrain(data));
    onSend($("remove"), (data) => this.sendRemove(data));
    onSend($("reset"), () => this.sendReset());
    onSend($("explain"), (data) => this.sendExplain(data));
    onSend($("rollback"), () => this.sendRollback());
    $("edit").querySelector("[name=weight]").addEventListener("input", () => this.showShare());
    $("undo-last").addEventListener("click", () => {
      this.goBack(this.lines.find(isOrder).revision - 1, $("history"));
    });
    $("lines").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.goBack(Number(button.dataset.revision), $("history"));
    });
    $("reset-open").addEventListener("click", () => open($("reset")));
    $("explain-open").addEventListener("click", () => this.explain());
    $("history-open").addEventListener("click", () => this.history());
    $("add-open").addEventListener("click", () => this.add());
    $("empty-add").addEventListener("click", () => this.add());
  }

  get model() {
    return this.page.model();
  }

  fields(server = this.server) {
    return { upstream: this.model.name, host: server.host, port: server.port };
  }

  async done(dialog, text, offer = null) {
    dialog.close();
    toast(text, false, offer);
    await this.page.refresh();
  }

  // One server

  add() {
    const form = $("add").querySelector("form");
    form.reset();
    open($("add"), form.elements.host);
  }

  async sendAdd(data) {
    const fields = { upstream: this.model.name };
    for (const name of ["host", "port", "weight", "max_conns"]) fields[name] = data.get(name).trim();
    fields.heartbeat = YES(data.get("heartbeat"));
    fields.backup = YES(data.get("backup"));
    const told = await order("add", fields);
    await this.done($("add"), say("didAdd", { server: told.data.addr }));
  }

  edit(server) {
    this.server = server;
    write($("edit-title"), say("editTitle", { server: server.addr }));
    const { elements } = $("edit").querySelector("form");
    elements.weight.value = server.weight;
    elements.max_conns.value = server.max_conns;
    elements.backup.checked = Boolean(server.backup);
    this.showShare();
    open($("edit"), elements.weight);
  }

  showShare() {
    const weight = Number($("edit").querySelector("[name=weight]").value);
    write($("edit-share"), say("share", { n: share(this.model.weightShare(this.server.addr, weight)) }));
  }

  async sendEdit(data) {
    const { server } = this;
    const fields = this.fields();
    for (const name of ["weight", "max_conns"]) {
      if (Number(data.get(name)) !== server[name]) fields[name] = data.get(name);
    }
    if (Boolean(data.get("backup")) !== Boolean(server.backup)) fields.backup = YES(data.get("backup"));
    if (Object.keys(fields).length === 3) {
      $("edit").close();
      return;
    }
    await order("update", fields);
    await this.done($("edit"), say("didUpdate", { server: server.addr }));
  }

  /** Enable or disable at once: each undoes the other. */
  async toggle(server, action) {
    const key = action === "enable" ? "didEnable" : "didDisable";
    const back = action === "enable" ? "disable" : "enable";
    try {
      await order("toggle", { ...this.fields(server), action });
      const offer = action === "disable" ? { text: say("undo"), act: () => this.toggle(server, back) } : null;
      toast(say(key, { server: server.addr }), false, offer);
      await this.page.refresh();
    } catch (error) {
      toast(say("failed", { message: error.message }), true);
    }
  }

  drain(server) {
    this.server = server;
    write($("drain-title"), say("drainTitle", { server: server.addr }));
    open($("drain"), $("drain").querySelector("[name=deadline]"));
  }

  async sendDrain(data) {
    const fields = { ...this.fields(), action: "drain", deadline: data.get("deadline"), then: data.get("then") };
    await order("toggle", fields);
    await this.done($("drain"), say("didDrain", { server: this.server.addr }));
  }

  remove(server) {
    this.server = server;
    const left = this.model.usable(server.addr);
    const conns = left.reduce((sum, other) => sum + other.connections, 0);
    write($("remove-title"), say("removeTitle", { server: server.addr }));
    const text = left.length
      ? say("leftSome", { n: left.length, all: this.model.order.length - 1, conns: count(conns) })
      : say("leftNone");
    write($("remove-left"), `${say("held", { n: count(server.connections) })} ${text}`);
    $("remove-left").className = left.length ? "" : "bad";
    const shown = left.slice(0, 6).map((other) => make("li", "", other.addr,
      make("small", "", `${say("weight")} ${count(other.weight)} · ${say("connections")} ${count(other.connections)}`)));
    if (left.length > 6) shown.push(make("li", "", say("leftAlso", { n: left.length - 6 })));
    $("remove-list").replaceChildren(...shown);
    $("remove").querySelector("form").reset();
    open($("remove"));
  }

  async sendRemove(data) {
    const { server } = this;
    const seconds = Number(data.get("drain"));
    const fields = this.fields();
    if (seconds > 0) fields.drain = seconds;
    await order("remove", fields);
    await this.done($("remove"), say(seconds > 0 ? "didDrain" : "didRemove", { server: server.addr }));
  }

  async sendReset() {
    await order("reset", { upstream: this.model.name });
    await this.done($("reset"), say("didReset"));
  }

  // Why

  explain() {
    $("explained").replaceChildren();
    open($("explain"), $("explain").querySelector("[name=uri]"));
  }

  async sendExplain(data) {
    const fields = [["upstream", this.model.name], ["uri", data.get("uri").trim()]];
    if (data.get("client").trim()) fields.push(["client", data.get("client").trim()]);
    for (const line of data.get("header").split("\n")) {
      if (line.trim()) fields.push(["header", line.trim()]);
    }
    const told = await look("explain", fields);
    const heads = ["server", "state", "weight", "connections", "score", "chance"].map((key, index) => {
      const head = make("th", index > 1 ? "n" : "", say(key));
      head.scope = "col";
      return head;
    });
    const rows = told.data.servers.map((server) => this.outlook(server, told.data.chosen));
    const table = make("table", "plain", make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...rows));
    $("explained").replaceChildren(make("p", "verdict", told.message), make("div", "scroll", table));
  }

  outlook(server, chosen) {
    const state = make("td", "", stateWord(server.state));
    if (server.why) state.append(make("small", "", reason(server.why)));
    const name = make("th", "", server.addr);
    name.scope = "row";
    if (server.addr === chosen) name.append(make("small", "good", say("chosen")));
    const chance = server.chance === undefined ? "–" : share(server.chance);
    const score = server.score === undefined ? "–" : Number(server.score.toPrecision(4)).toString();
    const numbers = [count(server.weight), count(server.connections), score, chance];
    const row = make("tr", server.addr === chosen ? "chosen" : "", name, state,
      ...numbers.map((text) => make("td", "n", text)));
    return row;
  }

  // What was

  async history() {
    open($("history"));
    await this.showHistory();
  }

  async showHistory() {
    try {
      this.lines = (await look("history", { upstream: this.model.name, limit: 100 })).data;
    } catch (error) {
      this.lines = [];
      refused($("history"), error);
    }
    $("undo-last").disabled = !this.lines.some(isOrder);
    const items = this.lines.map((line, index) => this.line(line, index));
    if (!items.length) items.push(make("li", "soft", say("historyEmpty")));
    $("lines").replaceChildren(...items);
  }

  line(line, index) {
    const what = make("p", "", make("strong", "", actionWord(line.action)), ` ${line.address}`);
    const change = difference(line);
    if (change) what.append(make("small", "", change));
    const when = make("p", "soft", `${moment(line.time)} · ${line.by}`);
    const item = make("li", "", make("div", "", what, when));
    if (index === 0) {
      item.append(make("span", "soft", say("now")));
    } else if (line.revision !== this.lines[index - 1].revision) {
      const button = make("button", "quiet", say("goBackTo"));
      button.type = "button";
      button.dataset.revision = line.revision;
      button.setAttribute("aria-label", say("goBackToFull", { n: line.revision }));
      item.append(button);
    }
    return item;
  }

  /** Say what would change, for one revision: what was shown is what is done. */
  async goBack(revision, from) {
    await attempt(from, async () => {
      const fields = { upstream: this.model.name, revision, dry_run: 1 };
      const { data } = await order("rollback", fields);
      this.rollback = { revision, at: data.revision };
      write($("rollback-title"), say("rollbackTitle", { n: revision }));
      const items = [["added", "wouldAdd"], ["removed", "wouldRemove"], ["changed", "wouldChange"]]
        .flatMap(([kind, key]) => data[kind].map((server) => make("li", "", say(key, { server }))));
      if (!items.length) items.push(make("li", "", say("rollbackNothing")));
      $("rollback-list").replaceChildren(...items);
      open($("rollback"));
    });
  }

  async sendRollback() {
    const { revision, at } = this.rollback;
    await order("rollback", { upstream: this.model.name, revision }, at);
    await this.done($("rollback"), say("didRollback", { n: revision }));
    if ($("history").open) await this.showHistory();
  }
}

const TOLD = ["weight", "max_conns", "backup", "heartbeat", "slow_start", "max_fails", "fail_timeout", "action"];

/** Whether a line is of something ordered, which can be undone, and not of something observed. */
function isOrder({ before, after }) {
  return !before || !after || TOLD.some((name) => before[name] !== after[name]);
}

function difference({ action, before, after, cause }) {
  const parts = [];
  if (before && after) {
    for (const name of TOLD) {
      const isSaid = name === "action" && after[name] === action;
      if (before[name] !== after[name] && !isSaid) parts.push(`${name} ${before[name]} → ${after[name]}`);
    }
  }
  if (cause) parts.push(cause);
  return parts.join(", ");
}

/** Ask who it is; resolves to whether there are credentials to try. */
export function askWho(message, wrong) {
  const dialog = $("login"), form = dialog.querySelector("form");
  return new Promise((resolve) => {
    const sent = (event) => {
      event.preventDefault();
      const { token, name, password } = Object.fromEntries(new FormData(form));
      if (!token.trim() && !name) {
        write(dialog.querySelector(".wrong"), say("needCredentials"));
        return;
      }
      setCredentials(token.trim() ? `Bearer ${token.trim()}` : basic(name, password));
      dialog.close("sent");
    };
    const closed = () => {
      form.removeEventListener("submit", sent);
      dialog.removeEventListener("close", closed);
      form.reset();
      resolve(dialog.returnValue === "sent");
    };
    dialog.returnValue = "";
    form.addEventListener("submit", sent);
    dialog.addEventListener("close", closed);
    open(dialog, form.elements.token);
    if (wrong) write(dialog.querySelector(".wrong"), message);
  });
}
