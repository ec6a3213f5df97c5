// One instance of the client's half in WebAssembly: byte buffers in, byte buffers out.

const COMMANDS = new Set(["offer", "open", "begin", "go_on", "read"]);
// What `crypto.getRandomValues` fills at a time.
const RANDOM_BYTES = 65536;

/** A refusal with its reason and the next step. The instance goes on. */
export class Refused extends Error {}

/** A fault of the program. The instance is gone, and the secret with it. */
export class Broken extends Error {}

/** The client's half: at most one secret and one text. */
export class Instance {
  #exports;
  #words = "";
  #broken = false;

  /** Makes an instance of the program's bytes. */
  static async start(bytes) {
    const instance = new Instance();
    const host = {
      random: (at, length) => instance.#random(at >>> 0, length >>> 0),
      complain: (at, length) => {
        instance.#words = new TextDecoder().decode(instance.#memory(at >>> 0, length >>> 0));
      },
    };
    const { instance: made } = await WebAssembly.instantiate(bytes, { host });
    instance.#exports = made.exports;
    return instance;
  }

  /** Memory moves when it grows: a view is good until the next call. */
  #memory(at, length) {
    return new Uint8Array(this.#exports.memory.buffer, at, length);
  }

  #random(at, length) {
    try {
      for (let done = 0; done < length; done += RANDOM_BYTES) {
        crypto.getRandomValues(this.#memory(at + done, Math.min(RANDOM_BYTES, length - done)));
      }
      return 0;
    } catch {
      return 1;
    }
  }

  /**
   * Runs a command on its inputs, each a `Uint8Array`, and returns copies of its results. What was
   * handed in is overwritten with zeros.
   */
  call(command, inputs) {
    if (this.#broken || !COMMANDS.has(command)) {
      throw new Broken("the program has ended: load the page again");
    }
    try {
      for (const input of inputs) {
        const at = this.#exports.input(input.length) >>> 0;
        if (at === 0) throw new RangeError("the browser gives no more memory: close other pages");
        this.#memory(at, input.length).set(input);
        input.fill(0);
      }
      const done = this.#exports[command]();
      const results = this.#results();
      if (done) return results;
      throw new Refused(new TextDecoder().decode(results[0]));
    } catch (error) {
      if (error instanceof Refused) throw error;
      this.#broken = true;
      const reason = this.#words || error.message || String(error);
      throw new Broken(`the program failed and has ended (${reason}): load the page again`);
    }
  }

  #results() {
    const results = [];
    for (let part = 0; ; part++) {
      const at = this.#exports.result(part) >>> 0;
      if (at === 0) return results;
      results.push(this.#memory(at, this.#exports.result_length(part) >>> 0).slice());
    }
  }

  /** Bytes that the instance has taken; they are given back when its worker ends. */
  memoryBytes() {
    return this.#exports.memory.buffer.byteLength;
  }

  /** Wipes secret and text. */
  close() {
    if (!this.#broken) this.#exports.close();
    this.#broken = true;
  }
}
