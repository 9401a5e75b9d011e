"use strict";
// Draws what the server sent over the slide. In: an answer of /nuclei.json, colours, and how level-0 px lie on the
// canvas. Out: pixels. Asks nothing.

const draw = (() => {
  const POINT_PX = 3, LINE_PX = 1.8;
  // Pale, below lines and points: blue on violet would be lost.
  const RIM = "rgba(255, 255, 255, 0.6)", RIM_PX = 0.8;
  const SOFTEST = 0.15, STRONGEST = 0.8;

  // place: {x, y, scale}: where level-0 (0, 0) lies, CSS px, and CSS px a level-0 px.
  function nuclei(context, answer, colours, place) {
    const colour = type => colours.get(type) || "rgb(0, 230, 0)";
    if (answer.detail === "outlines") outlines(context, answer.nuclei, colour, place);
    if (answer.detail === "points") points(context, answer.points, colour, place);
    if (answer.detail === "density") density(context, answer, colour, place);
  }

  // One path a type: a stroke costs more than its points.
  function byType(items, typeOf) {
    const groups = new Map();
    for (const item of items) {
      const type = typeOf(item);
      if (!groups.has(type)) groups.set(type, []);
      groups.get(type).push(item);
    }
    return groups;
  }

  function ring(path, flat, place) {
    for (let i = 0; i < flat.length; i += 2) {
      const x = place.x + flat[i] * place.scale, y = place.y + flat[i + 1] * place.scale;
      if (i === 0) path.moveTo(x, y); else path.lineTo(x, y);
    }
    path.closePath();
  }

  function outlines(context, all, colour, place) {
    context.lineJoin = "round";
    for (const [type, group] of byType(all, nucleus => nucleus[0])) {
      const path = new Path2D();
      for (const nucleus of group) for (const flat of nucleus.slice(1)) ring(path, flat, place);
      for (const [width, stroke] of [[LINE_PX + 2 * RIM_PX, RIM], [LINE_PX, colour(type)]]) {
        context.lineWidth = width;
        context.strokeStyle = stroke;
        context.stroke(path);
      }
    }
  }

  function points(context, all, colour, place) {
    const dots = (group, side) => {
      for (const [x, y] of group) {
        context.fillRect(place.x + x * place.scale - side / 2, place.y + y * place.scale - side / 2, side, side);
      }
    };
    context.fillStyle = RIM;
    dots(all, POINT_PX + 2 * RIM_PX);
    for (const [type, group] of byType(all, point => point[2])) {
      context.fillStyle = colour(type);
      dots(group, POINT_PX);
    }
  }

  // The more nuclei, the stronger the colour of the most frequent type.
  function density(context, answer, colour, place) {
    const most = answer.cells.reduce((n, cell) => Math.max(n, cell[2]), 1);
    const side = answer.cell * place.scale;
    const alpha = context.globalAlpha;
    for (const [column, row, count, type] of answer.cells) {
      context.globalAlpha = alpha * (SOFTEST + (STRONGEST - SOFTEST) * Math.sqrt(count / most));
      context.fillStyle = colour(type);
      context.fillRect(place.x + column * side, place.y + row * side, side + 0.5, side + 0.5);
    }
    context.globalAlpha = alpha;
  }

  // The nucleus that was clicked: dark and light, seen on every ground.
  function chosen(context, outline, place) {
    const path = new Path2D();
    for (const flat of outline.slice(1)) ring(path, flat, place);
    context.lineJoin = "round";
    for (const [width, colour] of [[6, "#000"], [3, "#ffe600"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }

  // A nucleus that was corrected, in its right colour; without one it is none, and struck through.
  function mark(context, rings, colour, place) {
    const path = new Path2D();
    for (const flat of rings) ring(path, flat, place);
    if (!colour) {
      const [x0, y0, x1, y1] = extent(rings);
      const at = (x, y) => [place.x + x * place.scale, place.y + y * place.scale];
      path.moveTo(...at(x0, y0)); path.lineTo(...at(x1, y1));
      path.moveTo(...at(x0, y1)); path.lineTo(...at(x1, y0));
    }
    context.lineJoin = "round";
    for (const [width, stroke] of [[5, "#fff"], [3, colour || "#c00"]]) {
      context.lineWidth = width;
      context.strokeStyle = stroke;
      context.stroke(path);
    }
  }

  // Left, top, right and bottom of rings, level-0 px.
  function extent(rings) {
    const all = [Infinity, Infinity, -Infinity, -Infinity];
    for (const ring of rings) for (let i = 0; i < ring.length; i += 2) {
      all[0] = Math.min(all[0], ring[i]); all[1] = Math.min(all[1], ring[i + 1]);
      all[2] = Math.max(all[2], ring[i]); all[3] = Math.max(all[3], ring[i + 1]);
    }
    return all;
  }

  return {nuclei, chosen, mark, extent};
})();
