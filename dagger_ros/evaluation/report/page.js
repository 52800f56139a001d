"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const dialog = byId("rollout"), slider = byId("tick"), plots = byId("plots");
  const UNKNOWN = 65535, LARGEST = 65534; // of the numbers in a trace
  const HEIGHT = 112, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 18; // of a plot, pixels
  let shown = null; // {id, rollout, plots}: what the dialog shows
  let playing = 0;

  const plain = (name) => name.replaceAll("_", " ");
  const number = (value) => Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace("-", "\u2212") : "?";
  const percent = (share) => `${Math.round(100 * share)} %`;
  const seconds = (tick) => `${(tick * page.period_s).toFixed(2)} s`;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // ---- what a rollout holds

  function curvesOf(trace) {
    const bytes = Uint8Array.from(atob(trace.values), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return trace.channels.map((channel, i) => {
      const [low, high] = trace.ranges[i];
      const values = Array.from({length: trace.points}, (_, k) => {
        const step = view.getUint16(2 * (i * trace.points + k), true);
        return step === UNKNOWN ? NaN : low + (high - low) * step / LARGEST;
      });
      return {...page.channels[channel], values};
    });
  }

  function spansByReason(trace) {
    const found = new Map();
    for (const [words, from, to] of trace.reasons) {
      for (const name of words.split("|")) {
        const spans = found.get(name) ?? [];
        const last = spans.at(-1);
        if (last && last[1] === from) last[1] = to; else spans.push([from, to]);
        found.set(name, spans);
      }
    }
    return found;
  }

  // ---- plots

  function roundSteps(low, high, most) {
    const raw = (high - low) / most || 1;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999);
    const steps = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) steps.push(v);
    return steps;
  }

  function makePlot(title, unit, lines, rollout, width) {
    const last = rollout.ticks, bounds = page.bounds[title];
    const known = lines.flatMap((line) => line.values).filter(Number.isFinite).concat(bounds ?? []);
    let low = Math.min(...known), high = Math.max(...known);
    const room = 0.06 * (high - low) || 1;
    low -= room;
    high += room;
    const x = (tick) => LEFT + (width - LEFT - RIGHT) * tick / last;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    const svg = frame(title, x, last, width);
    for (const value of roundSteps(low, high, 3)) {
      svg.append(drawn("path", {class: "axis", d: `M${LEFT} ${y(value)}H${width - RIGHT}`}));
      svg.append(drawn("text", {x: LEFT - 5, y: y(value) + 4, "text-anchor": "end"}, number(value)));
    }
    for (const bound of bounds ?? []) svg.append(drawn("path", {class: "bound", d: `M${LEFT} ${y(bound)}H${width - RIGHT}`}));
    const stride = rollout.trace.stride;
    lines.forEach((line, i) => {
      let path = "", pen = "M";
      line.values.forEach((value, k) => {
        if (Number.isFinite(value)) path += `${pen}${x(k * stride).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = Number.isFinite(value) ? "L" : "M";
      });
      if (line.values.length === 1) path += "h3";
      svg.append(drawn("path", {class: `curve d${i % 4}`, d: path}));
    });
    return finish(title, unit, svg, x, lines, rollout);
  }

  function makeDriver(rollout, width) {
    const last = rollout.ticks;
    const x = (tick) => LEFT + (width - LEFT - RIGHT) * tick / last;
    const svg = frame("who drives", x, last, width);
    for (const [mode, from, to] of rollout.trace.modes) {
      svg.append(drawn("rect", {class: `driver ${mode}`, x: x(from), y: TOP + 6, width: x(to) - x(from), height: 34}));
      if (x(to) - x(from) > 9 * mode.length) svg.append(drawn("text", {x: x(from) + 4, y: TOP + 28}, mode));
    }
    for (const [, from, to] of rollout.trace.reasons) {
      svg.append(drawn("rect", {class: "curve d1", x: x(from), y: TOP + 56, width: Math.max(1, x(to) - x(from)), height: 10}));
    }
    svg.append(drawn("text", {x: LEFT - 5, y: TOP + 28, "text-anchor": "end"}, "drives"));
    svg.append(drawn("text", {x: LEFT - 5, y: TOP + 65, "text-anchor": "end"}, "notes"));
    return finish("who drives, and when the supervisor notes something", "", svg, x, [], rollout);
  }

  function frame(title, x, last, width) {
    const svg = drawn("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title} over time`});
    const end = last * page.period_s;
    svg.append(drawn("path", {class: "axis", d: `M${LEFT} ${HEIGHT - BOTTOM}H${width - RIGHT}`}));
    for (const time of roundSteps(0, end, width < 420 ? 3 : 6)) {
      const text = number(time) + (time === 0 ? " s" : "");
      svg.append(drawn("text", {x: x(time / page.period_s), y: HEIGHT - 4, "text-anchor": "middle"}, text));
    }
    return svg;
  }

  function finish(title, unit, svg, x, lines, rollout) {
    const onset = rollout.cause ? rollout.cause.onset : -1;
    if (onset >= 0) {
      svg.append(drawn("path", {class: "onset-line", d: `M${x(onset)} ${TOP}V${HEIGHT - BOTTOM}`}));
      svg.append(drawn("text", {x: x(onset) + 3, y: TOP + 8}, "\u25bc onset"));
    }
    const cursor = drawn("path", {class: "cursor", d: `M0 ${TOP}V${HEIGHT - BOTTOM}`});
    svg.append(cursor);
    const key = element("div", {class: "key"});
    const readings = lines.map((line, i) => {
      const sample = drawn("svg", {width: 26, height: 8, style: "width:26px;height:8px;display:inline"});
      sample.append(drawn("path", {class: `curve d${i % 4}`, d: "M0 4H26"}));
      const reading = element("b");
      key.append(element("span", {}, sample, ` ${line.name} `, reading));
      return reading;
    });
    if (page.bounds[title]) {
      const sample = drawn("svg", {width: 26, height: 8, style: "width:26px;height:8px;display:inline"});
      sample.append(drawn("path", {class: "bound", d: "M0 4H26"}));
      key.append(element("span", {}, sample, " bounds"));
    }
    const point = (event) => {
      const box = svg.getBoundingClientRect();
      show((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT) * rollout.ticks);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    const container = element("div", {class: "plot"});
    container.append(element("h3", {}, unit ? `${plain(title)}, ${unit}` : plain(title)), key, svg);
    const move = (tick) => {
      cursor.setAttribute("transform", `translate(${x(tick)} 0)`);
      const place = Math.floor(tick / rollout.trace.stride);
      lines.forEach((line, i) => { readings[i].textContent = number(line.values[Math.min(place, line.values.length - 1)]); });
    };
    return {container, move};
  }

  function makePlots() {
    const rollout = shown.rollout, groups = new Map();
    for (const curve of curvesOf(rollout.trace)) groups.set(curve.plot, [...groups.get(curve.plot) ?? [], curve]);
    plots.replaceChildren();
    const probe = element("div", {class: "plot"});
    plots.append(probe);
    const width = Math.max(200, probe.clientWidth);
    shown.plots = [makeDriver(rollout, width)];
    for (const [title, lines] of groups) shown.plots.push(makePlot(title, lines[0].unit, lines, rollout, width));
    plots.replaceChildren(...shown.plots.map((plot) => plot.container));
  }

  // ---- the dialog

  function show(tick) {
    const {rollout, plots: made} = shown;
    tick = Math.max(0, Math.min(rollout.ticks, Math.round(tick)));
    slider.value = tick;
    byId("now").textContent = seconds(tick);
    made.forEach((plot) => plot.move(tick));
    if (rollout.film < 0) return;
    const film = page.films[rollout.film], count = film.ticks.length;
    let place = film.ticks.findLastIndex((t) => t <= tick);
    place = Math.max(0, place);
    byId("near").style.backgroundPosition = `${count > 1 ? 100 * place / (count - 1) : 0}% 0`;
    const at = film.ticks[place];
    let said = `Close by, at ${seconds(at)} (picture ${place + 1} of ${count})`;
    if (rollout.cause && at === rollout.cause.onset) said += ": \u25bc onset of the failure";
    else if (place === count - 1) said += rollout.success ? ": end" : ": \u2717 end, and not a success";
    byId("near-text").textContent = said;
  }

  function describe(rollout) {
    const outcome = rollout.success ? "success" : `\u2717 ${plain(rollout.failure)}`;
    byId("rollout-title").textContent = `${rollout.policy}, ${rollout.rollout} of ${rollout.panel}: ${outcome}`;
    const [metric, unit] = page.metric;
    const facts = [
      rollout.success ? "" : page.failures[rollout.failure],
      `${seconds(rollout.ticks)} (${rollout.ticks} ticks)`,
      metric === "success" ? "" : `${plain(metric)} ${number(rollout.metric)} ${unit}`,
      `the policy drove ${percent(rollout.driven)}`,
      `commands limited at ${percent(rollout.clamped)} of the ticks`,
      rollout.takeovers ? `${rollout.takeovers} takeovers` : "",
      rollout.trace.stride > 1 ? `curves show one tick in ${rollout.trace.stride}` : "",
    ];
    byId("rollout-facts").textContent = `${facts.filter(Boolean).join("; ")}.`;
    const place = byId("rollout-cause");
    place.replaceChildren();
    if (rollout.cause) {
      const {cause, onset, evidence, reruns} = rollout.cause;
      const when = onset >= 0 ? `, onset at ${seconds(onset)} (the last moment from which the expert still saves it)` : "";
      place.append(element("p", {}, element("b", {}, `Cause: ${plain(cause || "unknown")}`), when));
      place.append(element("ul", {}, ...evidence.map((said) => element("li", {}, said))));
      const tried = reruns.map(([removed, healed, of]) => `${plain(removed)} ${of ? `${healed} of ${of}` : "not tested"}`);
      if (tried.length) place.append(element("p", {class: "note"}, `Reruns that succeeded without it: ${tried.join("; ")}.`));
    } else if (!rollout.success) {
      place.append(element("p", {class: "note"}, "Not diagnosed: dagger-ros diagnose RUN finds the cause."));
    }
  }

  function listEvents(rollout) {
    const rows = [];
    for (const [name, spans] of spansByReason(rollout.trace)) {
      const ticks = spans.reduce((sum, [from, to]) => sum + to - from, 0);
      const times = spans.slice(0, 6).map(([from, to]) => to - from > 1 ? `${seconds(from)} to ${seconds(to)}` : seconds(from));
      if (spans.length > 6) times.push("\u2026");
      rows.push(element("li", {}, `${page.reasons[name] ?? name} (${name}): ${ticks} ticks, at ${times.join(", ")}`));
    }
    const place = byId("rollout-events");
    place.replaceChildren(element("h3", {}, "What the supervisor noted"));
    place.append(rows.length ? element("ul", {}, ...rows) : element("p", {}, "Nothing."));
  }

  function setPictures(rollout) {
    const film = rollout.film >= 0 ? page.films[rollout.film] : null;
    byId("rollout-pictures").hidden = byId("play").hidden = film === null;
    if (!film) return;
    const near = byId("near"), whole = byId("whole");
    near.style.backgroundImage = `url("${film.near}")`;
    near.style.backgroundSize = `${100 * film.ticks.length}% 100%`;
    near.setAttribute("aria-label", `pictures of ${rollout.rollout}`);
    whole.src = film.whole;
    const marked = rollout.cause && rollout.cause.onset >= 0;
    byId("whole-text").textContent = `Everything, with the way that was gone${marked ? "; the cube is the onset of the failure" : ""}.`;
  }

  function stop() {
    cancelAnimationFrame(playing);
    playing = 0;
    byId("play").textContent = "Play";
  }

  function play() {
    if (playing) return stop();
    const begun = performance.now(), last = shown.rollout.ticks;
    const first = Number(slider.value) >= last ? 0 : Number(slider.value);
    const speed = Math.max(1, last * page.period_s / 8) / page.period_s / 1000; // ticks in a ms; at most 8 s long
    byId("play").textContent = "Stop";
    const step = (now) => {
      const tick = first + Math.max(0, now - begun) * speed;
      show(tick);
      if (tick >= last) return stop();
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  }

  function open(id) {
    const rollout = page.rollouts[id];
    stop();
    shown = {id, rollout, plots: []};
    describe(rollout);
    setPictures(rollout);
    listEvents(rollout);
    slider.max = rollout.ticks;
    const cells = [...byId(id).parentNode.children], at = cells.indexOf(byId(id));
    byId("previous").disabled = at === 0;
    byId("next").disabled = at === cells.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    makePlots();
    show(rollout.cause && rollout.cause.onset >= 0 ? rollout.cause.onset : rollout.ticks);
  }

  function rolloutInAddress() {
    const id = decodeURIComponent(location.hash.slice(1));
    return Object.hasOwn(page.rollouts, id) ? id : null;
  }

  function openFromAddress() {
    const id = rolloutInAddress();
    if (id !== null) open(id); else if (dialog.open) dialog.close();
  }

  function beside(step) {
    const cells = [...byId(shown.id).parentNode.children];
    const cell = cells[cells.indexOf(byId(shown.id)) + step];
    if (cell) location.hash = `#${cell.id}`;
  }

  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => beside(-1));
  byId("next").addEventListener("click", () => beside(1));
  byId("play").addEventListener("click", play);
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    stop();
    if (rolloutInAddress() !== shown.id) return; // another one is about to open
    history.replaceState(null, "", location.pathname + location.search);
    byId(shown.id).focus();
  });
  window.addEventListener("hashchange", openFromAddress);
  window.addEventListener("resize", () => { if (dialog.open) { makePlots(); show(Number(slider.value)); } });

  // ---- on paper nothing can be opened

  const closed = [...document.querySelectorAll("details:not([open])")];
  window.addEventListener("beforeprint", () => closed.forEach((part) => { part.open = true; }));
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));

  // ---- arrow keys in a panel: one cell of each is reached with Tab

  for (const panel of document.querySelectorAll(".panel")) {
    const rows = [...panel.querySelectorAll(".cells")].map((row) => [...row.children]);
    const focus = (cell) => {
      panel.querySelector('.cell[tabindex="0"]')?.setAttribute("tabindex", "-1");
      cell.setAttribute("tabindex", "0");
    };
    rows.flat().forEach((cell) => cell.setAttribute("tabindex", "-1"));
    focus(rows[0][0]);
    panel.addEventListener("focusin", (event) => { if (event.target.matches(".cell")) focus(event.target); });
    panel.addEventListener("keydown", (event) => {
      const row = rows.findIndex((cells) => cells.includes(event.target));
      if (row < 0) return;
      const column = rows[row].indexOf(event.target);
      const wanted = {
        ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column],
        ArrowDown: [row + 1, column], Home: [row, 0], End: [row, rows[row].length - 1],
      }[event.key];
      const cell = wanted && rows[wanted[0]]?.[wanted[1]];
      if (!wanted) return;
      event.preventDefault();
      cell?.focus();
    });
  }

  openFromAddress();
})();
