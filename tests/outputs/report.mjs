// report.html and the page over several slides in a real Chromium, from disk: no console error, nothing fetched, all
// figures there, every feature to be chosen by mouse and keyboard, scripts or not, on paper, in the dark, on a telephone.
// Numbers are compared with nuclei.csv. Screenshots into FOLDER.
//   node report.mjs REPORT INDEX FOLDER     (PLAYWRIGHT: where playwright-core is; CHROMIUM: the browser)
import {existsSync, mkdirSync, readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {dirname, resolve} from "node:path";
import {fileURLToPath, pathToFileURL} from "node:url";
import assert from "node:assert/strict";

const [report, index, folder] = process.argv.slice(2);
const {chromium} = createRequire(`${process.env.PLAYWRIGHT}/`)("playwright-core");
mkdirSync(folder, {recursive: true});

// The tutorial's features, by the names of the table.
const FEATURES = [
  "area_um2", "bbox_area_um2", "convex_area_um2", "eccentricity", "equivalent_diameter_um", "euler_number", "extent",
  "filled_area_um2", "inertia_eigval_x_um2", "inertia_eigval_y_um2", "major_axis_length_um", "minor_axis_length_um",
  "orientation", "perimeter_um", "solidity",
];
const label = name => name.replace(/_um2?$/, "").replaceAll("_", " ");
const lines = readFileSync(`${dirname(report)}/nuclei.csv`, "utf8").trimEnd().split("\n").map(line => line.split(","));
const names = lines.shift();
const column = name => lines.map(cells => cells[names.indexOf(name)]);
const types = column("type_name");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"],
});
try {
  for (const width of [1280, 390]) for (const colorScheme of ["light", "dark"]) await slide(width, colorScheme, true);
  await slide(1280, "light", false);
  for (const width of [1280, 390]) for (const colorScheme of ["light", "dark"]) await cohort(width, colorScheme);
  await withoutScript();
} finally {
  await browser.close();
}
console.log(`report: ${FEATURES.length} features of ${lines.length} nuclei, 1280 and 390 px, light, dark and print, with script and without; a cohort sorted`);

/// A page that may open nothing but itself and may complain about nothing.
async function open(file, options) {
  const {width, ...rest} = options;
  const context = await browser.newContext({viewport: {width, height: width > 600 ? 800 : 844}, ...rest});
  const page = await context.newPage();
  const wrong = [];
  const own = pathToFileURL(resolve(file)).href;
  page.on("console", message => { if (["error", "warning"].includes(message.type())) wrong.push(message.text()); });
  page.on("pageerror", error => wrong.push(String(error)));
  page.on("request", request => { if (request.url() !== own && !request.url().startsWith("data:")) wrong.push(`asks for ${request.url()}`); });
  await page.goto(own);
  return {page, done: async () => {
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${file} is ${overflow} px too wide at ${width} px`);
    assert.deepEqual(wrong, []);
    await context.close();
  }};
}

async function slide(width, colorScheme, javaScriptEnabled) {
  const {page, done} = await open(report, {width, colorScheme, javaScriptEnabled});
  const name = `report-${width}-${colorScheme}${javaScriptEnabled ? "" : "-noscript"}`;
  await figures(page);
  for (const feature of FEATURES) await choose(page, feature);
  await keyboard(page);
  await fullSize(page);
  await page.screenshot({path: `${folder}/${name}.png`, fullPage: true});
  if (width > 600) await paper(page, name);
  await done();
}

async function figures(page) {
  const broken = await page.$$eval("img", all => all.filter(i => !i.complete || i.naturalWidth === 0 || !i.alt).length);
  assert.equal(broken, 0, "pictures that do not show, or that say nothing");
  assert.ok(await page.locator("img").count() >= 4, "thumb, density maps and crops");
  const titles = await page.$$eval(".figures svg, .beside svg", all => all.map(svg => svg.querySelector(":scope > title").textContent));
  for (const title of ["area by type", "convex area by type", "equivalent diameter by type", "Nuclei by type"]) {
    assert.ok(titles.includes(title), `${title} among ${titles}`);
  }
  const flat = await page.$$eval("svg", all => all.filter(svg => svg.checkVisibility() && svg.getBoundingClientRect().height < 40).length);
  assert.equal(flat, 0, "flat figures");
}

/// Clicks a feature: its box plot shows, alone, and its medians are the table's.
async function choose(page, feature) {
  await page.locator(".picker > label", {hasText: new RegExp(`^${label(feature)}$`)}).click();
  const shown = await panel(page);
  assert.equal(shown.title.split(",")[0], label(feature));
  assert.equal(shown.plot, `${label(feature)} by type`);
  assert.ok(shown.rows.length >= 1, "types with values");
  for (const [type, count, median] of shown.rows) {
    const of = column(feature).filter((cell, i) => types[i] === type && cell !== "").map(Number).sort((a, b) => a - b);
    if (of.length < 20) {
      // Counted, not measured.
      assert.ok(Number.isNaN(median), `${feature} of ${type}: ${median} from ${of.length} nuclei`);
      continue;
    }
    assert.equal(count, of.length, `${feature} of ${type}`);
    const expected = (of[(of.length - 1) >> 1] + of[of.length >> 1]) / 2;
    // Three digits are shown.
    assert.ok(Math.abs(median - expected) <= 0.006 * Math.abs(expected) + 1e-9, `${feature} of ${type}: ${median}, not ${expected}`);
  }
}

/// The one panel that shows: its heading, its plot's name, and type, count and median of its first table.
async function panel(page) {
  const all = await page.$$eval(".panel", panels => panels.filter(p => p.checkVisibility()).map(p => ({
    title: p.querySelector("h3").textContent,
    plot: p.querySelector("svg > title")?.textContent,
    rows: [...p.querySelectorAll("table")[0].tBodies[0].rows].map(row => [0, 1, 4].map(i => row.cells[i].textContent)),
  })));
  assert.equal(all.length, 1, "one panel shows");
  const number = text => Number(text.replaceAll(",", "").replace("−", "-"));
  return {...all[0], rows: all[0].rows.map(([type, count, median]) => [type, number(count), number(median)])};
}

/// Tab leads to the features, arrows change them, and one sees where one is.
async function keyboard(page) {
  await page.evaluate(() => { getSelection().removeAllRanges(); document.activeElement.blur(); });
  await page.locator("h1").click();
  const focused = () => page.evaluate(() => document.activeElement.name === "feature" && document.activeElement.id);
  for (let tabs = 0; !(await focused()); tabs++) {
    assert.ok(tabs < 20, "Tab never comes to the features");
    await page.keyboard.press("Tab");
  }
  const before = (await panel(page)).title;
  await page.keyboard.press("ArrowRight");
  const after = (await panel(page)).title;
  assert.notEqual(after, before);
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement.nextElementSibling).outlineStyle);
  assert.equal(ring, "solid", "where the keyboard is cannot be seen");
  await page.keyboard.press("ArrowLeft");
  assert.equal((await panel(page)).title, before);
}

/// A field opens over the whole window with its colour key, by mouse and by keyboard, and closes again.
async function fullSize(page) {
  const field = page.locator(".crops figure").first();
  const size = () => field.locator("img").evaluate(img => img.getBoundingClientRect().width);
  const small = await size();
  await field.locator("label").click();
  assert.ok(await size() > 1.4 * small || await size() > 340, `${await size()} px at full size, ${small} before`);
  const key = await field.locator("label .key span").evaluateAll(all => all.filter(s => s.checkVisibility() && s.textContent).length);
  assert.ok(key >= 1, "no colour key at full size");
  await field.locator("input").press("Space");
  assert.equal(await size(), small);
}

async function paper(page, name) {
  await page.emulateMedia({media: "print"});
  const {ink, paper, rule, labels, plots} = await page.evaluate(() => ({
    rule: getComputedStyle(document.documentElement).getPropertyValue("--rule"),
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
    labels: [...document.querySelectorAll(".picker > label")].filter(l => l.checkVisibility()).length,
    plots: [...document.querySelectorAll("svg")].filter(s => s.checkVisibility()).length,
  }));
  // Whatever the screen's colours are.
  assert.deepEqual([ink, paper, rule, labels], ["rgb(0, 0, 0)", "rgb(255, 255, 255)", "#bbb", 0]);
  assert.ok(plots >= 5, `${plots} figures on paper`);
  await page.screenshot({path: `${folder}/${name}-print.png`, fullPage: true});
  await page.emulateMedia({media: "screen"});
}

async function cohort(width, colorScheme) {
  const {page, done} = await open(index, {width, colorScheme});
  const rows = await page.locator("table.sortable tbody tr").count();
  assert.ok(rows >= 3, `${rows} slides`);
  const heads = await page.$$eval("table.sortable th", all => all.map(th => th.textContent));
  const keys = at => page.$$eval("table.sortable tbody tr", (all, at) => all.map(row => row.cells[at].dataset.sort), at);
  const at = heads.findIndex(head => head.startsWith("nuclei"));
  const before = await keys(at);
  const rising = [...before].sort((a, b) => a - b);
  assert.ok(new Set(before).size > 1, "slides that cannot be told apart");
  const button = page.locator("table.sortable th button").nth(at);
  await button.click();
  assert.deepEqual(await keys(at), rising);
  assert.equal(await page.locator("table.sortable th").nth(at).getAttribute("aria-sort"), "ascending");
  await button.press("Enter");
  assert.deepEqual(await keys(at), rising.reverse());
  for (const link of await links(page)) assert.ok(existsSync(fileURLToPath(link)), `${link} leads nowhere`);
  const narrow = await page.$$eval("svg", all => all.filter(svg => svg.getBoundingClientRect().height < 40).length);
  assert.equal(narrow, 0, "flat figures");
  await page.screenshot({path: `${folder}/cohort-${width}-${colorScheme}.png`, fullPage: true});
  await done();
}

async function withoutScript() {
  const {page, done} = await open(index, {width: 1280, javaScriptEnabled: false});
  assert.ok(await page.locator("table.sortable tbody tr").count() >= 3);
  assert.ok((await links(page)).length >= 3);
  await done();
}

function links(page) {
  return page.$$eval("a[href]", all => all.map(a => a.href));
}
