"use strict";
// The page of a report: all that it shows is in `data`. Text is set as text, never as markup, so that a name is only a name.
(() => {
  const colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#17becf", "#e377c2", "#bcbd22", "#8c564b", "#7f7f7f"];
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made) made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children.map((child) => (child === null || child === undefined ? "" : child)));
    return made;
  };
  const at = (id) => document.getElementById(id);
  const number = (value) => {
    if (value === null || value === undefined) return "";
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-4 || size >= 1e9) ? value.toExponential(4) : String(Number(value.toPrecision(6)));
  };
  // A name may be that of something that every object has, such as `constructor`.
  const own = (map, name) => (map && Object.hasOwn(map, name) ? map[name] : undefined);
  const put = (map, name, value) => Object.defineProperty(map, name, { value, enumerable: true, configurable: true, writable: true });
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

  let data = JSON.parse(at("data").textContent);
  // Runs that the reader has chosen to see or not. Without a choice, those are seen that come first: more cannot be told apart.
  const chosen = new Map();
  const most = 20;
  const isShown = (run) => chosen.get(run.id) ?? run.id < most;
  const plots = new Map();
  const colour = (place) => colours[place % colours.length];

  function showSummary() {
    const lost = data.runs.reduce((sum, run) => sum + (run.lost || 0), 0);
    at("summary").textContent = `${data.runs.length} ${data.runs.length === 1 ? "run" : "runs"}, read ${data.read}` +
      (data.runs.length > most ? `; the first ${most} are drawn, unless others are chosen` : "") +
      (lost ? `; ${lost.toLocaleString("en")} events were lost` : "");
  }

  function rowOf(run) {
    const box = element("input", { type: "checkbox", checked: isShown(run), "aria-label": `show ${run.name}` });
    box.addEventListener("change", () => {
      chosen.set(run.id, box.checked);
      showCurves();
      showSettings();
      showMedia();
      showOthers();
    });
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colour(run.id);
    const why = run.reason || run.error || "";
    return element("tr", {},
      element("td", {}, box), element("td", { title: run.name }, swatch, run.name),
      element("td", { className: run.status }, run.status), element("td", { className: "long", title: why }, why),
      element("td", { className: "number" }, number(run.step)), element("td", { className: "number" }, number(run.events)),
      element("td", { className: run.lost ? "number lost" : "number" }, number(run.lost)),
      element("td", { className: run.not_read ? "number lost" : "number" }, number(run.not_read)),
      element("td", {}, run.took || ""), element("td", {}, run.last_event || ""));
  }

  // With many runs, only rows near the visible part are in the document. Each has the same height then.
  const many = 200, spare = 20;
  // The ids of the runs that are searched for; and the rows that are in the document, by id.
  let found = [], rows = new Map(), wished = 0, high = 30;
  const isVirtual = () => found.length > many;

  function showRuns() {
    at("title").textContent = data.title;
    document.title = data.title + " - forebay";
    showSummary();
    const head = ["", "run", "status", "why", "step", "events", "lost", "not read", "took", "last event"];
    at("runs").replaceChildren(element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}));
    findRuns();
  }

  function findRuns() {
    const part = at("find").value.toLowerCase();
    at("find-part").hidden = data.runs.length <= 10;
    found = data.runs.filter((run) => run.name.toLowerCase().includes(part)).map(({ id }) => id);
    at("found").textContent = part ? `${found.length} of ${data.runs.length}` : "";
    at("runs-box").classList.toggle("many", isVirtual());
    at("runs").setAttribute("aria-rowcount", found.length + 1);
    showRows(true);
  }

  function showRows(isNew) {
    const box = at("runs-box");
    const count = isVirtual() ? Math.ceil((box.clientHeight || innerHeight) / high) + 2 * spare : found.length;
    // As the reader has scrolled, whether or not there are rows: at both ends, the first row that is drawn moves less than the reader.
    const next = isVirtual() ? Math.floor(box.scrollTop / high) - spare : 0;
    if (!isNew && Math.abs(next - wished) < spare / 2) return;
    wished = next;
    const first = Math.max(0, Math.min(wished, found.length - count));
    const focused = document.activeElement?.closest?.("#runs tr")?.dataset.run;
    const before = isNew ? new Map() : rows;
    rows = new Map();
    for (const [place, id] of found.slice(first, first + count).entries()) {
      const row = before.get(id) ?? rowOf(data.runs[id]);
      row.dataset.run = id;
      row.setAttribute("aria-rowindex", first + place + 2);
      rows.set(id, row);
    }
    const space = (size) => {
      const cell = element("td", { colSpan: 10 });
      cell.style.cssText = `height: ${size * high}px; padding: 0; border: 0`;
      return size > 0 ? [element("tr", { ariaHidden: "true" }, cell)] : [];
    };
    at("runs").tBodies[0].replaceChildren(...space(first), ...rows.values(), ...space(found.length - first - rows.size));
    const one = rows.values().next().value;
    if (isVirtual() && one?.offsetHeight && one.offsetHeight !== high) { high = one.offsetHeight; showRows(true); }
    if (focused !== undefined) rows.get(Number(focused))?.querySelector("input").focus({ preventScroll: true });
  }
  at("runs-box").addEventListener("scroll", () => { if (isVirtual()) showRows(false); });
  at("find").addEventListener("input", () => { at("runs-box").scrollTop = 0; findRuns(); });

  function showSettings() {
    const runs = data.runs.filter(isShown);
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.config || {})))].sort();
    at("settings-part").hidden = names.length === 0;
    const of = (run, name) => {
      const value = own(run.config, name);
      return value === undefined ? "" : shown(value);
    };
    const differs = (name) => new Set(runs.map((run) => of(run, name))).size > 1;
    const asked = names.filter((name) => runs.length < 2 || !at("differ").checked || differs(name));
    const rows = asked.map((name) => element("tr", {}, element("th", { scope: "row" }, name),
      ...runs.map((run) => element("td", { className: "long" }, of(run, name)))));
    const head = element("tr", {}, element("th", { scope: "col" }, asked.length ? "setting" : "no setting differs"),
      ...runs.map((run) => element("th", { scope: "col" }, run.name)));
    at("settings").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  // The mean of TensorBoard: exponential, and without the pull of the first value.
  function smooth(values, weight) {
    if (weight === 0) return values;
    let last = 0, count = 0;
    return values.map((value) => {
      if (value === null) return null;
      last = last * weight + (1 - weight) * value;
      count += 1;
      return last / (1 - weight ** count);
    });
  }

  function columns(run, series) {
    const axis = at("axis").value;
    const begin = run.began ?? series.times[0];
    const across = axis === "step" ? series.steps : axis === "wall" ? series.times : series.times.map((time) => time - begin);
    const order = across.map((_, place) => place);
    if (across.some((value, place) => place > 0 && value < across[place - 1])) order.sort((one, other) => across[one] - across[other]);
    const isLog = at("log").checked;
    const values = order.map((place) => {
      const value = series.values[place];
      return typeof value !== "number" || (isLog && value <= 0) ? null : value;
    });
    return [order.map((place) => across[place]), smooth(values, Number(at("smoothing").value))];
  }

  // Curves over one axis. A step that a run has twice has two rows: each of its points is drawn. `null` is a gap, `undefined` none.
  function join(tables) {
    const places = tables.map(() => 0), across = [], joined = tables.map(() => []);
    for (;;) {
      let next = Infinity;
      tables.forEach(([xs], table) => { if (places[table] < xs.length && xs[places[table]] < next) next = xs[places[table]]; });
      if (next === Infinity) return [across, ...joined];
      let rows = 1;
      tables.forEach(([xs], table) => {
        let own = 0;
        while (xs[places[table] + own] === next) own += 1;
        rows = Math.max(rows, own);
      });
      for (let row = 0; row < rows; row += 1) {
        across.push(next);
        tables.forEach(([xs, values], table) => {
          const place = places[table];
          const isOwn = xs[place] === next;
          joined[table].push(isOwn ? values[place] : undefined);
          if (isOwn) places[table] = place + 1;
        });
      }
    }
  }

  function draw(card, name) {
    plots.get(name)?.destroy();
    plots.delete(name);
    const runs = data.runs.map((run, place) => ({ run, place, series: own(run.series, name) }))
      .filter(({ run, series }) => series?.steps && isShown(run));
    card.querySelector(".u-wrap-here").replaceChildren();
    if (runs.length === 0) return;
    const joined = join(runs.map(({ run, series }) => columns(run, series)));
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--faint"), grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { show: false } };
    const unit = at("axis").value;
    const plot = new uPlot({
      width: Math.max(240, card.clientWidth - 22), height: 240,
      scales: { x: { time: unit === "wall" }, y: { distr: at("log").checked ? 3 : 1 } },
      axes: [{ ...axis, size: unit === "wall" ? 44 : 30 }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))) }],
      series: [
        { label: unit === "step" ? "step" : "time" },
        ...runs.map(({ run, place, series }) => ({
          label: run.name, stroke: colour(place), width: 1.5,
          points: { show: series.values.length < 2 ? true : undefined },
          value: (_, value) => number(value),
        })),
      ],
    }, joined, card.querySelector(".u-wrap-here"));
    plots.set(name, plot);
  }

  // The nearest that a reader comes, as a part of the whole axis.
  const nearest = 1e-6;

  // Shows a part of the axis from left to right, as far as there are points.
  function see(plot, from, size) {
    const first = plot.data[0][0], last = plot.data[0].at(-1);
    if (!(first < last)) return;
    const wide = Math.min(last - first, Math.max(size, (last - first) * nearest));
    const begin = Math.max(first, Math.min(from, last - wide));
    plot.setScale("x", { min: begin, max: Math.min(last, begin + wide) });
  }

  // The keys of a chart that has the focus: those of `forebay top`, but that arrows move the cursor, whose values are said.
  function steer(event, name, said) {
    const plot = plots.get(name);
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const xs = plot.data[0], first = xs[0], last = xs.at(-1);
    const { min, max } = plot.scales.x;
    const middle = plot.cursor.idx === null || plot.cursor.idx === undefined ? (min + max) / 2 : xs[plot.cursor.idx];
    const move = (by) => {
      // Without a cursor yet, it comes to the middle of what is seen.
      let place = plot.cursor.idx ?? null;
      if (place === null) place = xs.findIndex((value) => value >= middle);
      else {
        const before = xs[place];
        // A step that a run has twice has two rows.
        do place += by; while (xs[place] !== undefined && xs[place] === before);
      }
      place = Math.max(0, Math.min(xs.length - 1, place));
      if (xs[place] < min || xs[place] > max) see(plot, xs[place] - (max - min) / 2, max - min);
      plot.setCursor({ left: plot.valToPos(xs[place], "x"), top: plot.over.clientHeight / 2 });
      said.textContent = plot.series.filter(({ show }) => show).map((series) => {
        const value = plot.data[plot.series.indexOf(series)][place];
        if (value === undefined || value === null) return "";
        const isDate = series === plot.series[0] && at("axis").value === "wall";
        return `${series.label} ${isDate ? new Date(value * 1000).toISOString() : number(value)}`;
      }).filter(Boolean).join(", ");
    };
    switch (event.key) {
      case "+": case "=": see(plot, middle - (max - min) / 4, (max - min) / 2); break;
      case "-": see(plot, middle - (max - min), (max - min) * 2); break;
      case "0": see(plot, first, last - first); break;
      case "ArrowLeft": move(-1); break;
      case "ArrowRight": move(1); break;
      default: return;
    }
    event.preventDefault();
  }

  // Fingers on a chart: two zoom, one moves what is seen and has its values shown, and two short touches of one place show all again. To
  // the browser they are left where they move up or down, since that scrolls the page (`touch-action` in the style). The listeners are
  // those of the card, since a live page makes a new chart when something new comes, also under a finger.
  const tap = { time: 300, distance: 24 };
  function touch(chart, name) {
    const fingers = new Map();
    // What the fingers hold: the value of the axis between them, how far they are from each other, and how much of the axis is seen.
    let held = null, wasTap = null, canBeTap = false;
    const placeOf = (plot, { clientX, clientY }) => {
      const box = plot.over.getBoundingClientRect();
      return { left: clientX - box.left, top: clientY - box.top };
    };
    const distance = (one, other) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const now = (plot) => {
      const [one, other = one] = [...fingers.values()].map(({ last }) => last);
      return { left: (placeOf(plot, one).left + placeOf(plot, other).left) / 2, apart: distance(one, other) };
    };
    const hold = (plot) => {
      if (fingers.size === 0) { held = null; return; }
      const { left, apart } = now(plot), { min, max } = plot.scales.x;
      held = { value: plot.posToVal(left, "x"), apart, size: max - min };
    };
    chart.addEventListener("pointerdown", (event) => {
      const plot = plots.get(name);
      if (event.pointerType !== "touch" || !plot || fingers.size === 2 || !plot.over.contains(event.target)) return;
      fingers.set(event.pointerId, { began: event, last: event });
      chart.setPointerCapture(event.pointerId);
      canBeTap = fingers.size === 1;
      hold(plot);
    });
    chart.addEventListener("pointermove", (event) => {
      const plot = plots.get(name), finger = fingers.get(event.pointerId);
      if (!finger) return;
      finger.last = event;
      if (!plot || !held) return;
      const { left, apart } = now(plot);
      // One finger has no distance that could grow.
      const size = held.apart > 0 ? held.size * held.apart / Math.max(apart, 1) : held.size;
      see(plot, held.value - left / plot.over.clientWidth * size, size);
      if (fingers.size === 1) plot.setCursor(placeOf(plot, event));
    });
    const lift = (event) => {
      const plot = plots.get(name), finger = fingers.get(event.pointerId);
      if (!fingers.delete(event.pointerId) || !plot) return;
      const isTap = event.type === "pointerup" && canBeTap && distance(event, finger.began) < tap.distance
        && event.timeStamp - finger.began.timeStamp < tap.time;
      if (isTap && wasTap && distance(event, wasTap) < tap.distance && event.timeStamp - wasTap.timeStamp < 2 * tap.time) {
        see(plot, plot.data[0][0], Infinity);
        wasTap = null;
      } else wasTap = isTap ? event : null;
      if (isTap) plot.setCursor(placeOf(plot, event));
      hold(plot);
    };
    chart.addEventListener("pointerup", lift);
    chart.addEventListener("pointercancel", lift);
  }

  // Charts that can be seen. The others are drawn when they come into view.
  const inView = new Set();
  const cardOf = (name) => [...at("curves").children].find((card) => card.dataset.name === name);
  const observer = typeof IntersectionObserver === "undefined" ? null : new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      const name = target.dataset.name;
      if (!isIntersecting) { inView.delete(name); continue; }
      inView.add(name);
      if (!plots.has(name) && !isStale(name)) draw(target, name);
      if (isStale(name)) load();
    }
  }, { rootMargin: "400px" });

  // What a chart needs of a live page: the points of the runs that have changed since they were asked for.
  function needed(name) {
    if (!isLive) return [];
    return data.runs.filter((run) => isShown(run) && own(run.series, name) && (run.loaded?.get(name) ?? 0) < run.version);
  }
  const isStale = (name) => needed(name).length > 0;

  let isLoading = false;
  async function load() {
    if (isLoading) return;
    isLoading = true;
    try {
      for (;;) {
        const name = [...inView].find(isStale);
        if (name === undefined) break;
        // So many that a question is short.
        const runs = needed(name).slice(0, 200);
        const asked = runs.map((run) => `${run.id}:${run.loaded?.get(name) ?? 0}`).join(",");
        const { version, runs: found } = await ask("data", `name=${encodeURIComponent(name)}&runs=${asked}`);
        for (const run of runs) {
          // A series that is there no more is asked for once.
          run.loaded ??= new Map();
          run.loaded.set(name, Math.max(version, run.version));
          if (found[run.id]) put(run.series, name, found[run.id]);
        }
        if (!isStale(name)) redraw(name);
      }
      isLoading = false;
    } catch {
      isLoading = false;
      setTimeout(load, 5000);
    }
  }

  async function ask(path, query) {
    const token = location.search.replace(/^\?/, "");
    const answer = await fetch(`${path}?${query}${token ? "&" + token : ""}`);
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  }

  // Draws a chart again, and keeps its zoom.
  function redraw(name) {
    const card = cardOf(name), before = plots.get(name);
    if (!card) return;
    if (!before) return draw(card, name);
    const { min, max } = before.scales.x;
    const ends = [before.data[0][0], before.data[0].at(-1)];
    draw(card, name);
    if (min > ends[0] || max < ends[1]) plots.get(name)?.setScale("x", { min, max });
  }

  function showCurves() {
    const part = at("filter").value.toLowerCase();
    const names = [...new Set(data.runs.flatMap((run) => Object.keys(run.series || {})))].sort()
      .filter((name) => name.toLowerCase().includes(part));
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    inView.clear();
    observer?.disconnect();
    const cards = names.map((name) => {
      const all = data.runs.map((run) => own(run.series, name)).filter(Boolean);
      const count = all.reduce((sum, series) => sum + series.count, 0);
      const odd = all.reduce((sum, series) => sum + series.not_finite, 0);
      const said = `${count.toLocaleString("en")} ${count === 1 ? "point" : "points"}` + (odd ? `, ${odd.toLocaleString("en")} of them not finite` : "");
      const card = element("article", { className: "card" }, element("h3", {}, name),
        element("div", { className: "u-wrap-here", role: "group", tabIndex: 0, "aria-label": `chart of ${name}: ${said}` }),
        element("p", { className: "hint" }, said), element("output", { className: "unseen" }));
      card.dataset.name = name;
      const [chart, values] = [card.querySelector(".u-wrap-here"), card.querySelector(".unseen")];
      chart.addEventListener("keydown", (event) => steer(event, name, values));
      touch(chart, name);
      return card;
    });
    at("curves").replaceChildren(...(cards.length ? cards : [element("p", {}, "There is no such curve.")]));
    for (const card of cards) if (observer) observer.observe(card); else { inView.add(card.dataset.name); draw(card, card.dataset.name); }
    if (!observer) load();
  }

  // A long text is shown whole once it is opened. A live page asks for it then, and leaves it open when there is something new.
  const opened = new Map();
  function lastOf(run, other) {
    const isCut = other.last.length >= 200 || other.text;
    if (!isCut) return element("td", { className: "long" }, other.last);
    const key = JSON.stringify([run.id, other.name]);
    const whole = element("div", {}, other.text || opened.get(key) || other.last);
    const details = element("details", { open: opened.has(key) }, element("summary", {}, other.last.slice(0, 80) + "…"), whole);
    details.addEventListener("toggle", async () => {
      // One that a newer one has replaced says nothing.
      if (!details.isConnected) return;
      if (!details.open) { opened.delete(key); return; }
      if (!opened.has(key)) opened.set(key, "");
      if (!isLive || other.text) return;
      const found = await media(run).catch(() => null);
      const text = found?.find(({ name }) => name === other.name)?.text || other.last;
      if (opened.has(key)) opened.set(key, text);
      whole.textContent = text;
    });
    return element("td", { className: "long" }, details);
  }

  // What a live page has of a run beyond numbers: asked for once for each of its versions.
  async function media(run) {
    if (run.media?.version !== run.version) run.media = { version: run.version, found: ask("media", `run=${run.id}`) };
    const asked = run.media;
    try {
      return await asked.found;
    } catch (error) {
      // The next one to ask may have an answer.
      if (run.media === asked) run.media = undefined;
      throw error;
    }
  }

  function showOthers() {
    const rows = data.runs.filter(isShown).flatMap((run) => (run.others || []).map((other) => element("tr", {},
      element("td", {}, run.name), element("td", {}, other.name), element("td", { className: "number" }, number(other.count)),
      element("td", { className: "number" }, number(other.step)), lastOf(run, other))));
    at("others-part").hidden = rows.length === 0;
    const head = ["run", "name", "events", "last step", "last"].map((name) => element("th", { scope: "col" }, name));
    at("others").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  // Pixels, as an image that is drawn.
  function picture({ form, width, height, bytes }) {
    if (["png", "jpeg", "gif"].includes(form)) return element("img", { src: `data:image/${form};base64,${bytes}` });
    const canvas = element("canvas", { width, height });
    const from = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    const image = canvas.getContext("2d").createImageData(width, height);
    const size = { gray8: 1, rgb8: 3, rgba8: 4 }[form];
    if (!size) return canvas;
    for (let place = 0; place < width * height; place += 1) {
      for (let part = 0; part < 3; part += 1) image.data[4 * place + part] = from[size * place + (size === 1 ? 0 : part)];
      image.data[4 * place + 3] = size === 4 ? from[4 * place + 3] : 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  function heat({ steps, columns }, place) {
    const canvas = element("canvas", { width: 320, height: 144 });
    const context = canvas.getContext("2d");
    const most = Math.max(1, ...columns.flat());
    context.fillStyle = colour(place);
    const wide = canvas.width / steps.length, high = canvas.height / columns[0].length;
    columns.forEach((rows, column) => rows.forEach((share, row) => {
      context.globalAlpha = Math.sqrt(share / most);
      context.fillRect(column * wide, canvas.height - (row + 1) * high, Math.ceil(wide), Math.ceil(high));
    }));
    return canvas;
  }

  // Pictures of a live page are those of one run, which the reader chooses: they may be large.
  let pictured = null, offered = null;
  function showLiveMedia() {
    const runs = data.runs.filter((run) => isShown(run) && (run.others || []).length);
    // The reader may have the choice open.
    const next = JSON.stringify(runs.map(({ id, name }) => [id, name]));
    if (next === offered) return;
    offered = next;
    at("media-part").hidden = runs.length === 0;
    const choice = at("pictured");
    choice.hidden = false;
    choice.replaceChildren(element("option", { value: "" }, "choose a run"),
      ...runs.map((run) => element("option", { value: String(run.id), selected: run.id === pictured }, run.name)));
    if (!runs.some((run) => run.id === pictured)) { pictured = null; at("media").replaceChildren(); }
  }
  async function loadMedia() {
    const run = data.runs[pictured];
    if (!run) return at("media").replaceChildren();
    try {
      const others = await media(run);
      if (run.id !== pictured) return;
      const figures = figuresOf({ ...run, others });
      at("media").replaceChildren(...(figures.length ? figures : [element("p", {}, "It has neither distributions nor pictures.")]));
    } catch {
      at("media").replaceChildren(element("p", {}, "forebay serve does not answer."));
    }
  }
  at("pictured").addEventListener("change", () => {
    pictured = at("pictured").value === "" ? null : Number(at("pictured").value);
    loadMedia();
  });

  function showMedia() {
    if (isLive) return showLiveMedia();
    const figures = data.runs.filter(isShown).flatMap(figuresOf);
    at("media-part").hidden = figures.length === 0;
    at("media").replaceChildren(...figures);
  }

  function figuresOf(run) {
    return (run.others || []).flatMap((other) => {
      const figure = (drawn, said) => {
        drawn.setAttribute(drawn.tagName === "IMG" ? "alt" : "aria-label", said);
        if (drawn.tagName !== "IMG") drawn.setAttribute("role", "img");
        return element("figure", {}, drawn, element("figcaption", {}, said));
      };
      const made = [];
      if (other.heat) {
        const { low, high, steps } = other.heat;
        made.push(figure(heat(other.heat, run.id),
          `${other.name} of ${run.name}: from ${number(low)} to ${number(high)}, steps ${steps[0]} to ${steps.at(-1)}`));
      }
      if (other.image) {
        made.push(figure(picture(other.image), `${other.name} of ${run.name}` + (other.step === null ? "" : `: step ${other.step}`)));
      }
      return made;
    });
  }

  function show() {
    showRuns();
    showMedia();
    showSettings();
    showCurves();
    showOthers();
  }

  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("differ").addEventListener("change", showSettings);
  for (const id of ["axis", "log", "filter"]) at(id).addEventListener("input", showCurves);
  at("smoothing").addEventListener("input", () => {
    at("smoothed").textContent = at("smoothing").value;
    for (const name of [...plots.keys()]) {
      const card = cardOf(name);
      if (card) draw(card, name);
    }
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) { width = innerWidth; showCurves(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCurves);
  // A new look keeps what the reader has chosen: the zoom of each chart, too.
  function update(next) {
    const namesOf = () => [...new Set(data.runs.flatMap((run) => Object.keys(run.series || {})))].sort().join("\n");
    const before = namesOf(), count = data.runs.length;
    const changed = new Set(), changedRuns = new Set(next.runs.map((run) => run.id));
    if (next.whole ?? true) {
      data = next;
      data.runs.forEach((run) => Object.keys(run.series || {}).forEach((name) => changed.add(name)));
    } else {
      Object.assign(data, { read: next.read, version: next.version });
      for (const run of next.runs) {
        const old = data.runs[run.id];
        // Points that are there already stay, until newer ones come.
        for (const [name, series] of Object.entries(run.series || {})) {
          put(run.series, name, { ...own(old?.series, name), ...series });
          changed.add(name);
        }
        run.loaded = old?.loaded;
        data.runs[run.id] = run;
      }
    }
    // All that is in an answer may be as new as the answer.
    if (isLive) next.runs.forEach((run) => { run.version = next.version; });
    if ((next.whole ?? true) || data.runs.length !== count) showRuns();
    else {
      // What the reader is about to use stays: a row that has changed keeps its box.
      showSummary();
      for (const run of next.runs) {
        const row = rows.get(run.id);
        if (!row) continue;
        // A box that leaves the document, if only for a moment, loses the focus.
        while (row.children.length > 1) row.lastChild.remove();
        row.append(...[...rowOf(run).children].slice(1));
      }
    }
    showSettings();
    showOthers();
    if (isLive) {
      showLiveMedia();
      if (changedRuns.has(pictured)) loadMedia();
    }
    if (namesOf() !== before) return showCurves();
    if (isLive) return load();
    for (const name of changed) if (plots.has(name)) redraw(name);
  }

  if (isLive) {
    let isAsking = false, isOld = false, events = null;
    const say = (what) => { at("live").textContent = what; };
    const refresh = async () => {
      isOld = true;
      if (isAsking) return;
      isAsking = true;
      while (isOld) {
        isOld = false;
        try {
          update(await ask("index", `since=${data.version ?? 0}`));
        } catch {
          // The next event asks again.
          say("Not live: forebay serve does not answer.");
        }
      }
      isAsking = false;
    };
    // A page that nobody sees waits for nothing: a browser has six connections to a server, for all of its pages.
    const listen = () => {
      if (document.hidden || events) return;
      events = new EventSource("events" + location.search);
      events.onmessage = () => { say("Live."); refresh(); };
      events.onerror = () => {
        say("Not live: forebay serve does not answer.");
        if (events?.readyState === EventSource.CLOSED) { events = null; setTimeout(listen, 5000); }
      };
    };
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { events?.close(); events = null; } else listen();
    });
    listen();
  }
  window.forebay = { plots, update };
  show();
})();
