// The page: what is typed, shown and sent. Cryptography is in the worker, HTTP in `server.js`.

import { Server, originOf } from "./server.js";

const at = (id) => document.getElementById(id);
const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);

/** The worker that holds the secret. */
class Vault {
  #worker = new Worker("worker.js", { type: "module" });
  #waiting = new Map();
  #next = 0;

  constructor(broken) {
    const fail = (message) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(message));
      this.#waiting.clear();
      this.close();
      broken();
    };
    this.#worker.onmessage = ({ data: { id, results, seconds, error, broken: gone } }) => {
      const call = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) return call?.resolve({ results, seconds });
      call?.reject(new Error(error));
      if (gone) fail(error);
    };
    this.#worker.onerror = (event) => fail(`the worker failed: ${event.message ?? "worker.js did not load"}`);
  }

  /** Runs a command; the inputs go over and are no longer here. */
  call(command, ...inputs) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, command, inputs }, inputs.map((bytes) => bytes.buffer));
    });
  }

  /** Ends the worker; its memory goes with it. */
  close() {
    this.#worker.terminate();
  }
}

/** What is open: worker, server, facts of the plan, name of the key. */
let open;
/** The text that the answer continues, while nothing else was typed. */
let continued;
/** The job that is running. */
let running;

function show(id, shown) {
  at(id).hidden = !shown;
}

function fault(error) {
  at("fault").textContent = error ? String(error.message ?? error) : "";
  show("fault", Boolean(error));
  if (error) at("fault").scrollIntoView({ block: "nearest" });
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function pairs(list, rows) {
  list.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

const short = (path) => path.replace(/[0-9a-f]{32,64}/g, (name) => `${name.slice(0, 8)}…`);

function sent({ method, path, up, down }) {
  const row = element("tr", "");
  const cells = [element("td", `${method} ${short(path)}`), ...[up, down].map((n) => element("td", size(n), "number"))];
  row.append(...cells);
  at("requests").tBodies[0].prepend(row);
}

function controls() {
  const [ready, busy] = [Boolean(open), Boolean(running)];
  for (const id of ["prompt", "next", "go-on", "count"]) at(id).disabled = !ready || busy;
  show("stop", busy);
  show("open-form", !ready);
  show("opened", ready);
  show("more", !ready || open.facts.continues);
  show("insecure", ready && open.facts.insecure);
  at("next").textContent = !ready || open.facts.continues ? "Next token" : "Ask";
  at("forget").disabled = busy;
}

async function connect() {
  const origin = originOf(at("server").value.trim());
  const [file] = at("secret").files;
  const server = new Server(origin, at("token").value.trim(), sent);
  const status = (text) => {
    at("opening").textContent = text;
  };
  const vault = new Vault(forget);
  try {
    status("Fetching the plan …");
    const { results: [facts] } = await vault.call("offer", await server.plan());
    const known = JSON.parse(decode(facts));
    status("Fetching tokenizer and embedding …");
    const [tokenizer, embedding] = await Promise.all([server.blob(known.tokenizer), server.blob(known.embedding)]);
    status("Preparing the parameters …");
    const secret = new Uint8Array(await file.arrayBuffer());
    const { results: [key], seconds } = await vault.call("open", secret, tokenizer, embedding);
    open = { vault, server, facts: known, key: decode(key) };
    pairs(at("facts"), [
      ["server", origin],
      ["model", known.model],
      ["parameters", `${known.profile}, N = 2^${known.log_degree}${known.insecure ? ", no security" : ", 128-bit security"}`],
      ["longest text", `${known.tokens} tokens`],
      ["a prompt", size(known.prompt_bytes)],
      ["a run", `about ${known.seconds.toFixed(known.seconds < 10 ? 1 : 0)} s on the server`],
      ["prepared in", `${seconds.toFixed(2)} s`],
    ]);
    at("prompt").disabled = false;
    at("prompt").focus();
  } catch (error) {
    vault.close();
    throw error;
  } finally {
    status("");
  }
}

function forget() {
  open?.vault.close();
  open = continued = undefined;
  running?.stop.abort();
  at("prompt").value = "";
  for (const id of ["before", "added"]) at(id).textContent = "";
  at("top").tBodies[0].replaceChildren();
  show("answer", false);
  controls();
}

function heard(event) {
  const stage = (text) => {
    at("stage").textContent = text;
  };
  if (event.event === "queued") {
    stage(`Queued behind ${event.position}, starts in about ${Math.round(event.starts_in)} s`);
  } else if (event.event === "loading") {
    stage("The server loads the keys");
    at("progress").value = event.of ? event.keys / event.of : 0;
  } else if (event.event === "step") {
    const { step, steps, name, level, refresh, elapsed, left } = event;
    stage(`Step ${step} of ${steps}, about ${Math.ceil(left)} s left`);
    at("progress").value = steps ? step / steps : 0;
    at("step").textContent = `${name}, level ${level}${refresh ? ", then a bootstrap" : ""}`;
    const line = element("li", "");
    line.append(element("span", name), element("span", `level ${level}, ${elapsed.toFixed(1)} s`));
    at("steps").prepend(line);
  }
}

function shown(answer) {
  show("answer", true);
  const { continues } = open.facts;
  at("before").textContent = continues ? continued : "";
  at("added").textContent = answer.text;
  show("end", continues && answer.end);
  const rows = answer.top.map(({ token, text, logit }) => {
    const row = element("tr", "");
    row.append(element("td", String(token)), element("td", text, "reads"), element("td", logit.toFixed(3), "number"));
    return row;
  });
  at("top").tBodies[0].replaceChildren(...rows);
}

/** One run: encrypt, submit, watch, fetch, decrypt. */
async function once(text) {
  const { vault, server, facts, key } = open;
  const { signal } = running.stop;
  at("stage").textContent = "Encrypting";
  at("step").textContent = "";
  at("steps").replaceChildren();
  at("progress").value = 0;
  const sealed = text === undefined ? vault.call("go_on") : vault.call("begin", encode(text));
  const { results: [name, prompt], seconds: encrypting } = await sealed;
  const job = decode(name);
  const start = performance.now();
  running.job = job;
  const waiting = (reason) => {
    at("stage").textContent = reason;
  };
  await server.submit(job, key, facts.plan, prompt, waiting, signal);
  const { bytes, blake3 } = await server.follow(job, heard, signal);
  const bytesBound = Math.min(bytes, facts.answer_bytes);
  const result = await server.result(job, bytesBound, signal);
  running.job = undefined;
  const seconds = (performance.now() - start) / 1000;
  const down = result.length;
  at("stage").textContent = "Decrypting";
  const { results: [read], seconds: decrypting } = await vault.call("read", result, encode(blake3));
  const answer = JSON.parse(decode(read));
  shown(answer);
  pairs(at("spent"), [
    ["encrypt", `${encrypting.toFixed(3)} s`],
    ["server and line", `${seconds.toFixed(1)} s`],
    ["decrypt", `${decrypting.toFixed(3)} s`],
    ["up, down", `${size(facts.prompt_bytes)}, ${size(down)}`],
  ]);
  return answer;
}

async function ask(count) {
  const typed = at("prompt").value;
  fault();
  running = { stop: new AbortController() };
  controls();
  try {
    let answer;
    for (let made = 0; made < count; made++) {
      const fresh = continued === undefined || continued !== typed;
      if (fresh) continued = typed;
      const started = fresh ? once(typed) : once();
      answer = await started;
      if (answer.end || answer.room === 0) break;
    }
    at("stage").textContent = answer.end ? "Done: the text ends here." : "Done.";
    at("progress").value = 1;
    if (answer.end || answer.room === 0) continued = undefined;
  } catch (error) {
    if (running.job && open) open.server.cancel(running.job);
    at("stage").textContent = error.name === "AbortError" ? "Stopped." : "Failed.";
    // The next run begins with the text again.
    continued = undefined;
    if (error.name !== "AbortError") fault(error);
  } finally {
    running = undefined;
    at("step").textContent = "";
    controls();
  }
}

at("open-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  fault();
  at("open").disabled = true;
  try {
    await connect();
    at("secret").value = at("token").value = "";
  } catch (error) {
    fault(error);
  } finally {
    at("open").disabled = false;
    controls();
  }
});
at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(1);
});
at("go-on").addEventListener("click", () => ask(Math.max(1, Math.min(64, Number(at("count").value) || 1))));
at("stop").addEventListener("click", () => running?.stop.abort());
at("forget").addEventListener("click", () => forget());
addEventListener("pagehide", () => {
  if (running?.job && open) open.server.cancel(running.job, true);
  open?.vault.close();
});
addEventListener("unhandledrejection", (event) => fault(event.reason));

const settings = await fetch("settings.json").then((found) => (found.ok ? found.json() : {})).catch(() => ({}));
if (typeof settings.server === "string") {
  at("server").value = settings.server;
  at("server").readOnly = true;
}
controls();
