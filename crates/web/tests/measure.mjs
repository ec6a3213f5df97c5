// Seconds of opening, encrypting and decrypting, in Node.
//
//   cipherlm ask --keys KEYS ... --prompt TEXT --keep PROMPT ANSWER
//   node crates/web/tests/measure.mjs target/page CLIENT KEYS/secret.key TEXT ANSWER [TIMES]
//
// CLIENT is the folder of `cipherlm plan --client`; ANSWER is one to a prompt of as many tokens as
// TEXT has.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { join, resolve } from "node:path";
import os from "node:os";

const [page, folder, secretFile, text, answerFile, times = "9"] = process.argv.slice(2);
const { Instance, Refused } = await import(pathToFileURL(resolve(page, "client.js")));
const encode = (text) => new TextEncoder().encode(text);
const bytes = async (...path) => new Uint8Array(await readFile(join(...path)));

const program = await bytes(page, "cipherlm.wasm");
const answer = await bytes(answerFile);
const spent = {};

function timed(instance, command, ...inputs) {
  const start = performance.now();
  const results = instance.call(command, inputs.map((input) => input.slice()));
  (spent[command] ??= []).push((performance.now() - start) / 1000);
  return results;
}

const instance = await Instance.start(program);
const [facts] = timed(instance, "offer", await bytes(folder, "client-plan.json"));
const { profile, log_degree } = JSON.parse(new TextDecoder().decode(facts));
const files = [await bytes(secretFile), await bytes(folder, "tokenizer.json"), await bytes(folder, "embedding.safetensors")];
timed(instance, "open", ...files);

// The refusal of another hash says which one the answer has.
timed(instance, "begin", encode(text));
let hash;
try {
  instance.call("read", [answer.slice(), encode("0".repeat(64))]);
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  hash = encode(error.message.match(/[0-9a-f]{64}/)[0]);
}
for (let turn = 0; turn < Number(times); turn++) {
  timed(instance, "begin", encode(text));
  const [read] = timed(instance, "read", answer, hash);
  if (turn === 0) console.log(`answer    ${JSON.parse(new TextDecoder().decode(read)).text}`);
}
console.log(`machine   ${os.cpus()[0].model}, Node ${process.version}; ${profile}, N = 2^${log_degree}`);
console.log(`program   ${program.length} bytes; memory ${(instance.memoryBytes() / 1e6).toFixed(0)} MB`);
for (const [command, list] of Object.entries(spent)) {
  list.sort((a, b) => a - b);
  const [median, least, most] = [list[list.length >> 1], list[0], list.at(-1)].map((s) => s.toFixed(3));
  console.log(`${command.padEnd(9)} median ${median} s (${least} to ${most}, ${list.length} times)`);
}
