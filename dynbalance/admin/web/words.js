// What the page says, in English and Chinese.  Knows words; refuses to know where they stand.

const KEPT = "dynbalance.language";

const WORDS = {
  skip: ["Skip to the servers", "跳到服务器列表"],
  connecting: ["connecting", "正在连接"],
  live: ["live", "实时"],
  paused: ["paused", "已暂停"],
  lost: ["no answer", "无响应"],
  signIn: ["Sign in", "登录"],
  signOut: ["Sign out", "退出登录"],
  shortcuts: ["Keyboard shortcuts", "键盘快捷键"],
  upstreams: ["Upstreams", "上游"],
  usable: ["Usable", "可用"],
  connections: ["Connections", "连接数"],
  rate: ["Per second", "每秒"],
  rateFull: ["requests or connections a second", "每秒请求或连接数"],
  errors: ["Errors", "错误率"],
  waiting: ["Waiting", "排队"],
  search: ["Find a server or state", "查找服务器或状态"],
  found: ["{n} of {all}", "{n} / {all}"],
  reset: ["Recount", "重新计数"],
  explain: ["Why there?", "选择说明"],
  history: ["History", "历史"],
  add: ["Add server", "添加服务器"],
  servers: ["Servers", "服务器"],
  server: ["Server", "服务器"],
  state: ["State", "状态"],
  weight: ["Weight", "权重"],
  heartbeat: ["Heartbeat", "心跳"],
  actions: ["Actions", "操作"],
  emptyTitle: ["No servers yet", "还没有服务器"],
  emptyText: [
    "A backend registers itself with one call, and keeps itself alive with heartbeats:",
    "后端只需一次调用即可注册，之后用心跳保持在线："],
  nothingFound: ["No server matches.", "没有匹配的服务器。"],
  footnote: [
    "Figures are this node's, over the last minute; connections are counted over all nodes.",
    "流量数据为本节点最近一分钟；连接数为所有节点之和。"],
  revision: ["Revision {n}.", "版本 {n}。"],
  host: ["Host", "主机"],
  port: ["Port", "端口"],
  maxConns: ["Connections at most (0: no limit)", "最大连接数（0 为不限）"],
  needsBeats: ["It sends heartbeats, and goes out when they stop", "发送心跳，心跳停止即下线"],
  isBackup: ["Backup: serves only when no other can", "备用：仅当其他服务器都不可用时启用"],
  cancel: ["Cancel", "取消"],
  close: ["Close", "关闭"],
  save: ["Save", "保存"],
  drain: ["Drain", "排空"],
  drainText: ["It gets no new work; what runs finishes.", "不再分配新任务，正在处理的会完成。"],
  deadline: ["Seconds at most (0: as long as it takes)", "最长秒数（0 为不限时）"],
  then: ["Then", "之后"],
  thenDisable: ["disable it", "停用"],
  thenRemove: ["remove it", "移除"],
  drainFirst: ["Seconds to finish its work first (0: at once)", "先排空的秒数（0 为立即）"],
  remove: ["Remove", "移除"],
  resetTitle: ["Count the connections anew?", "重新统计连接数？"],
  resetText: [
    "What is published becomes what the nodes really hold. No live connection is forgotten.",
    "公布的数值将改为各节点实际持有的连接数，不会丢失任何活动连接。"],
  explainTitle: ["Where would a request go, and why?", "请求会去哪里？为什么？"],
  uri: ["Path and query", "路径与查询"],
  client: ["Client's address", "客户端地址"],
  yours: ["yours", "您的地址"],
  headers: ["Header fields, one a line", "请求头，每行一个"],
  ask: ["Ask", "查询"],
  undoLast: ["Undo the last change", "撤销上一次更改"],
  rollbackText: ["Orders become what they were, as a change of its own:", "配置恢复为当时的样子，并记为一次新的更改："],
  rollback: ["Go back", "回退"],
  loginText: [
    "With a token, or with a name and a password. They are kept until this tab is closed.",
    "使用令牌，或用户名和密码。仅保留到此标签页关闭。"],
  token: ["Token", "令牌"],
  or: ["or", "或"],
  user: ["Name", "用户名"],
  password: ["Password", "密码"],
  needCredentials: ["Give a token, or a name and a password.", "请输入令牌，或用户名和密码。"],
  keysOn: ["Shortcuts of one key", "启用单键快捷键"],
  edit: ["Edit", "编辑"],
  enable: ["Enable", "启用"],
  disable: ["Disable", "停用"],
  actOn: ["{act} {server}", "{act} {server}"],
  fromFile: ["from the file", "来自配置文件"],
  backup: ["backup", "备用"],
  slow: ["starting, {n} of its weight", "慢启动，权重的 {n}"],
  of: ["{n} of {max}", "{n} / {max}"],
  tab: ["{n} of {max} up, {conns} conn.", "{n}/{max} 可用，{conns} 连接"],
  usableOf: ["{n} of {max}", "{n} / {max}"],
  barLabel: ["connections against the limit", "连接数与上限"],
  beatNone: ["not needed", "不需要"],
  beatNever: ["never", "从未"],
  drainLeft: ["{n} left", "剩余 {n}"],
  drainLeftTime: ["{n} left, {time}", "剩余 {n}，{time}"],
  drainThenDisable: ["then disabled", "排空后停用"],
  drainThenRemove: ["then removed", "排空后移除"],
  drainProgress: ["progress of draining", "排空进度"],
  policyIs: ["policy {policy}", "策略 {policy}"],
  editTitle: ["Edit {server}", "编辑 {server}"],
  share: ["{n} of the weight of all usable servers", "占所有可用服务器权重的 {n}"],
  drainTitle: ["Drain {server}?", "排空 {server}？"],
  removeTitle: ["Remove {server}?", "移除 {server}？"],
  leftSome: ["{n} usable would be left of {all}, which carry {conns} connections now:", "将剩余 {n} 台可用（共 {all} 台），目前承载 {conns} 个连接："],
  leftNone: ["No usable server would be left: clients would get 502.", "将没有可用的服务器：客户端会收到 502。"],
  leftAlso: ["and {n} more", "以及另外 {n} 台"],
  held: ["Connections now: {n}.", "目前连接数：{n}。"],
  storeAway: [
    "The store is away. Traffic goes on with the servers known last; changes have to wait.",
    "存储已断开。流量继续使用最后已知的服务器；更改需等待恢复。"],
  nodeAway: [
    "This node does not answer. What is shown may be old.",
    "本节点无响应。显示的可能是旧数据。"],
  needSignIn: ["This node asks who you are.", "此节点需要登录。"],
  panic: ["No server is good: those that were good last are used.", "没有健康的服务器：正在使用最后健康的服务器。"],
  failed: ["Not done: {message}", "未完成：{message}"],
  didAdd: ["{server} was added.", "已添加 {server}。"],
  didUpdate: ["{server} was changed.", "已修改 {server}。"],
  didEnable: ["{server} was enabled.", "已启用 {server}。"],
  didDisable: ["{server} was disabled.", "已停用 {server}。"],
  didDrain: ["{server} drains.", "{server} 正在排空。"],
  didRemove: ["{server} was removed.", "已移除 {server}。"],
  didReset: ["The connections were counted anew.", "已重新统计连接数。"],
  didRollback: ["Back at revision {n}.", "已回退到版本 {n}。"],
  undo: ["Undo", "撤销"],
  historyEmpty: ["Nothing was changed yet.", "还没有任何更改。"],
  goBackTo: ["Go back to here", "回退到此处"],
  goBackToFull: ["Go back to revision {n}", "回退到版本 {n}"],
  rollbackTitle: ["Go back to revision {n}?", "回退到版本 {n}？"],
  rollbackNothing: ["Nothing would change.", "不会有任何变化。"],
  wouldAdd: ["{server} comes back", "{server} 恢复"],
  wouldRemove: ["{server} goes", "{server} 移除"],
  wouldChange: ["{server} changes", "{server} 更改"],
  chosen: ["chosen", "选中"],
  score: ["Score", "得分"],
  chance: ["Chance", "概率"],
  now: ["now", "现在"],
  keyAdd: ["add a server", "添加服务器"],
  keyFind: ["find a server", "查找服务器"],
  keyHistory: ["history", "历史"],
  keyWhy: ["why there?", "选择说明"],
  keyRows: ["next and previous server", "下一台 / 上一台服务器"],
  keyUpstreams: ["previous and next upstream", "上一个 / 下一个上游"],
  keyEdit: ["edit the server", "编辑该服务器"],
  keyDrain: ["drain the server, or enable it", "排空或启用该服务器"],
  keyDisable: ["disable the server, or enable it", "停用或启用该服务器"],
  keyRemove: ["remove the server", "移除该服务器"],
  keyHelp: ["this list", "本列表"],
  keyEscape: ["close", "关闭"],
};

const STATES = {
  up: "正常", full: "已满", failed: "失败", unhealthy: "不健康", expired: "心跳超时",
  draining: "排空中", disabled: "已停用", down: "已关闭", removed: "已移除", unknown: "未知",
};

const REASONS = {
  "it was removed": "已被移除",
  "the configuration file says down": "配置文件标记为 down",
  "an operator disabled it": "管理员停用",
  "an operator drains it": "管理员正在排空",
  "its heartbeats stopped": "心跳已停止",
  "its health check fails": "健康检查失败",
  "it failed max_fails times and fail_timeout has not passed": "失败已达 max_fails，fail_timeout 未过",
  "it holds max_conns connections": "已达最大连接数",
  "another one has a better score": "其他服务器得分更优",
  "the request belongs to another one": "该请求归属其他服务器",
  "this node cannot use it": "本节点无法使用",
};

// What fits into a cell; the whole of it is what the pointer is told.
const BRIEF = {
  "it was removed": ["", ""],
  "the configuration file says down": ["by the file", "由配置文件"],
  "an operator disabled it": ["by an operator", "由管理员"],
  "its heartbeats stopped": ["no heartbeats", "无心跳"],
  "its health check fails": ["check fails", "检查失败"],
  "it failed max_fails times and fail_timeout has not passed": ["max_fails reached", "已达 max_fails"],
  "it holds max_conns connections": ["max_conns reached", "已达 max_conns"],
};

const ACTIONS = {
  add: "添加", update: "修改", remove: "移除", enable: "启用", disable: "停用", drain: "排空",
  rollback: "回退", import: "导入", expire: "心跳超时", recover: "恢复", drained: "排空完成",
};

let column = 0;

export function language() {
  return column ? "zh" : "en";
}

/** The kept choice, else what the browser prefers. */
export function begin() {
  let wanted = null;
  try { wanted = localStorage.getItem(KEPT); } catch { /* storage may be forbidden */ }
  wanted ??= (navigator.languages?.[0] ?? navigator.language ?? "en");
  column = wanted.toLowerCase().startsWith("zh") ? 1 : 0;
}

export function change() {
  column = 1 - column;
  try { localStorage.setItem(KEPT, language()); } catch { /* it holds until the page is left */ }
}

/** A text with its places filled: say("found", {n: 3, all: 40}). */
export function say(key, values = {}) {
  return WORDS[key][column].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function stateWord(state) {
  return column ? STATES[state] ?? state : state;
}

/** Why a server gets nothing; what a check has found comes behind a colon. */
export function reason(why) {
  if (!why || !column) return why ?? "";
  for (const [english, chinese] of Object.entries(REASONS)) {
    if (why.startsWith(english)) return chinese + why.slice(english.length).replace(/^: /, "：");
  }
  return why;
}

/** The same in few words, with what is behind it. */
export function brief(why) {
  for (const [whole, few] of Object.entries(BRIEF)) {
    if (why?.startsWith(whole)) return few[column] + why.slice(whole.length);
  }
  return reason(why);
}

export function actionWord(action) {
  return column ? ACTIONS[action] ?? action : action;
}

/** Put the words into everything below a node that asks for them. */
export function translate(root) {
  document.documentElement.lang = column ? "zh-CN" : "en";
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = say(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", say(node.dataset.tLabel));
    node.title = say(node.dataset.tLabel);
  }
  for (const node of root.querySelectorAll("[data-t-hint]")) node.placeholder = say(node.dataset.tHint);
}

// Numbers.  Each has few digits, so that columns stay narrow and still.

export function count(number) {
  return new Intl.NumberFormat(document.documentElement.lang).format(number);
}

export function rate(number) {
  if (number === 0) return "0";
  if (number < 0.05) return "<0.1";
  return number < 9.95 ? number.toFixed(1) : count(Math.round(number));
}

export function share(part) {
  if (part === null) return "–";
  if (part === 0) return "0%";
  if (part < 0.001) return "<0.1%";
  return part < 0.0995 ? `${(part * 100).toFixed(1)}%` : `${Math.round(part * 100)}%`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.00995) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  return `${seconds.toFixed(1)} s`;
}

export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  return `${Math.floor(whole / 3600)} h`;
}

export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString(document.documentElement.lang, { hour12: false });
}

export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const today = at.toDateString() === new Date().toDateString();
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  if (!today) Object.assign(options, { month: "short", day: "numeric" });
  return at.toLocaleString(document.documentElement.lang, options);
}
