// Scenes in three dimensions, drawn by 3Dmol.js: layers of conformations, superposed.
"use strict";

(function () {
  const data = JSON.parse(document.getElementById("ensembles").textContent);
  const place = document.getElementById("viewer");
  const [chooser, shown, style, legend] = ["target", "shown", "style", "legend"].map((name) =>
    document.getElementById(`viewer-${name}`)
  );
  const names = { stick: "sticks", cartoon: "cartoon", trace: "C-alpha trace" };
  const hidden = new Set();
  let [viewer, target, home] = [null, null, null];
  try {
    viewer = $3Dmol.createViewer(place, { backgroundColor: "white" });
  } catch {
    place.textContent = "This view needs WebGL, which this browser does not have or has disabled.";
    return;
  }

  // Coordinates travel as 16-bit hundredths of an angstrom, little endian.
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 100);
  }

  // The lines of a PDB file, from which 3Dmol.js finds bonds and secondary structure.
  function lines(atoms, xyz, start) {
    const number = (i) => xyz[start + i].toFixed(3).padStart(8);
    return atoms.map((line, i) => line + number(3 * i) + number(3 * i + 1) + number(3 * i + 2));
  }

  function load(index) {
    target = data.targets[index];
    viewer.removeAllModels();
    for (const layer of target.layers) {
      const xyz = decode(layer.packed);
      const step = 3 * target.atoms.length;
      layer.models = Array.from({ length: layer.frames }, (_, frame) =>
        viewer.addModel(lines(target.atoms, xyz, step * frame).join("\n"), "pdb")
      );
    }
    fill(style, target.styles, (name) => new Option(names[name], name));
    fill(shown, [["all superposed", ""], ...target.choices], ([text, value]) => new Option(text, value));
    showLegend();
    draw();
    fit();
    place.dataset.painted = target.name;
  }

  // The first view is face on, about the middle of all, and fills the place.
  function fit() {
    viewer.zoomTo();
    const view = viewer.getView();
    viewer.setView([0, 0, 0, ...view.slice(3)]);
    const [low, high] = [{ x: Infinity, y: Infinity }, { x: -Infinity, y: -Infinity }];
    for (const point of viewer.modelToScreen(viewer.selectedAtoms({})))
      for (const axis of ["x", "y"]) {
        low[axis] = Math.min(low[axis], point[axis]);
        high[axis] = Math.max(high[axis], point[axis]);
      }
    const [width, height] = [place.clientWidth, place.clientHeight];
    viewer.zoom(0.9 * Math.min(width / (high.x - low.x), height / (high.y - low.y)));
    home = viewer.getView();
  }

  function fill(select, items, option) {
    select.replaceChildren(...items.map(option));
  }

  function showLegend() {
    const labels = target.layers.map((layer) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = !hidden.has(layer.label);
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(layer.label);
        else hidden.add(layer.label);
        draw();
      });
      swatch.className = "swatch";
      swatch.style.background = layer.colour;
      label.append(box, swatch, ` ${layer.label} (${layer.frames})`);
      return label;
    });
    legend.replaceChildren(...labels);
  }

  // A conformation that stands out is thick, in sticks with red oxygen and so on; others are thin.
  function drawn(color, thick) {
    if (style.value === "cartoon") return { cartoon: { color, thickness: thick ? 0.5 : 0.2 } };
    if (style.value === "trace") return {};
    if (!thick) return { stick: { color, radius: 0.06 } };
    const map = { C: color, N: "#3050f8", O: "#e02020", S: "#c8a000" };
    return { stick: { radius: 0.18, colorscheme: { prop: "elem", map } } };
  }

  // 3Dmol.js' own trace leaves out what is more than 4 angstrom apart, as whole chains may be.
  function trace(model, color, thick) {
    let points = [];
    const finish = () => {
      const radius = thick ? 0.25 : 0.1;
      if (points.length > 1) viewer.addCurve({ points, radius, color });
      points = [];
    };
    for (const { x, y, z, chain } of model.selectedAtoms({ atom: "CA" })) {
      const last = points[points.length - 1];
      if (last && (last.chain !== chain || Math.hypot(x - last.x, y - last.y, z - last.z) > 4.5))
        finish();
      points.push({ x, y, z, chain });
    }
    finish();
  }

  function draw() {
    viewer.removeAllShapes();
    const [single, frame] = shown.value ? shown.value.split(" ").map(Number) : [null, null];
    let count = 0;
    target.layers.forEach(({ label, colour, stays, thick, models }, i) => {
      models.forEach((model, j) => {
        const chosen = i === single && j === frame;
        const visible = chosen || (!hidden.has(label) && (single === null || stays));
        if (visible) count += 1;
        model.setStyle({}, visible ? drawn(colour, chosen || thick) : {});
        if (visible && style.value === "trace") trace(model, colour, chosen || thick);
      });
    });
    viewer.render();
    place.dataset.conformations = count;
  }

  shown.addEventListener("change", draw);
  style.addEventListener("change", draw);
  place.addEventListener("dblclick", () => viewer.setView(home));
  fill(chooser, data.targets, (item, i) => new Option(item.name, i));
  chooser.addEventListener("change", () => load(Number(chooser.value)));
  load(0);
})();
