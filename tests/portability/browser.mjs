// Reads {url, visits, screenshot} as JSON. A visit is {query, texts, hurried}: it opens the page, types each text and waits for
// the answer, then types the hurried texts without waiting. Prints what each visit saw; saves a picture of the first.
import { readFileSync } from "node:fs";

import { launch } from "./chromium.mjs";

const PATIENCE = { timeout: 60_000 };
const { url, visits, screenshot } = JSON.parse(readFileSync(0, "utf8"));

async function type(page, text) {
  await page.$eval("#review", (box) => box.select());
  await (text ? page.keyboard.sendCharacter(text) : page.keyboard.press("Backspace"));
}

async function answer(page) {
  await page.waitForSelector("#answer[aria-busy=false]", PATIENCE);
  return page.$eval("#answer", (section) => ({
    shown: !section.hidden,
    verdict: section.querySelector("#verdict").textContent,
    decision: section.querySelector("#verdict").dataset.decision,
    cut: !section.querySelector("#cut").hidden,
    scores: Array.from(section.querySelectorAll("dl > div"), (line) => [
      line.querySelector("dt").textContent, line.querySelector("meter").value,
    ]),
  }));
}

/** What the page's policy says to a request for another server. */
const leak = () =>
  new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
    fetch("http://192.0.2.1/", { signal: AbortSignal.timeout(2000) }).finally(() => setTimeout(resolve, 100, "no policy"));
  });

async function visit(browser, { query, texts, hurried = [] }, first) {
  const page = await browser.newPage();
  await page.setViewport({ width: 760, height: 620, deviceScaleFactor: 1 });
  const requests = [];
  const problems = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (problem) => problems.push(problem.message));
  await page.goto(url + query);
  await page.waitForSelector("#loading[hidden]", PATIENCE);
  const error = await page.$eval("#error", (line) => (line.hidden ? null : line.textContent));
  const answers = [];
  await page.focus("#review");
  for (const text of texts) {
    await type(page, text);
    answers.push(await answer(page));
    if (first && screenshot && answers.length === 1) await page.screenshot({ path: screenshot });
  }
  for (const text of hurried) {
    await type(page, text);
    await new Promise((resolve) => setTimeout(resolve, 250)); // longer than the page waits: the model is at work
  }
  const last = hurried.length ? await answer(page) : null;
  const sent = [...requests];
  const result = { error, answers, last, requests: sent, problems: [...problems], leak: await page.evaluate(leak) };
  await page.close();
  return result;
}

const browser = await launch();
try {
  const results = [];
  for (const [index, one] of visits.entries()) results.push(await visit(browser, one, index === 0));
  console.log(JSON.stringify(results));
} finally {
  await browser.close();
}
