"use strict";
// Marks on nuclei: none, of another type, missed. In: the nucleus that is chosen, and outlines drawn by hand. Out: marks
// over the slide, kept in this browser until they are undone, and what is in view sent to be saved. Changes no result.

const correct = (() => {
  const $ = id => document.getElementById(id);
  // Closer points of a drawn line say nothing; a shorter line is a slip of the hand. Screen px.
  const STEP_PX = 1.5, LEAST_SIDE_PX = 4;
  const PLAIN = "Save when every nucleus in view is right, marked or not: also what was missed is learnt.";

  // page: {viewer, about, colours, place, box, paint, chosen}, functions of the page that this one needs.
  let page, key;
  // In the order they were made: {id, was, type, outline}; type null: no nucleus; id null: drawn by hand.
  let marks = [];
  // The line being drawn, level-0 px, flat; null while none is.
  let line = null;

  function start(of) {
    page = of;
    const {about} = page;
    key = `wsi-nuclei ${about.stem} ${about.count} ${about.size}`;
    try { marks = JSON.parse(localStorage.getItem(key)) || []; } catch { marks = []; }
    for (const type of about.model_types) $("right-type").append(new Option(type.name, type.id));
    for (const id of ["right-type-row", "type-keys"]) $(id).hidden = about.model_types.length === 0;
    $("correct").hidden = !about.has_slide;
    $("no-nucleus").onclick = () => mark(null);
    $("set-type").onclick = () => mark(rightType());
    $("undo").onclick = undo;
    $("outline").onclick = () => drawing(!isDrawing());
    $("save").onclick = () => save().catch(error => { $("saved").textContent = error.message; });
    page.viewer.addHandler("canvas-key", onKey);
    for (const event of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      page.viewer.canvas.addEventListener(event, onPointer, true);
    }
    $("saved").textContent = PLAIN;
    changed();
  }

  const rightType = () => $("right-type").value === "" ? null : Number($("right-type").value);
  const isDrawing = () => $("outline").getAttribute("aria-pressed") === "true";

  function changed() {
    try { localStorage.setItem(key, JSON.stringify(marks)); } catch { /* Then they last as long as the page. */ }
    const count = kind => marks.filter(kind).length;
    const parts = [
      [count(m => m.id !== null && m.type === null), "no nucleus"],
      [count(m => m.id !== null && m.type !== null), "of another type"],
      [count(m => m.id === null), "drawn"],
    ].filter(([n]) => n > 0).map(([n, words]) => `${n} ${words}`);
    $("marks").textContent = parts.length ? `Marked: ${parts.join(", ")}` : "Nothing is marked.";
    $("undo").disabled = marks.length === 0;
    page.paint();
  }

  function undo() {
    marks.pop();
    changed();
  }

  // Marks the chosen nucleus; the type it has already takes its mark away.
  function mark(type) {
    const nucleus = page.chosen();
    if (!nucleus) {
      $("saved").textContent = "Choose a nucleus first: click it.";
      return;
    }
    marks = marks.filter(m => m.id !== nucleus.id);
    const [was, ...outline] = nucleus.outline;
    if (type === null || type !== was) marks.push({id: nucleus.id, was, type, outline});
    $("saved").textContent = PLAIN;
    changed();
  }

  function onKey(event) {
    const code = event.originalEvent.code;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code);
    const type = digit && page.about.model_types[digit[1] - 1];
    if (code === "KeyX") mark(null);
    else if (code === "KeyU") undo();
    else if (code === "KeyN") drawing(!isDrawing());
    else if (type) {
      $("right-type").value = type.id;
      // While outlines are drawn a digit says what they are.
      if (!isDrawing()) mark(type.id);
    } else return;
    event.preventDefaultAction = true;
  }

  // --- drawing

  function drawing(on) {
    $("outline").setAttribute("aria-pressed", String(on));
    page.viewer.setMouseNavEnabled(!on);
    page.viewer.canvas.style.cursor = on ? "crosshair" : "";
    line = null;
    page.paint();
  }

  function onPointer(event) {
    if (!isDrawing() || !event.isPrimary) return;
    event.preventDefault();
    event.stopPropagation();
    const rim = page.viewer.canvas.getBoundingClientRect(), at = page.place();
    const point = [(event.clientX - rim.left - at.x) / at.scale, (event.clientY - rim.top - at.y) / at.scale];
    if (event.type === "pointerdown") {
      line = point;
      page.viewer.canvas.setPointerCapture(event.pointerId);
    } else if (line && event.type === "pointermove") {
      const [x, y] = line.slice(-2);
      if (Math.hypot(point[0] - x, point[1] - y) * at.scale >= STEP_PX) line.push(...point);
    } else if (line) {
      finish(event.type === "pointerup" ? line : [], at.scale);
      line = null;
    }
    page.paint();
  }

  function finish(drawn, scale) {
    const [x0, y0, x1, y1] = draw.extent([drawn]);
    if (drawn.length < 6 || Math.min(x1 - x0, y1 - y0) * scale < LEAST_SIDE_PX) return;
    marks.push({id: null, was: null, type: rightType(), outline: [drawn.map(v => Number(v.toFixed(2)))]});
    changed();
  }

  // --- saving

  async function save() {
    if (document.body.dataset.detail !== "outlines") {
      $("saved").textContent = "Come closer, until outlines are drawn: only what was looked at can be right.";
      return;
    }
    const view = page.box(0), box = [view.x0, view.y0, view.x1, view.y1].map(Number);
    const here = marks.filter(m => {
      const [x0, y0, x1, y1] = draw.extent(m.outline);
      return x0 < box[2] && x1 > box[0] && y0 < box[3] && y1 > box[1];
    });
    const pairs = ring => Array.from({length: ring.length / 2}, (_, i) => ring.slice(2 * i, 2 * i + 2));
    const found = here.filter(m => m.id !== null);
    const body = {
      box,
      wrong: found.filter(m => m.type === null).map(m => m.id),
      types: Object.fromEntries(found.filter(m => m.type !== null).map(m => [m.id, m.type])),
      drawn: here.filter(m => m.id === null).map(m => ({type: m.type, ring: pairs(m.outline[0])})),
    };
    const headers = {"Content-Type": "application/json"};
    const response = await fetch("/correct", {method: "POST", headers, body: JSON.stringify(body)});
    if (!response.ok) throw new Error(await response.text());
    const done = await response.json();
    const command = `wsi-nuclei train --data '${done.folder}' --mpp ${done.mpp} --from ${done.model} -o my-model`;
    $("saved").replaceChildren(`Saved ${done.picture} with ${done.nuclei} nuclei, ${here.length} of them marked. Learn from all that is saved: `);
    $("saved").append(Object.assign(document.createElement("code"), {textContent: command}));
  }

  // Marks, and the line being drawn, over the nuclei.
  function paint(context, at) {
    if (!page) return;
    for (const m of marks) {
      const colour = m.id !== null && m.type === null ? null : page.colours.get(m.type) || "rgb(0, 230, 0)";
      draw.mark(context, m.outline, colour, at);
    }
    if (line) draw.mark(context, [line], page.colours.get(rightType()) || "rgb(0, 230, 0)", at);
  }

  return {start, paint};
})();
