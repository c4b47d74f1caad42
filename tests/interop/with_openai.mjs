// One text through OpenAI's client for Node, which asks for base64: node with_openai.mjs ADDRESS TEXT
import OpenAI from "openai";

const [, , baseURL, input] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const { data } = await client.embeddings.create({ model: "tiny", input });
console.log(JSON.stringify({ embedding: Array.from(data[0].embedding) }));
