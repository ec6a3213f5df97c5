// A whole completion and a streamed one by OpenAI's client for Node; prints both texts.
const { OpenAI } = require("openai");

async function main() {
  const [baseURL, apiKey] = process.argv.slice(2);
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const model = (await client.models.list()).data[0].id;
  const asked = { model, prompt: "One day a cat", max_tokens: 1, temperature: 0 };
  const whole = (await client.completions.create(asked)).choices[0].text;
  let streamed = "";
  for await (const part of await client.completions.create({ ...asked, stream: true })) {
    streamed += part.choices[0]?.text ?? "";
  }
  console.log(`${whole}\t${streamed}`);
}

main();
