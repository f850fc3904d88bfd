// Reads {tokenizer, text} as JSON, and prints the text as the tokenizer of transformers.js normalises it.
import { readFileSync } from "node:fs";

import { Tokenizer } from "@huggingface/tokenizers";

const { tokenizer, text } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(new Tokenizer(tokenizer, {}).normalizer(text)));
