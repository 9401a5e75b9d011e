// The page of `view` in a real Chromium: no console error, a click selects a nucleus, a filter changes the count, zoom
// brings outlines. Screenshots into FOLDER.
//   node view.mjs URL CSV FOLDER     (PLAYWRIGHT: where playwright-core is; CHROMIUM: the browser)
import {readFileSync, mkdirSync} from "node:fs";
import {createRequire} from "node:module";
import assert from "node:assert/strict";

const [url, csv, folder] = process.argv.slice(2);
const {chromium} = createRequire(`${process.env.PLAYWRIGHT}/`)("playwright-core");
mkdirSync(folder, {recursive: true});

const lines = readFileSync(csv, "utf8").trimEnd().split("\n").map(line => line.split(","));
const names = lines.shift();
const rows = lines.map(cells => Object.fromEntries(names.map((name, i) => [name, cells[i]])));
const number = n => n.toLocaleString("en");
const counted = n => `${number(n)} of ${number(rows.length)} nuclei`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"],
});
try {
  for (const width of [1280, 390]) for (const colorScheme of ["light", "dark"]) await visit(width, colorScheme);
} finally {
  await browser.close();
}
console.log(`view: ${rows.length} nuclei seen, clicked, filtered and saved at 1280 and 390 px, light and dark`);

async function visit(width, colorScheme) {
  const context = await browser.newContext({viewport: {width, height: width > 600 ? 800 : 844}, colorScheme});
  const page = await context.newPage();
  const wrong = [];
  page.on("console", message => { if (["error", "warning"].includes(message.type())) wrong.push(message.text()); });
  page.on("pageerror", error => wrong.push(String(error)));
  page.on("requestfailed", request => {
    if (request.failure().errorText !== "net::ERR_ABORTED") wrong.push(`${request.url()}: ${request.failure().errorText}`);
  });
  page.on("request", request => { if (!/^(data:|blob:)/.test(request.url())) assert.ok(request.url().startsWith(url), request.url()); });
  const count = expected => page.waitForFunction(text => document.getElementById("count").textContent === text, counted(expected));
  const shot = name => page.screenshot({path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: width < 600});

  await page.goto(url);
  await count(rows.length);
  await page.waitForFunction(() => document.body.dataset.detail);
  await page.waitForTimeout(800);
  await shot("far");

  // A nucleus by its id: the row of nuclei.csv, near enough for outlines.
  const one = rows[Math.floor(rows.length / 2)];
  await page.fill("#id", one.id);
  await page.click("#go button");
  await page.waitForFunction(() => document.body.dataset.detail === "outlines");
  await page.waitForTimeout(1000);
  assert.deepEqual(await shown(page), Object.fromEntries(names.map(n => [n, one[n] || "–"])));

  // It lies in the middle now: a click there gives it again.
  await page.evaluate(() => {
    document.getElementById("viewer").scrollIntoView();
    document.querySelector("#row tbody").replaceChildren();
  });
  const box = await page.locator("#viewer").boundingBox();
  await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
  await page.waitForFunction(() => document.querySelectorAll("#row tbody tr").length > 0);
  assert.equal((await shown(page)).id, one.id);
  await shot("near");

  // Filters: uncertainty, a feature, a type; and all of it undone.
  await page.fill("#prob-greatest", "0.6");
  await count(rows.filter(row => row.type_prob !== "" && Number(row.type_prob) <= 0.6).length);
  await page.fill("#least", "40");
  const both = row => row.type_prob !== "" && Number(row.type_prob) <= 0.6 && Number(row.area_um2) >= 40;
  await count(rows.filter(both).length);
  await page.locator("#types input").first().uncheck();
  const type = await page.locator("#types input").first().getAttribute("value");
  const kept = rows.filter(row => both(row) && row.type !== type);
  await count(kept.length);
  const download = page.waitForEvent("download");
  await page.click("#export");
  const saved = readFileSync(await (await download).path(), "utf8").trimEnd().split("\n");
  assert.deepEqual(saved.slice(1).map(line => line.split(",")[0]), kept.map(row => row.id));
  await page.click("#reset");
  await count(rows.length);

  // By the keyboard alone.
  await page.locator("#viewer .openseadragon-canvas").focus();
  const before = await page.textContent("#scale-text");
  await page.keyboard.down("Minus");
  await page.waitForFunction(text => document.getElementById("scale-text").textContent !== text, before);
  await page.keyboard.up("Minus");
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} px too wide`);
  assert.deepEqual(wrong, []);
  await context.close();
}

async function shown(page) {
  return page.$$eval("#row tbody tr", lines => Object.fromEntries(lines.map(line => [line.children[0].textContent, line.children[1].textContent])));
}
