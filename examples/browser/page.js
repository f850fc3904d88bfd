// Loads a model exported by reviewguard and scores the text that is entered. Everything runs in the browser; no text is sent anywhere.
//   ?model=URL   folder of the export, on the same server (default: ./model/)
//   ?dtype=q8    load onnx/model_quantized.onnx instead of onnx/model.onnx
import { Tokenizer } from "./vendor/tokenizers.min.mjs";
import * as ort from "./vendor/ort.wasm.bundle.min.mjs";

import { REVIEW, NOT_FLAGGED, combine, countWords, decide } from "./decide.js";

const GRAPHS = { fp32: "onnx/model.onnx", q8: "onnx/model_quantized.onnx" };
const PAUSE_MS = 200; // pause in typing before the text is scored
const MAX_CHARS = 100_000; // as in reviewguard
const PUNCTUATION = /[^\p{L}\p{N}_\s]/gu;
const SAID = {
  [REVIEW]: "Needs review: the prediction is uncertain, or the text is too short or in another language",
  [NOT_FLAGGED]: "Not flagged: the model found no sign of a fake, which does not prove that a person wrote the text",
};

ort.env.wasm.numThreads = 1; // more threads need headers that a plain file server does not send
ort.env.wasm.proxy = true; // run in a worker so that typing stays responsive

const [box, loading, progress, step, error, answer, verdict, classes, cut] = [
  "review", "loading", "progress", "step", "error", "answer", "verdict", "classes", "cut",
].map((id) => document.getElementById(id));

class Classifier {
  static async load(folder, dtype) {
    if (!Object.hasOwn(GRAPHS, dtype)) throw new Error(`dtype is ${dtype}; use ${Object.keys(GRAPHS).join(" or ")}`);
    const json = async (name) => (await get(new URL(name, folder))).json();
    const files = ["config.json", "tokenizer.json", "tokenizer_config.json", "reviewguard.json"];
    const [config, tokenizer, settings, manifest] = await Promise.all(files.map(json));
    const graph = await download(new URL(GRAPHS[dtype], folder));
    step.textContent = "Starting the model";
    return new Classifier(config, tokenizer, settings, manifest, await ort.InferenceSession.create(graph));
  }

  constructor(config, tokenizer, settings, manifest, session) {
    this.manifest = manifest;
    this.labels = Object.keys(config.id2label).map((_, index) => config.id2label[index]);
    this.longest = tokenizer.truncation.max_length;
    this.session = session;
    // As in reviewguard, a literal [SEP] in a review is read as plain characters.
    const { vocab } = tokenizer.model;
    const words = Array.isArray(vocab) ? new Set(vocab.map(([word]) => word)) : { has: (word) => Object.hasOwn(vocab, word) };
    const added = tokenizer.added_tokens.filter((token) => !(token.special && words.has(token.content)));
    this.tokenizer = new Tokenizer({ ...tokenizer, added_tokens: added }, settings);
    const [ids, bare] = [true, false].map((add_special_tokens) => this.tokenizer.encode("a", { add_special_tokens }).ids);
    this.opening = ids.indexOf(bare[0]); // number of special tokens before and after the text
    this.closing = ids.length - this.opening - bare.length;
    const unknown = settings.unk_token?.content ?? settings.unk_token ?? tokenizer.model.unk_token;
    this.unknown = Array.isArray(vocab) ? vocab.findIndex(([word]) => word === unknown) : vocab[unknown];
  }

  /** Token ids of each window, split as in reviewguard, with special tokens around each; one window unless the model reads several. */
  encode(text) {
    const { ids } = this.tokenizer.encode(text.slice(0, MAX_CHARS));
    if (!ids.length) ids.push(0); // without special tokens and text, the model still needs one token
    const { overlap, max_windows } = this.manifest.windows ?? { overlap: 0, max_windows: 1 };
    const [before, behind] = [ids.slice(0, this.opening), ids.slice(ids.length - this.closing)];
    const body = ids.slice(this.opening, ids.length - this.closing);
    const room = this.longest - this.opening - this.closing;
    const windows = [[...before, ...body.slice(0, room), ...behind]];
    let end = room;
    for (; end < body.length && windows.length < max_windows; end += room - overlap)
      windows.push([...before, ...body.slice(end - overlap, end - overlap + room), ...behind]);
    return { windows, truncated: end < body.length, fertility: this.fertility(text, body) };
  }

  /** Fertility: the average number of tokens per word, which is high for other languages. */
  fertility(text, body) {
    const unknown = body.filter((id) => id === this.unknown).length;
    const pieces = body.length - unknown - (text.match(PUNCTUATION) ?? []).length;
    const known = countWords(text) - unknown;
    return known > 0 ? Math.max(pieces, 0) / known : Infinity;
  }

  async run(ids) {
    const tensor = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const { logits } = await this.session.run({ input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) });
    return Array.from(logits.data);
  }

  async score(text) {
    const { windows, truncated, fertility } = this.encode(text);
    const rows = [];
    for (const ids of windows) rows.push(await this.run(ids));
    const { classes, positive, decision, min_tokens: least = 0, max_fertility } = this.manifest;
    const logits = rows.length > 1 ? combine(this.manifest.windows, rows, windows.map((ids) => ids.length), classes.indexOf(positive)) : rows[0];
    const top = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp((logit - top) / decision.temperature));
    const sum = powers.reduce((total, power) => total + power);
    const outOfDistribution = windows[0].length < least || fertility > (max_fertility ?? Infinity);
    const decided = outOfDistribution ? REVIEW : decide(this.manifest, logits, countWords(text));
    return { probabilities: powers.map((power) => power / sum), decided, truncated };
  }
}

async function get(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answers ${response.status} ${response.statusText}`);
  return response;
}

/** Download a file and update the progress bar. */
async function download(url) {
  const response = await get(url);
  const total = Number(response.headers.get("content-length"));
  const chunks = [];
  let got = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    got += value.length;
    if (total) progress.value = Math.min(got / total, 1);
    step.textContent = `Loading the model: ${Math.round(got / 2 ** 20)} MB${total ? ` of ${Math.round(total / 2 ** 20)}` : ""}`;
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function show({ probabilities, decided, truncated }) {
  verdict.textContent = SAID[decided] ?? `${decided}: ${percent(probabilities[model.labels.indexOf(decided)])}`;
  verdict.dataset.decision = decided;
  classes.replaceChildren(...probabilities.map((probability, index) => row(model.labels[index], probability)));
  const read = model.longest * (model.manifest.windows?.max_windows ?? 1);
  cut.textContent = `The model reads at most about ${read} tokens; this review is longer.`;
  cut.hidden = !truncated;
}

function row(label, probability) {
  const [line, term, bar, figure] = ["div", "dt", "dd", "dd"].map((name) => document.createElement(name));
  const meter = Object.assign(document.createElement("meter"), { value: probability, ariaLabel: label });
  term.textContent = label;
  figure.textContent = percent(probability);
  bar.append(meter);
  line.append(term, bar, figure);
  return line;
}

const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

function fail(problem) {
  model = undefined;
  loading.hidden = answer.hidden = true;
  error.textContent = `The model cannot be used. ${problem.message}`;
  error.hidden = false;
}

let model, timer;
let scored = ""; // the text that the answer refers to
let working = false;

/** Score the current text, and repeat if it changed in the meantime. */
async function refresh() {
  if (working || !model) return;
  working = true;
  try {
    while (scored !== box.value) {
      const text = box.value;
      if (text.trim()) show(await model.score(text));
      answer.hidden = !text.trim();
      scored = text;
    }
    answer.ariaBusy = "false";
  } catch (problem) {
    fail(problem);
  } finally {
    working = false;
  }
}

box.addEventListener("input", () => {
  answer.ariaBusy = "true";
  clearTimeout(timer);
  timer = setTimeout(refresh, PAUSE_MS);
});

const options = new URLSearchParams(location.search);
try {
  const folder = new URL(`${options.get("model") ?? "./model"}/`.replace(/\/+$/, "/"), location.href);
  model = await Classifier.load(folder, options.get("dtype") ?? "fp32");
  loading.hidden = true;
  await refresh();
} catch (problem) {
  fail(problem);
}
