// Ensembles in three dimensions: C-alpha traces of MD frames and samples, superposed.
// Drag turns, the wheel or two fingers zoom, a double click resets. Needs nothing but a canvas.
"use strict";

(function () {
  const data = JSON.parse(document.getElementById("ensembles").textContent);
  const canvas = document.getElementById("viewer");
  if (!canvas || !data.targets.length) return;
  const context = canvas.getContext("2d");
  const chooser = document.getElementById("viewer-target");
  const legend = document.getElementById("viewer-legend");
  const hidden = new Set();
  let target = null;
  let turn = identity();
  let zoom = 1;
  let queued = false;

  function identity() {
    return [1, 0, 0, 0, 1, 0, 0, 0, 1];
  }

  function multiply(a, b) {
    const c = new Array(9).fill(0);
    for (let i = 0; i < 3; i++)
      for (let j = 0; j < 3; j++)
        for (let k = 0; k < 3; k++) c[3 * i + j] += a[3 * i + k] * b[3 * k + j];
    return c;
  }

  function rotation(dx, dy) {
    const [cx, sx, cy, sy] = [Math.cos(dy), Math.sin(dy), Math.cos(dx), Math.sin(dx)];
    return multiply([1, 0, 0, 0, cx, -sx, 0, sx, cx], [cy, 0, sy, 0, 1, 0, -sy, 0, cy]);
  }

  // Coordinates travel as 16-bit hundredths of an angstrom, little endian.
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 100);
  }

  function choose(index) {
    target = data.targets[index];
    for (const group of target.groups) group.xyz = group.xyz || decode(group.packed);
    target.breaks = new Set(target.chain_starts);
    target.reach = [1, 1, 1];
    for (const group of target.groups)
      group.xyz.forEach((value, i) => {
        target.reach[i % 3] = Math.max(target.reach[i % 3], Math.abs(value));
      });
    target.radius = Math.max(...target.reach);
    turn = identity();
    zoom = 1;
    showLegend();
    draw();
  }

  function showLegend() {
    legend.replaceChildren();
    for (const group of target.groups) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = !hidden.has(group.label);
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(group.label);
        else hidden.add(group.label);
        draw();
      });
      swatch.className = "swatch";
      swatch.style.background = group.colour;
      label.append(box, swatch, ` ${group.label} (${group.frames})`);
      legend.append(label);
    }
  }

  // [x, y, depth] of each atom of a frame on the screen.
  function project(xyz, start, length, scale, width, height) {
    const out = new Float32Array(3 * length);
    for (let i = 0; i < length; i++) {
      const [x, y, z] = [xyz[start + 3 * i], xyz[start + 3 * i + 1], xyz[start + 3 * i + 2]];
      out[3 * i] = width / 2 + scale * (turn[0] * x + turn[1] * y + turn[2] * z);
      out[3 * i + 1] = height / 2 - scale * (turn[3] * x + turn[4] * y + turn[5] * z);
      out[3 * i + 2] = turn[6] * x + turn[7] * y + turn[8] * z;
    }
    return out;
  }

  function segments(scale, width, height) {
    const found = [];
    const n = target.length;
    for (const group of target.groups) {
      if (hidden.has(group.label)) continue;
      for (let frame = 0; frame < group.frames; frame++) {
        const p = project(group.xyz, 3 * n * frame, n, scale, width, height);
        for (let i = 1; i < n; i++) {
          if (target.breaks.has(i)) continue;
          const depth = (p[3 * i - 1] + p[3 * i + 2]) / 2;
          found.push([depth, p[3 * i - 3], p[3 * i - 2], p[3 * i], p[3 * i + 1], group.colour]);
        }
      }
    }
    return found.sort((a, b) => a[0] - b[0]);
  }

  function paint() {
    queued = false;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, width, height);
    context.lineCap = "round";
    // The first view fills the canvas.
    const [reachX, reachY] = target.reach;
    const scale = 0.46 * zoom * Math.min(width / reachX, height / reachY);
    for (const [depth, x0, y0, x1, y1, colour] of segments(scale, width, height)) {
      // What lies behind fades and thins.
      const near = Math.min(Math.max(0.5 + depth / (2 * target.radius), 0), 1);
      context.globalAlpha = 0.15 + 0.65 * near;
      context.lineWidth = 1 + 2 * near;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
    }
    context.globalAlpha = 1;
    canvas.dataset.painted = target.name;
  }

  function draw() {
    if (queued) return;
    queued = true;
    window.requestAnimationFrame(paint);
  }

  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    if (pointers.size === 1) turn = multiply(rotation(dx / 150, dy / 150), turn);
    else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      zoom *= span([event.clientX, event.clientY]) / span(before);
    }
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    draw();
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom = Math.min(Math.max(zoom * Math.exp(-event.deltaY / 600), 0.2), 20);
      draw();
    },
    { passive: false }
  );
  canvas.addEventListener("dblclick", () => {
    turn = identity();
    zoom = 1;
    draw();
  });
  window.addEventListener("resize", draw);
  data.targets.forEach((item, i) => chooser.add(new Option(item.name, i)));
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  choose(0);
})();
