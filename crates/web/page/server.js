// The server's addresses as functions. Nothing here sees a text or a secret.

// How often a broken line is taken up again before it counts as down.
const TRIES = 8;
// Longest wait before a server that is full is asked again, in seconds.
const LONGEST = 300;
const JSON_BYTES = 65536;
const PASSING = new Set([408, 429, 502, 503, 504]);

/** A refusal of the server, with the next step. */
export class Problem extends Error {
  constructor(status, problem, retryAfter) {
    const { title, detail, next, type } = problem;
    super(title ? `${title} (${detail}): ${next}` : `the server answers with status ${status}`);
    this.code = typeof type === "string" ? type.split("/problems/")[1] : undefined;
    this.passing = PASSING.has(status);
    this.retryAfter = Number(retryAfter) || 1;
  }
}

/** A line that broke. */
export class Line extends Error {
  passing = true;
}

/** An address that secrets may be sent to: TLS, or this machine. */
export function originOf(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw new Error("the server's address is https://HOST:PORT");
  }
  const here = ["127.0.0.1", "localhost", "[::1]"].includes(url.hostname);
  const secure = url.protocol === "https:" || (url.protocol === "http:" && here);
  if (!secure || url.pathname !== "/" || url.search || url.hash || url.username || url.password) {
    throw new Error("the server's address is https://HOST:PORT, or http:// on this machine alone");
  }
  return url.origin;
}

/** One server and a token. `told` hears of every request that has ended. */
export class Server {
  #origin;
  #token;
  #told;

  constructor(origin, token, told) {
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Error("the token is one word: the content of the token's file");
    this.#origin = origin;
    this.#token = token;
    this.#told = told;
  }

  async #send(method, path, { body, headers, signal, keepalive } = {}) {
    let response;
    try {
      response = await fetch(this.#origin + path, {
        method,
        body,
        signal,
        keepalive,
        headers: { authorization: `Bearer ${this.#token}`, ...headers },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Line(
        `no answer from ${this.#origin}: is it running, does its certificate hold, and was it started ` +
          `with --allow-origin ${location.origin}?`,
      );
    }
    if (response.ok) return response;
    const text = await response.text().catch(() => "");
    this.#told({ method, path, up: body?.byteLength ?? 0, down: text.length });
    let problem = {};
    try {
      problem = JSON.parse(text.slice(0, JSON_BYTES)) ?? {};
    } catch {
      // Something between that is no server of ours.
    }
    throw new Problem(response.status, problem, response.headers.get("retry-after"));
  }

  async #bytes(method, path, most, options) {
    const response = await this.#send(method, path, options);
    let bytes;
    try {
      bytes = await readUpTo(response, most);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Line(`the answer of ${this.#origin} broke off: ${error.message}`);
    }
    this.#told({ method, path, up: options?.body?.byteLength ?? 0, down: bytes.length });
    return bytes;
  }

  /** The server's client plan as it came. */
  async plan() {
    const { models } = JSON.parse(new TextDecoder().decode(await this.#bytes("GET", "/v1/models", JSON_BYTES)));
    const plan = models?.flatMap((model) => model.plans)[0];
    if (typeof plan !== "string" || !/^[0-9A-Za-z]{1,64}$/.test(plan)) throw new Error("the server has no plan");
    return this.#bytes("GET", `/v1/plans/${plan}`, JSON_BYTES);
  }

  /** A public file. */
  async blob({ blake3, bytes }) {
    return this.#bytes("GET", `/v1/blobs/${blake3}`, bytes);
  }

  /** Submits an encrypted prompt; the same prompt is the same job. */
  async submit(job, key, plan, prompt, told, signal) {
    const path = `/v1/jobs/${job}?key=${key}&plan=${plan}`;
    const headers = { "content-type": "application/octet-stream" };
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#bytes("PUT", path, JSON_BYTES, { body: prompt, headers, signal });
        return;
      } catch (error) {
        if (!error.passing || attempt >= TRIES) throw error;
        const wait = Math.min(error.retryAfter ?? 2 ** Math.min(attempt, 5), LONGEST);
        told(`${error.message} Asking again in ${wait} s.`);
        await pause(wait * 1000, signal);
      }
    }
  }

  /** Follows a job to its end, whatever lines break: length and hash of its answer. */
  async follow(job, told, signal) {
    let last = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        for await (const { id, event } of this.#events(job, last, signal)) {
          [last, attempt] = [id, 0];
          told(event);
          if (event.event === "done") return event;
          if (event.event === "failed") throw new Problem(0, event.problem ?? {});
          if (event.event === "cancelled") throw new Error("the job was given up");
        }
        throw new Line("the events broke off");
      } catch (error) {
        if (!error.passing || attempt >= TRIES) throw error;
      }
      await pause(250 * 2 ** Math.min(attempt, 5), signal);
    }
  }

  async *#events(job, after, signal) {
    const path = `/v1/jobs/${job}/events`;
    const response = await this.#send("GET", path, { headers: { "last-event-id": String(after) }, signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let [text, down] = ["", 0];
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error) => {
          if (error.name === "AbortError") throw error;
          throw new Line(`the events broke off: ${error.message}`);
        });
        if (done) return;
        down += value.length;
        text += value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
          const found = parse(text.slice(0, end));
          if (found) yield found;
        }
        if (text.length > JSON_BYTES) throw new Error("the server sends an event without end");
      }
    } finally {
      reader.cancel().catch(() => {});
      this.#told({ method: "GET", path, up: 0, down });
    }
  }

  /** The encrypted answer. */
  async result(job, bytes, signal) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#bytes("GET", `/v1/jobs/${job}/result`, bytes, { signal });
      } catch (error) {
        if (!error.passing || attempt >= TRIES) throw error;
        await pause(1000, signal);
      }
    }
  }

  /** Gives a job up; a server that does not hear of it runs it for nothing. */
  async cancel(job, keepalive = false) {
    await this.#send("DELETE", `/v1/jobs/${job}`, { keepalive }).catch(() => {});
    this.#told({ method: "DELETE", path: `/v1/jobs/${job}`, up: 0, down: 0 });
  }
}

/** One block of an event stream; nothing for a comment. */
export function parse(block) {
  const field = (name) => block.split("\n").find((line) => line.startsWith(name))?.slice(name.length);
  const data = field("data: ");
  if (data === undefined) return undefined;
  return { id: Number(field("id: ")) || 0, event: JSON.parse(data) };
}

async function readUpTo(response, most) {
  const [reader, parts] = [response.body.getReader(), []];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > most) throw new Error(`more than ${most} bytes`);
    parts.push(value);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stopped);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stopped();
    signal?.addEventListener("abort", stopped, { once: true });
  });
}
