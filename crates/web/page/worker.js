// The one place where the secret is. It sends nothing but to the page: `main.js` speaks with the
// server.

import { Broken, Instance } from "./client.js";

const program = fetch("cipherlm.wasm").then(async (response) => {
  if (!response.ok) throw new Error(`cipherlm.wasm: status ${response.status}`);
  return Instance.start(await response.arrayBuffer());
});
// Whoever calls is told.
program.catch(() => {});

self.onmessage = async ({ data: { id, command, inputs } }) => {
  try {
    const instance = await program;
    if (command === "close") {
      instance.close();
      return self.postMessage({ id, results: [], seconds: 0 });
    }
    const start = performance.now();
    const results = instance.call(command, inputs);
    const seconds = (performance.now() - start) / 1000;
    self.postMessage({ id, results, seconds }, results.map((bytes) => bytes.buffer));
  } catch (error) {
    self.postMessage({ id, error: error.message, broken: error instanceof Broken });
  }
};
