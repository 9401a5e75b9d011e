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
  await corrected(page, box, one, shot);

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

// The nucleus in the middle is none, and one is outlined beside it; what is in view is saved as training reads it.
async function corrected(page, box, one, shot) {
  const marks = text => page.waitForFunction(text => document.getElementById("marks").textContent === text, text);
  await page.click("#no-nucleus");
  await marks("Marked: 1 no nucleus");
  await page.click("#undo");
  await marks("Nothing is marked.");
  const other = await page.$$eval("#right-type option", (all, type) => all.map(o => o.value).find(v => v !== type), one.type);
  await page.selectOption("#right-type", other);
  await page.click("#set-type");
  await marks("Marked: 1 of another type");
  await page.click("#no-nucleus");
  await page.click("#outline");
  await page.evaluate(() => document.getElementById("viewer").scrollIntoView());
  const at = i => [box.x + box.width / 2 + 60 + 12 * Math.cos(i / 3), box.y + box.height / 2 + 12 * Math.sin(i / 3)];
  await page.mouse.move(...at(0));
  await page.mouse.down();
  for (let i = 1; i < 19; i++) await page.mouse.move(...at(i));
  await page.mouse.up();
  await page.click("#outline");
  await marks("Marked: 1 no nucleus, 1 drawn");
  await page.click("#save");
  await page.waitForFunction(() => document.getElementById("saved").textContent.startsWith("Saved "));
  await shot("corrected");
  const said = await page.textContent("#saved");
  const [, picture, nuclei] = /^Saved (.*\.png) with (\d+) nuclei, 2 of them marked/.exec(said);
  assert.match(said, /wsi-nuclei train --data '.*corrections' --mpp [0-9.]+ --from /);
  const {features} = JSON.parse(readFileSync(picture.replace(/png$/, "geojson"), "utf8"));
  assert.equal(features.length, Number(nuclei));
  const name = await page.$eval("#right-type", select => select.selectedOptions[0].textContent);
  assert.equal(features[0].properties.classification.name, name);
  // PNG: width and height from byte 16 on. Nobody has the wrong nucleus's place.
  const png = readFileSync(picture), [w, h] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  const inside = ([x, y]) => x > w / 2 - 2 && x < w / 2 + 2 && y > h / 2 - 2 && y < h / 2 + 2;
  const centres = features.slice(1).map(f => f.geometry.coordinates[0][0]).map(ring => [0, 1].map(axis => {
    const values = ring.map(p => p[axis]);
    return (Math.min(...values) + Math.max(...values)) / 2;
  }));
  assert.ok(centres.length > 0 && !centres.some(inside));
  for (let i = 0; i < 2; i++) await page.click("#undo");
  await marks("Nothing is marked.");
}

async function shown(page) {
  return page.$$eval("#row tbody tr", lines => Object.fromEntries(lines.map(line => [line.children[0].textContent, line.children[1].textContent])));
}
