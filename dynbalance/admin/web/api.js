// The way to the API.  Knows credentials, errors and the format of events; refuses to know what is asked.

const KEPT = "dynbalance.authorization";
const PATIENCE = 10000;
const SILENCE = 20000;

let authorization = kept();
let signIn = null;

function kept() {
  try { return sessionStorage.getItem(KEPT) ?? ""; } catch { return ""; }
}

/** The API's refusal; status 0 when it did not answer at all. */
export class Refused extends Error {
  constructor(status, message, data) {
    super(message);
    this.status = status;
    this.data = data;
  }
}

export function hasCredentials() {
  return authorization !== "";
}

/** Empty text forgets them. */
export function setCredentials(text) {
  authorization = text;
  try {
    if (text) sessionStorage.setItem(KEPT, text);
    else sessionStorage.removeItem(KEPT);
  } catch { /* they hold until the page is left */ }
}

export function basic(name, password) {
  const bytes = new TextEncoder().encode(`${name}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

/** Who asks a person for credentials: given the API's message, resolves to whether there are some. */
export function onSignIn(ask) {
  signIn = ask;
}

async function send(path, options) {
  for (;;) {
    const used = authorization;
    const headers = { ...options.headers };
    if (used) headers.Authorization = used;
    let answer;
    try {
      answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
    } catch (error) {
      throw new Refused(0, String(error.message ?? error));
    }
    if (answer.status !== 401) return answer;
    const { message } = await envelope(answer);
    // Somebody else may have asked meanwhile.
    if (used === authorization && !(await signIn(message, used !== ""))) throw new Refused(401, message);
  }
}

async function envelope(answer) {
  try {
    return await answer.json();
  } catch {
    throw new Refused(answer.status || 0, `HTTP ${answer.status}`);
  }
}

function query(fields) {
  return new URLSearchParams(fields).toString();
}

/** The whole answer: {code, message, data, status, etag}; 503 comes with what was known last. */
export async function look(path, fields = {}) {
  const url = `upstream/${path}?${query(fields)}`;
  const answer = await send(url, { signal: AbortSignal.timeout(PATIENCE) });
  const told = await envelope(answer);
  if (!answer.ok && !(answer.status === 503 && told.data)) throw new Refused(answer.status, told.message, told.data);
  return { ...told, etag: answer.headers.get("etag") };
}

export async function order(path, fields, revision = null) {
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  if (revision !== null) headers["If-Match"] = `"${revision}"`;
  const answer = await send(`upstream/${path}`, {
    method: "POST", headers, body: query(fields), signal: AbortSignal.timeout(PATIENCE),
  });
  const told = await envelope(answer);
  if (!answer.ok) throw new Refused(answer.status, told.message, told.data);
  return told;
}

/**
 * Hear the events of an upstream until the signal, the end or silence.  EventSource
 * cannot show credentials, so the format (HTML Living Standard, 9.2) is read here.
 */
export async function listen(upstream, last, signal, hear) {
  const silence = new AbortController();
  const stop = AbortSignal.any([signal, silence.signal]);
  const headers = { Accept: "text/event-stream" };
  if (last) headers["Last-Event-ID"] = last;
  const answer = await send(`upstream/events?${query({ upstream })}`, { headers, signal: stop });
  if (!answer.ok) throw new Refused(answer.status, (await envelope(answer)).message);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const timer = setTimeout(() => silence.abort(), SILENCE);
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw new Refused(0, String(error.message ?? error));
    } finally {
      clearTimeout(timer);
    }
    if (part.done) return;
    rest += part.value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const event = read(rest.slice(0, end));
      if (event.data !== undefined) hear(event.name, event.data, event.id);
    }
  }
}

function read(text) {
  const event = { name: "message", id: "", data: undefined };
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event;
}
