// The page of `view` over a million nuclei in a real Chromium: what is drawn from far to near, how long answers take, how
// long a frame. Screenshots into FOLDER; million.sh calls it.
//   node million.mjs URL FOLDER     (PLAYWRIGHT: where playwright-core is; CHROMIUM: the browser)
import {mkdirSync} from "node:fs";
import {createRequire} from "node:module";
import assert from "node:assert/strict";

const [url, folder] = process.argv.slice(2);
const {chromium} = createRequire(`${process.env.PLAYWRIGHT}/`)("playwright-core");
mkdirSync(folder, {recursive: true});
// Questions without an answer yet.
const asked = new Set();

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"],
});
try {
  const page = await browser.newPage({viewport: {width: 1280, height: 800}});
  const answers = [], wrong = [];
  page.on("request", request => { if (request.url().includes("/nuclei.json")) asked.add(request); });
  page.on("requestfailed", request => asked.delete(request));
  page.on("console", message => { if (message.type() === "error") wrong.push(message.text()); });
  page.on("pageerror", error => wrong.push(String(error)));
  page.on("requestfinished", request => {
    if (asked.delete(request)) answers.push(request.timing().responseEnd);
  });
  const begun = performance.now();
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset.detail && document.getElementById("count").textContent);
  const count = await page.textContent("#count");
  console.log(`${count}, drawn ${ms(performance.now() - begun)} after the address was opened`);

  const box = await page.locator("#viewer").boundingBox();
  const middle = [box.x + box.width / 2, box.y + box.height / 2];
  for (const wanted of ["density", "points", "outlines"]) {
    for (let steps = 0; await detail(page) !== wanted; steps++) {
      assert.ok(steps < 20, `no ${wanted}`);
      await page.mouse.move(...middle);
      await page.mouse.wheel(0, -240);
      await rest(page);
    }
    await rest(page);
    await page.screenshot({path: `${folder}/million-${wanted}.png`});
    answers.length = 0;
    const frames = await drag(page, middle);
    await rest(page);
    frames.sort((a, b) => a - b);
    const most = Math.max(...answers);
    console.log(`${wanted}: drag of ${frames.length} frames: median ${ms(frames[frames.length >> 1])}, ` +
      `longest ${ms(frames.at(-1))}; ${answers.length} answers, slowest ${ms(most)}`);
    assert.ok(answers.length >= 1 && most < 3000, `an answer took ${ms(most)}`);
  }
  assert.deepEqual(wrong, []);
} finally {
  await browser.close();
}

function ms(time) {
  return `${Math.round(time)} ms`;
}

function detail(page) {
  return page.evaluate(() => document.body.dataset.detail);
}

/// Until the picture has come to rest and what belongs to it is there.
async function rest(page) {
  do await page.waitForTimeout(500); while (asked.size > 0);
}

/// Drags the slide and gives the time between frames.
async function drag(page, [x, y]) {
  await page.evaluate(() => {
    window.frames_ms = [];
    let last = performance.now();
    const next = now => {
      window.frames_ms.push(now - last);
      last = now;
      window.frame = requestAnimationFrame(next);
    };
    window.frame = requestAnimationFrame(next);
  });
  await page.mouse.move(x, y);
  await page.mouse.down();
  for (let step = 1; step <= 40; step++) await page.mouse.move(x - 6 * step, y - 4 * step);
  await page.mouse.up();
  await page.waitForTimeout(500);
  return page.evaluate(() => { cancelAnimationFrame(window.frame); return window.frames_ms.slice(1); });
}
