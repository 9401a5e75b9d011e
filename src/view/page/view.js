"use strict";
// The page: slide, filter, selection. In: about.json once, then small answers for what is in view. Never holds more
// nuclei than are drawn.

(() => {
  const $ = id => document.getElementById(id);
  const number = n => n.toLocaleString("en");
  // Beyond the rim of the window, so that a short move shows no gap: share of its width and height.
  const MARGIN = 0.2;
  const WAIT_MS = 60, TYPING_MS = 200;
  // How far a click may miss, screen px.
  const REACH_PX = 6;
  const WORDS = {
    outlines: "outlines", points: "points: closer for outlines",
    density: "density, colour of the most frequent type: closer for nuclei",
  };

  let about, viewer, canvas, context;
  let colours = new Map();
  let answer = null, chosen = null;
  const layer = {canvas: document.createElement("canvas")};
  // One question at a time: what moved meanwhile is asked for when the answer is there.
  let asking = false, moved = false, timer = 0;

  async function get(path) {
    const response = await fetch(path);
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  function say(error) {
    $("notes").hidden = false;
    $("notes").textContent = `The server does not answer as it should: ${error.message}. Is it still running?`;
  }

  // --- the slide

  function openSlide() {
    viewer = OpenSeadragon({
      element: $("viewer"), drawer: "canvas", showNavigationControl: false, showNavigator: false,
      tabIndex: 0, maxZoomPixelRatio: 8, visibilityRatio: 0.3, animationTime: 0.4, springStiffness: 10,
      gestureSettingsMouse: {clickToZoom: false, dblClickToZoom: true},
      tileSources: {
        width: about.size[0], height: about.size[1], tileSize: about.tile, tileOverlap: 0,
        minLevel: 0, maxLevel: about.max_level,
        getTileUrl: (level, x, y) => `/tile/${level}/${x}_${y}.jpg`,
      },
    });
    viewer.canvas.setAttribute("aria-label", "Slide: arrows move, plus and minus zoom, 0 shows it whole");
    canvas = document.createElement("canvas");
    canvas.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
    canvas.setAttribute("aria-hidden", "true");
    viewer.canvas.appendChild(canvas);
    context = canvas.getContext("2d");
    viewer.addHandler("open", refresh);
    viewer.addHandler("update-viewport", paint);
    viewer.addHandler("animation", () => later(WAIT_MS));
    viewer.addHandler("animation-finish", refresh);
    viewer.addHandler("resize", () => later(WAIT_MS));
    // Rotating (r) and mirroring (f) would part the nuclei from the slide.
    viewer.addHandler("canvas-key", event => {
      event.preventDefaultAction = ["KeyR", "KeyF"].includes(event.originalEvent.code);
    });
    viewer.addHandler("canvas-click", event => { if (event.quick) choose(event.position); });
    $("in").onclick = () => zoom(1.6);
    $("out").onclick = () => zoom(1 / 1.6);
    $("home").onclick = () => viewer.viewport.goHome();
  }

  function zoom(by) {
    viewer.viewport.zoomBy(by);
    viewer.viewport.applyConstraints();
  }

  // Where level-0 (0, 0) lies on the canvas, CSS px, and CSS px a level-0 px.
  function place() {
    const on = (x, y) => viewer.viewport.pixelFromPoint(
      viewer.viewport.imageToViewportCoordinates(new OpenSeadragon.Point(x, y)), true);
    const zero = on(0, 0), far = on(about.size[0], 0);
    return {x: zero.x, y: zero.y, scale: (far.x - zero.x) / about.size[0]};
  }

  function paint() {
    if (!viewer.viewport || !viewer.world.getItemCount()) return;
    const [w, h] = [viewer.canvas.clientWidth, viewer.canvas.clientHeight];
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    const at = place();
    if (answer) paintNuclei(at, w, h, ratio);
    correct.paint(context, at);
    if (chosen) draw.chosen(context, chosen.outline, at);
    scaleBar(at.scale);
  }

  // Nuclei are drawn when they come, once; until others come a move shifts and stretches that picture, because some
  // thousand outlines take longer than a frame. w, h: CSS px of the slide; ratio: screen px a CSS px.
  function paintNuclei(at, w, h, ratio) {
    const [mx, my] = [w, h].map(side => Math.round(MARGIN * side));
    const now = {answer, w, h, ratio, opacity: Number($("opacity").value)};
    if (Object.entries(now).some(([name, value]) => layer[name] !== value)) {
      layer.canvas.width = Math.round((w + 2 * mx) * ratio);
      layer.canvas.height = Math.round((h + 2 * my) * ratio);
      const on = layer.canvas.getContext("2d");
      on.setTransform(ratio, 0, 0, ratio, mx * ratio, my * ratio);
      on.globalAlpha = now.opacity;
      draw.nuclei(on, answer, colours, at);
      Object.assign(layer, now, {at});
    }
    const grown = at.scale / layer.at.scale;
    const [x, y] = [at.x - (layer.at.x + mx) * grown, at.y - (layer.at.y + my) * grown];
    context.drawImage(layer.canvas, x, y, (w + 2 * mx) * grown, (h + 2 * my) * grown);
  }

  function scaleBar(scale) {
    $("scale").hidden = !about.mpp;
    if (!about.mpp) return;
    const um = about.mpp[0] / scale * 100;
    const power = 10 ** Math.floor(Math.log10(um));
    const round = [5, 2, 1].map(n => n * power).find(n => n <= um);
    $("scale-bar").style.width = `${round * scale / about.mpp[0]}px`;
    $("scale-text").textContent = round >= 1000 ? `${round / 1000} mm` : `${round} µm`;
  }

  // --- what is in view

  function box(margin) {
    const at = place();
    const [w, h] = [viewer.canvas.clientWidth, viewer.canvas.clientHeight];
    const side = (value, origin) => ((value - origin) / at.scale).toFixed(1);
    return {
      x0: side(-margin * w, at.x), y0: side(-margin * h, at.y),
      x1: side((1 + margin) * w, at.x), y1: side((1 + margin) * h, at.y), scale: 1 / at.scale,
    };
  }

  function later(ms) {
    if (!timer) timer = setTimeout(refresh, ms);
  }

  async function refresh() {
    clearTimeout(timer);
    timer = 0;
    if (!viewer.world.getItemCount()) return;
    moved = asking;
    if (asking) return;
    asking = true;
    const query = filter();
    for (const [name, value] of Object.entries(box(MARGIN))) query.append(name, value);
    try {
      answer = await get(`/nuclei.json?${query}`);
      $("detail").textContent = WORDS[answer.detail];
      document.body.dataset.detail = answer.detail;
      paint();
    } catch (error) { say(error); }
    asking = false;
    if (moved) refresh();
  }

  // --- the filter

  function filter() {
    const query = new URLSearchParams();
    const boxes = [...document.querySelectorAll("#types input")];
    if (boxes.some(box => !box.checked)) {
      query.append("types", boxes.filter(box => box.checked).map(box => box.value).join(","));
    }
    const range = (name, least, greatest) => {
      if (least.value !== "" || greatest.value !== "") {
        query.append("range", `${name}:${least.value}:${greatest.value}`);
      }
    };
    range("type_prob", $("prob-least"), $("prob-greatest"));
    range($("column").value, $("least"), $("greatest"));
    return query;
  }

  async function changed() {
    exportLink();
    refresh();
    const query = filter();
    try {
      const counts = await get(`/counts.json?${query}`);
      if (query.toString() !== filter().toString()) return;
      $("count").textContent = `${number(counts.count)} of ${number(about.count)} nuclei`;
      for (const [id, n] of counts.types) $(`n-${id}`).textContent = number(n);
    } catch (error) { say(error); }
  }

  function exportLink() {
    const query = filter();
    if ($("only-view").checked && viewer.world.getItemCount()) {
      for (const [name, value] of Object.entries(box(0))) query.append(name, value);
    }
    $("export").href = `/selection.csv?${query}`;
  }

  function columnRange() {
    const column = about.columns.find(c => c.name === $("column").value);
    const short = v => Number(v.toPrecision(5));
    $("range").textContent = column ? `here ${short(column.least)} to ${short(column.greatest)}` : "";
  }

  // --- one nucleus

  async function choose(position) {
    const at = place();
    const query = filter();
    query.append("x", (position.x - at.x) / at.scale);
    query.append("y", (position.y - at.y) / at.scale);
    query.append("reach", REACH_PX / at.scale);
    try {
      show(await get(`/nucleus.json?${query}`), "No nucleus there.");
    } catch (error) { say(error); }
  }

  async function goTo(event) {
    event.preventDefault();
    try {
      const nucleus = await get(`/nucleus.json?id=${encodeURIComponent($("id").value)}`);
      show(nucleus, "No nucleus has this id.");
      if (!nucleus) return;
      const centre = viewer.viewport.imageToViewportCoordinates(...nucleus.centroid);
      viewer.viewport.panTo(centre).zoomTo(viewer.viewport.imageToViewportZoom(2));
      viewer.viewport.applyConstraints();
    } catch (error) { say(error); }
  }

  function show(nucleus, nothing) {
    const id = nucleus ? Number(nucleus.row.find(([name]) => name === "id")[1]) : null;
    chosen = nucleus ? {id, outline: nucleus.outline} : null;
    $("row").hidden = !nucleus;
    $("nucleus-hint").textContent = nucleus ? "" : nothing;
    const lines = nucleus ? nucleus.row : [];
    $("row").tBodies[0].replaceChildren(...lines.map(([name, value]) => {
      const line = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      line.append(head);
      line.insertCell().textContent = value === "" ? "–" : value;
      return line;
    }));
    if (nucleus) {
      $("id").value = id;
      // Beside the slide, not below it: there it would push the slide away.
      if (matchMedia("(min-width: 761px)").matches) $(about.has_slide ? "correct-title" : "nucleus-title").scrollIntoView();
    }
    paint();
  }

  // --- the start

  function typeBoxes() {
    for (const type of about.model_types) colours.set(type.id, `rgb(${type.color.join(", ")})`);
    for (const type of about.types) {
      const id = type.id === null ? "none" : String(type.id);
      const colour = `rgb(${type.color.join(", ")})`;
      colours.set(type.id, colour);
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), {type: "checkbox", checked: true, value: id});
      box.defaultChecked = true;
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      const count = Object.assign(document.createElement("output"), {id: `n-${type.id}`});
      label.append(box, swatch, type.name, count);
      $("types").append(label);
    }
  }

  function columnChoice() {
    for (const column of about.columns) $("column").append(new Option(column.name, column.name));
    if (about.columns.some(c => c.name === "area_um2")) $("column").value = "area_um2";
    const typed = about.columns.some(c => c.name === "type_prob");
    $("prob-least").disabled = $("prob-greatest").disabled = !typed;
    columnRange();
  }

  async function start() {
    about = await get("/about.json");
    document.title = `${about.stem}: nuclei`;
    $("stem").textContent = about.stem;
    $("notes").hidden = about.notes.length === 0;
    $("notes").textContent = about.notes.join(" ");
    typeBoxes();
    columnChoice();
    openSlide();
    correct.start({viewer, about, colours, place, box, paint, chosen: () => chosen});
    let typing = 0;
    $("filter").addEventListener("input", event => {
      if (event.target.id === "opacity") return paint();
      columnRange();
      clearTimeout(typing);
      typing = setTimeout(changed, TYPING_MS);
    });
    $("filter").addEventListener("submit", event => event.preventDefault());
    // After the fields have their first values again.
    $("filter").addEventListener("reset", () => setTimeout(() => {
      if (about.columns.some(c => c.name === "area_um2")) $("column").value = "area_um2";
      columnRange();
      changed();
      paint();
    }));
    for (const event of ["pointerdown", "focus"]) $("export").addEventListener(event, exportLink);
    $("only-view").addEventListener("change", exportLink);
    $("go").addEventListener("submit", goTo);
    changed();
  }

  document.addEventListener("DOMContentLoaded", () => start().catch(say));
})();
