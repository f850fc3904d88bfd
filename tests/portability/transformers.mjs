// Reads {folder, texts, dtype} as JSON, and prints what transformers.js answers to each text: every label with its score.
import { readFileSync } from "node:fs";

import { env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
const { folder, texts, dtype = "fp32" } = JSON.parse(readFileSync(0, "utf8"));
const classify = await pipeline("text-classification", folder, { dtype });
console.log(JSON.stringify(await classify(texts, { top_k: null })));
