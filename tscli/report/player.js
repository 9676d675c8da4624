// An episode to scrub through: all that it needs stands in `data-player` of its figure.
const unpack = (one) => {
  const bytes = Uint8Array.from(atob(one.data), (letter) => letter.charCodeAt(0)), most = one.most || 65535;
  // No digits that are not known.
  const span = one.high - one.low, grain = 10 ** Math.ceil(Math.log10(span / most || 1));
  const known = (value) => (span ? Math.round((one.low + (value / most) * span) / grain) * grain : one.low);
  return Array.from(most === 255 ? bytes : new Uint16Array(bytes.buffer), known);
};
const make = (name, parent, words = "", text = "") => {
  const found = document.createElement(name);
  if (words) found.className = words;
  if (text) found.textContent = text;
  parent.append(found);
  return found;
};
const colour = (role) => (role === "teacher" ? "var(--c1)" : "var(--c0)");
for (const figure of document.querySelectorAll(".player")) {
  const all = JSON.parse(figure.dataset.player);
  const choose = make("select", figure);
  choose.setAttribute("aria-label", "episode");
  all.episodes.forEach((one, i) => { make("option", choose, "", one.title).value = i; });
  const body = make("div", figure, "player-body");
  let now, step = 0, timer = null;

  const moveTo = (wanted) => {
    step = Math.max(0, Math.min(now.steps - 1, Math.round(wanted)));
    for (const show of now.shows) show(step);
  };
  const stop = () => { clearInterval(timer); timer = null; now.play.textContent = "play"; };
  const play = () => {
    if (timer !== null) return stop();
    if (step >= now.steps - 1) moveTo(0);
    const pause = 1000 * (all.dt || 0.1), every = Math.max(1, Math.round(33 / pause));
    timer = setInterval(() => { if (step >= now.steps - 1) stop(); else moveTo(step + every); }, pause * every);
    now.play.textContent = "pause";
  };
  const jump = (way) => {
    const there = now.worst.filter((at) => way * (at - step) > 0).sort((a, b) => way * (a - b));
    if (there.length) moveTo(there[0]);
  };

  const pictureOf = (parent, pictures, kind, at, label) => {
    const image = make("img", parent, kind === "png" ? "seen-image" : "");
    image.alt = label;
    let last = -1;
    now.shows.push((step) => {
      let i = 0;
      while (i + 1 < at.length && at[i + 1] <= step) i += 1;
      if (i !== last) image.src = "data:image/" + kind + ";base64," + pictures[i];
      last = i;
    });
  };
  const strip = (parent, one) => {
    const row = make("div", parent, "strip"), values = unpack(one), count = values.length;
    const label = make("div", row, "strip-label"), lane = make("div", row, "lane");
    const span = one.high - one.low || 1, bins = Math.min(count, 1000), points = [];
    for (let b = 0; b < bins; b += 1) { // of steps that share a pixel the highest counts
      const from = Math.floor((b * count) / bins), to = Math.max(from + 1, Math.floor(((b + 1) * count) / bins));
      points.push(((from / Math.max(1, count - 1)) * 1000).toFixed(1) + "," +
        (38 - ((Math.max(...values.slice(from, to)) - one.low) / span) * 34).toFixed(1));
    }
    const space = "http://www.w3.org/2000/svg", drawn = document.createElementNS(space, "svg");
    drawn.setAttribute("viewBox", "0 0 1000 40");
    drawn.setAttribute("preserveAspectRatio", "none");
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.join(" "));
    drawn.append(line);
    lane.append(drawn);
    const here = make("div", lane, "here");
    lane.addEventListener("pointerdown", (event) => {
      const follow = (moved) => {
        const box = lane.getBoundingClientRect();
        moveTo(((moved.clientX - box.left) / box.width) * (count - 1));
      };
      follow(event);
      lane.setPointerCapture(event.pointerId);
      lane.onpointermove = follow;
      lane.onpointerup = lane.onpointercancel = () => { lane.onpointermove = null; };
    });
    now.shows.push((step) => {
      here.style.left = (100 * step) / Math.max(1, count - 1) + "%";
      label.textContent = one.name + " " + short(values[step]);
    });
    return lane;
  };
  const rowOf = (parent, name) => {
    const row = make("tr", parent);
    make("td", row, "", name);
    return row;
  };
  const cellOf = (row, one, low, high, hue, bar) => {
    const cell = make("td", row, "value");
    if (!one) { cell.textContent = "-"; return; }
    const values = unpack(one), text = make("span", cell), track = make("div", cell, "track"), mark = make("i", track);
    mark.style.background = hue;
    now.shows.push((step) => {
      const share = Math.max(0, Math.min(1, (values[step] - low) / (high - low || 1)));
      text.textContent = (bar ? (100 * values[step]).toFixed(0) + " %" : short(values[step]));
      mark.style.left = bar ? "0" : 100 * share + "%";
      mark.style.width = bar ? 100 * share + "%" : "";
    });
  };
  const tableOf = (parent, title) => {
    make("h3", parent, "", title);
    const drawn = make("table", make("div", parent, "scroll")), head = make("tr", make("thead", drawn));
    make("th", head);
    for (const role of all.roles) make("th", head, "", role).style.color = colour(role);
    return make("tbody", drawn);
  };

  const open = (number) => {
    if (timer !== null) stop();
    now = { ...all.episodes[number], shows: [] };
    body.replaceChildren();
    const left = make("div", body, "player-left"), right = make("div", body, "player-right");
    if (now.pictures.length) pictureOf(left, now.pictures, "webp", now.at, "the env at this step");
    const bar = make("div", left, "player-bar");
    now.play = make("button", bar, "", "play");
    now.play.addEventListener("click", play);
    const slider = make("input", bar);
    slider.type = "range";
    slider.max = now.steps - 1;
    slider.setAttribute("aria-label", "step");
    slider.addEventListener("input", () => moveTo(+slider.value));
    const said = make("div", left, "player-said");
    now.shows.push((step) => {
      slider.value = step;
      said.textContent = "step " + step + " of " + now.steps + (all.dt ? ", " + (step * all.dt).toFixed(2) + " s" : "");
    });
    now.strips.forEach((one, i) => {
      const lane = strip(left, one);
      if (i) return;
      now.worst.forEach((at, rank) => {
        const mark = make("button", lane, "worst");
        mark.style.left = (100 * at) / Math.max(1, now.steps - 1) + "%";
        mark.title = mark.ariaLabel = (rank ? "one of the worst moments" : "the worst moment") + ": step " + at;
        mark.addEventListener("pointerdown", (event) => event.stopPropagation());
        mark.addEventListener("click", () => moveTo(at));
      });
    });
    const acts = tableOf(right, now.actions.length && now.actions[0].bar ? "what each would do" : "actions");
    for (const one of now.actions) {
      const row = rowOf(acts, one.name);
      for (const role of all.roles) cellOf(row, one.by[role], one.low, one.high, colour(role), one.bar);
    }
    const seen = all.roles.map((role) => now.seen[role]);
    seen.forEach((one, i) => Object.entries(one.images).forEach(([name, pictures]) => {
      make("h3", right, "", "what the " + all.roles[i] + " saw: " + name);
      pictureOf(right, pictures, "png", now.at, name);
    }));
    const names = [...new Set(seen.flatMap((one) => one.entries.map((entry) => entry.name)))];
    if (names.length) {
      const body = tableOf(right, "what each saw");
      for (const name of names) {
        const unit = all.units[name], row = rowOf(body, unit ? name + " [" + unit + "]" : name);
        const found = seen.map((one) => one.entries.findIndex((entry) => entry.name === name));
        const there = seen.map((one, i) => one.entries[found[i]]).filter(Boolean);
        const low = Math.min(...there.map((one) => one.low)), high = Math.max(...there.map((one) => one.high));
        all.roles.forEach((role, i) =>
          cellOf(row, seen[i].entries[found[i]], low, high, colour(role), false));
      }
      const more = Math.max(...seen.map((one) => one.more || 0));
      if (more) make("p", right, "intro", "and " + more + " entries more, in episodes.h5");
    }
    if (seen.some((one) => one.latent)) {
      const body = tableOf(right, "latent");
      const most = Math.max(...seen.map((one) => (one.latent || []).length));
      for (let i = 0; i < most; i += 1) {
        const row = rowOf(body, String(i)), there = seen.map((one) => (one.latent || [])[i]);
        const low = Math.min(...there.filter(Boolean).map((one) => one.low));
        const high = Math.max(...there.filter(Boolean).map((one) => one.high));
        all.roles.forEach((role, j) => cellOf(row, there[j], low, high, colour(role), false));
      }
    }
    moveTo(0);
  };
  choose.addEventListener("change", () => open(+choose.value));
  figure.addEventListener("keydown", (event) => {
    if (event.target === choose || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 10 : 1;
    const moves = {
      ArrowLeft: () => moveTo(step - far), ArrowRight: () => moveTo(step + far), Home: () => moveTo(0),
      End: () => moveTo(now.steps - 1), n: () => jump(1), p: () => jump(-1),
    };
    if (event.key === " " && event.target.tagName !== "BUTTON") moves[" "] = play;
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
  open(0);
}
