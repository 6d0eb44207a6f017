"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const data = JSON.parse(document.getElementById("data").textContent);

  // ---- small things ----
  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const minus = (text) => text.replace("-", "−");
  const grouped = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const written = (value, form) => {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (form === "percent") return minus(`${grouped(100 * value, size >= 10 ? 0 : 2)} %`);
    if (form === "money") return minus(grouped(value, size >= 1000 ? 0 : 2));
    return minus(grouped(value, 2));
  };
  const short = (value, form) => {
    const plain = (number, digits) => String(Number(number.toPrecision(digits)));
    if (form === "percent") return minus(`${plain(100 * value, 10)} %`);
    for (const [size, unit, letter] of [[1e9, 1e9, " bn"], [1e6, 1e6, " m"], [1e4, 1e3, " k"]])
      if (Math.abs(value) >= size) return minus(plain(value / unit, 6) + letter);
    return minus(plain(value, 10));
  };
  const when = (time) => {
    const text = new Date(data.dated ? time : time - 1).toISOString(); // midnight ends the day before
    return data.daily ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)}`;
  };

  // ---- light and dark ----
  const theme = document.getElementById("theme");
  if (theme) {
    theme.hidden = false;
    const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
    theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
    label();
  }
  if (!data.arrays) return;

  // ---- the numbers, computed again from the data in this page ----
  const arrays = {};
  for (const [name, [kind, text]] of Object.entries(data.arrays))
    arrays[name] = new { f8: Float64Array, f4: Float32Array, i4: Int32Array }[kind](bytes(text));
  const { times, equity } = arrays;
  let high = -Infinity;
  arrays.drawdown = equity.map((value) => value / (high = Math.max(high, value)) - 1);

  const perYear = data.per_year ?? NaN; // no clear period: nothing is yearly
  const years = () => {
    const first = new Date(times[0]), last = times[times.length - 1];
    const begun = Date.UTC(first.getUTCFullYear(), first.getUTCMonth(), 1);
    const anniversary = (n) => Date.UTC(first.getUTCFullYear() + n, first.getUTCMonth(), 1) + (times[0] - begun);
    let whole = new Date(last).getUTCFullYear() - first.getUTCFullYear();
    if (anniversary(whole) > last) whole -= 1;
    return whole + (last - anniversary(whole)) / (anniversary(whole + 1) - anniversary(whole));
  };
  const returnsOf = (from, to) => {
    const found = [];
    let gone = false;
    for (let k = 0; k + 1 < arrays.period.length; k++) {
      const a = arrays.period[k], b = arrays.period[k + 1];
      if (a < from || b > to) continue;
      gone = gone || equity[a] <= 0;
      found.push(gone ? NaN : equity[b] / equity[a] - 1);
    }
    return found;
  };
  const fall = (from, to) => {
    let high = -Infinity, least = 0;
    for (let k = from; k <= to; k++) {
      high = Math.max(high, equity[k]);
      least = Math.min(least, equity[k] / high - 1);
    }
    return least;
  };
  const ratio = (above, below) => (below ? above / below : NaN);
  const sum = (values, f = (x) => x) => values.reduce((total, x) => total + f(x), 0);
  const measured = (returns) => {
    const n = returns.length, mean = sum(returns) / n, rate = (1 + data.rf) ** (1 / perYear) - 1, root = Math.sqrt(perYear);
    const square = sum(returns, (r) => (r - mean) ** 2) / n;
    let deviation = n < 2 ? NaN : Math.sqrt((square * n) / (n - 1));
    if (deviation <= 1e-15 + 1e-13 * Math.abs(mean)) deviation = 0;
    const shortfall = Math.sqrt(sum(returns, (r) => Math.min(r - rate, 0) ** 2) / n);
    const moment = (power) => sum(returns, (r) => (r - mean) ** power) / n;
    const shaped = n >= 4 && square > 0;
    const excess = moment(4) / square ** 2 - 3;
    const ordered = Float64Array.from(returns).sort();
    const place = 0.05 * (n - 1), k = Math.floor(place);
    const high = k + 1 < n ? ordered[k + 1] : ordered[k];
    const wins = returns.filter((r) => r > 0), losses = returns.filter((r) => r < 0);
    const won = sum(wins), lost = -sum(losses), p = ratio(wins.length, wins.length + losses.length);
    const gain = ratio(won, wins.length), loss = ratio(lost, losses.length);
    const whole = returns.every(Number.isFinite);
    const found = {
      volatility: deviation * root,
      Sharpe: ratio((mean - rate) * root, deviation),
      Sortino: ratio((mean - rate) * root, shortfall),
      "VaR 95 %": place > k ? ordered[k] + (high - ordered[k]) * (place - k) : ordered[k],
      "CVaR 95 %": sum(Array.from(ordered.subarray(0, k + 1))) / (k + 1),
      "best period": ordered[n - 1],
      "worst period": ordered[0],
      skew: shaped ? ((moment(3) / square ** 1.5) * Math.sqrt(n * (n - 1))) / (n - 2) : NaN,
      kurtosis: shaped ? ((n - 1) / ((n - 2) * (n - 3))) * ((n + 1) * excess + 6) : NaN,
      "hit rate": p,
      "profit factor": ratio(won, lost),
      payoff: ratio(gain, loss),
      Kelly: ratio(p, loss) - ratio(1 - p, gain),
    };
    return whole ? found : Object.fromEntries(Object.keys(found).map((name) => [name, NaN]));
  };
  const growth = () => {
    const last = equity.length - 1, total = equity[last] / equity[0];
    const cagr = Math.max(total, 0) ** (1 / years()) - 1, deepest = fall(0, last);
    return { "total return": total - 1, CAGR: cagr, "max drawdown": deepest, Calmar: ratio(cagr, -deepest) };
  };
  const agree = (a, b) => (Number.isFinite(a) && b !== null ? Math.abs(a - b) <= 1e-12 + 1e-9 * Math.abs(b) : !Number.isFinite(a) && b === null);
  const summary = document.getElementById("checked");
  if (summary && arrays.period) {
    const found = { ...measured(returnsOf(0, equity.length - 1)), ...growth() };
    let agreed = 0;
    for (const [name, value] of Object.entries(data.numbers)) {
      const fine = agree(found[name], value);
      agreed += fine;
      for (const cell of document.querySelectorAll(`[data-number="${CSS.escape(name)}"] .check`)) {
        cell.textContent = fine ? "✓" : `✗ ${found[name]}`;
        cell.title = fine ? "computed again in this page: agrees" : "computed again in this page: differs";
        cell.classList.toggle("fail", !fine);
      }
    }
    const count = Object.keys(data.numbers).length;
    summary.textContent = `${agreed} of ${count} numbers computed again in this page, from the ${grouped(arrays.period.length - 1, 0)} returns in it: ${agreed === count ? "all agree" : "NOT ALL AGREE"}.`;
    summary.dataset.agreed = agreed === count ? "yes" : "no";
    summary.classList.toggle("fail", agreed !== count);
  } else if (summary) summary.textContent = "Not computed again here: there are more returns than one page holds.";

  // ---- charts over time: all share a range and a crosshair ----
  const view = { from: 0, to: times.length - 1, at: -1, log: false };
  const nearest = (time) => {
    let low = view.from, high = view.to;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time) low = middle; else high = middle;
    }
    return time - times[low] <= times[high] - time ? low : high;
  };
  const ticks = (low, high, count) => {
    if (!(high > low)) return [low];
    const rough = (high - low) / count, size = 10 ** Math.floor(Math.log10(rough));
    const step = size * [1, 2, 2.5, 5, 10].find((m) => m * size >= rough * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k++) found.push(k * step);
    return found;
  };
  const logTicks = (low, high) => {
    for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const step of steps) if (step * 10 ** power >= low && step * 10 ** power <= high) found.push(step * 10 ** power);
      if (found.length >= 3) return found;
    }
    return ticks(low, high, 4);
  };
  const timeTicks = (first, last) => {
    const day = 864e5, span = last - first, found = [];
    const months = [1, 3, 6, 12, 24, 60, 120, 240].find((m) => span / (m * 30.44 * day) <= 7) || 600;
    if (span > 70 * day) {
      const start = new Date(first);
      for (let m = Math.ceil((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months; ; m += months) {
        const time = Date.UTC(Math.floor(m / 12), m % 12, 1);
        if (time > last) break;
        if (time >= first) found.push([time, new Date(time).toISOString().slice(0, months < 12 ? 7 : 4)]);
      }
    } else {
      const step = [day / 24, day / 4, day, 2 * day, 7 * day, 14 * day].find((s) => span / s <= 7) || 14 * day;
      for (let time = Math.ceil(first / step) * step; time <= last; time += step)
        found.push([time, new Date(time).toISOString().slice(...(step < day ? [11, 16] : [0, 10]))]);
    }
    return found.slice(0, 9);
  };

  const charts = [...document.querySelectorAll("figure[data-keys]")].map((figure) => {
    const chart = {
      figure, axes: figure.querySelector(".axes"), left: figure.querySelector(".ys"), main: figure.querySelector(".xs"),
      inner: figure.querySelector(".inner"), grid: figure.querySelector(".grid"), below: figure.querySelector(".xs > g:last-of-type"),
      keys: figure.dataset.keys.split(" "), areas: (figure.dataset.areas || "").split(" "), form: figure.dataset.form,
      height: Number(figure.dataset.height), level: figure.dataset.level === undefined ? null : Number(figure.dataset.level),
      log: figure.dataset.log === "1",
    };
    chart.cross = make("g", { class: "cross" });
    chart.chosen = make("rect", { class: "chosen", y: 1, height: chart.height, width: 0 });
    chart.main.append(chart.chosen, chart.cross);
    chart.readout = document.createElement("output");
    chart.readout.className = "readout";
    figure.querySelector("figcaption").append(chart.readout);
    chart.axes.tabIndex = 0;
    chart.axes.setAttribute("role", "group");
    chart.axes.setAttribute("aria-label", `${figure.querySelector(".title").textContent}: arrow keys read values, plus and minus zoom, Escape shows everything`);
    return chart;
  });

  const scale = (chart) => {
    let low = Infinity, high = -Infinity;
    const take = (value) => { if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); } };
    for (const key of chart.keys) for (let k = view.from; k <= view.to; k++) take(arrays[key][k]);
    const log = chart.log && view.log && low > 0;
    if (figureZero(chart)) take(0);
    if (chart.level !== null) take(chart.level);
    if (!(high >= low)) [low, high] = [0, 1];
    if (high === low) [low, high] = [low - 0.5, high + 0.5];
    if (log) [low, high] = [low / 1.03, high * 1.03];
    else {
      const room = 0.03 * (high - low);
      low = low === 0 ? 0 : low - room;
      high = high === 0 ? 0 : high + room;
    }
    const down = log ? (v) => (Math.log(high) - Math.log(v)) / (Math.log(high) - Math.log(low)) : (v) => (high - v) / (high - low);
    return { low, high, log, down };
  };
  const figureZero = (chart) => chart.figure.dataset.zero === "1" || chart.areas[0] !== "";
  const across = (k) => (times[k] - times[view.from]) / (times[view.to] - times[view.from]);

  const runs = (values, down, height) => {
    const found = [], wide = Math.max(1, Math.floor((view.to - view.from) / 1400));
    let run = [];
    const end = () => { if (run.length) found.push(run); run = []; };
    for (let k = view.from; k <= view.to; k += wide) {
      let least = -1, most = -1;
      for (let j = k; j < Math.min(k + wide, view.to + 1); j++) {
        if (!Number.isFinite(values[j])) continue;
        if (least < 0 || values[j] < values[least]) least = j;
        if (most < 0 || values[j] > values[most]) most = j;
      }
      if (least < 0) { end(); continue; }
      for (const j of least === most ? [least] : [Math.min(least, most), Math.max(least, most)])
        run.push(`${(1000 * across(j)).toFixed(1)},${(down(values[j]) * height).toFixed(1)}`);
    }
    end();
    return found;
  };

  const draw = (chart) => {
    const { low, high, log, down } = (chart.scale = scale(chart));
    const { height, form } = chart, paths = [];
    chart.keys.forEach((key, n) => {
      for (const run of runs(arrays[key], down, height)) {
        paths.push(make("path", { class: `line s${n + 1}`, d: `M${run.join(" ")}` }));
        if (chart.areas.includes(key)) {
          const base = (down(0) * height).toFixed(1);
          paths.push(make("path", { class: `area s${n + 1}`, d: `M${run[0].split(",")[0]},${base}L${run.join(" ")}V${base}Z` }));
        }
      }
    });
    if (chart.level !== null) paths.push(make("path", { class: "level", d: `M0,${(down(chart.level) * height).toFixed(1)}H1000` }));
    chart.inner.replaceChildren(...paths.reverse());
    const marks = log ? logTicks(low, high) : ticks(low, high, Math.max(3, Math.floor(height / 45)));
    const y = (value) => (1 + down(value) * height).toFixed(1);
    chart.grid.replaceChildren(...marks.map((v) => make("line", { x1: 0, x2: "100%", y1: y(v), y2: y(v) })));
    chart.left.replaceChildren(...marks.map((v) => make("text", { x: 44, y: Number(y(v)) + 4 }, short(v, form))));
    chart.below.replaceChildren(...timeTicks(times[view.from], times[view.to]).map(([time, text]) => {
      const place = (time - times[view.from]) / (times[view.to] - times[view.from]);
      return make("text", { x: `${(100 * place).toFixed(2)}%`, y: height + 17, class: place < 0.04 ? "first" : place > 0.96 ? "last" : "mid" }, text);
    }));
  };
  const point = () => {
    for (const chart of charts) {
      const known = view.at >= view.from && view.at <= view.to;
      chart.cross.replaceChildren();
      chart.readout.textContent = "";
      if (!known) continue;
      chart.scale = chart.scale || scale(chart);
      const x = `${(100 * across(view.at)).toFixed(3)}%`;
      chart.cross.append(make("line", { x1: x, x2: x, y1: 1, y2: chart.height + 1 }));
      chart.keys.forEach((key, n) => {
        const value = arrays[key][view.at];
        if (Number.isFinite(value)) chart.cross.append(make("circle", { class: `s${n + 1}`, cx: x, cy: (1 + chart.scale.down(value) * chart.height).toFixed(1), r: 3.5 }));
      });
      const values = chart.keys.map((key) => `${chart.keys.length > 1 ? `${data.curves[key]} ` : ""}${written(arrays[key][view.at], chart.form)}`);
      chart.readout.textContent = `${when(times[view.at])}  ${values.join("  ")}`;
    }
  };
  const range = document.querySelector(".tools .range");
  const told = () => {
    if (!range) return;
    if (view.from === 0 && view.to === times.length - 1) { range.textContent = "Drag across a chart to look closer."; return; }
    const part = arrays.period ? measured(returnsOf(view.from, view.to)).Sharpe : NaN;
    range.textContent = `${when(times[view.from])} to ${when(times[view.to])}: return ${written(equity[view.to] / equity[view.from] - 1, "percent")}, Sharpe ${written(part, "number")}, max drawdown ${written(fall(view.from, view.to), "percent")}`;
  };
  const buttons = [...document.querySelectorAll(".tools button[data-years]")];
  const show = (from, to) => {
    [view.from, view.to] = [Math.max(0, Math.min(from, times.length - 3)), Math.min(times.length - 1, Math.max(to, from + 2))];
    charts.forEach(draw);
    point();
    told();
    for (const button of buttons) button.setAttribute("aria-pressed", String(view.to === times.length - 1 && view.from === startOf(button)));
  };
  const startOf = (button) => {
    if (button.dataset.years === "0") return 0;
    const last = new Date(times[times.length - 1]);
    const edge = Date.UTC(last.getUTCFullYear() - Number(button.dataset.years), last.getUTCMonth(), last.getUTCDate());
    return Math.max(0, times.findIndex((time) => time >= edge));
  };
  const everything = () => show(0, times.length - 1);

  const tools = document.querySelector(".tools");
  if (tools) {
    tools.hidden = false;
    for (const button of buttons) {
      button.hidden = button.dataset.years !== "0" && startOf(button) === 0;
      button.addEventListener("click", () => show(startOf(button), times.length - 1));
    }
    const log = tools.querySelector("input");
    log.addEventListener("change", () => { view.log = log.checked; charts.forEach(draw); point(); });
    for (const button of buttons) button.hidden = button.hidden || buttons.every((other) => other === button || other.hidden);
    told();
  }
  for (const chart of charts) {
    let begun = null;
    const place = (event) => {
      const box = chart.main.getBoundingClientRect();
      const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      return { part, at: nearest(times[view.from] + part * (times[view.to] - times[view.from])) };
    };
    chart.axes.addEventListener("pointermove", (event) => {
      const now = place(event);
      view.at = now.at;
      point();
      if (begun === null) return;
      for (const other of charts) {
        other.chosen.setAttribute("x", `${100 * Math.min(begun.part, now.part)}%`);
        other.chosen.setAttribute("width", `${100 * Math.abs(begun.part - now.part)}%`);
      }
    });
    chart.axes.addEventListener("pointerleave", () => { if (begun === null) { view.at = -1; point(); } });
    chart.axes.addEventListener("pointerdown", (event) => { begun = place(event); chart.axes.setPointerCapture(event.pointerId); });
    const stop = (event) => {
      for (const other of charts) other.chosen.setAttribute("width", 0);
      const now = begun && place(event), first = begun;
      begun = null;
      if (first && event.type === "pointerup" && Math.abs(now.part - first.part) > 0.01) show(Math.min(first.at, now.at), Math.max(first.at, now.at));
    };
    chart.axes.addEventListener("pointerup", stop);
    chart.axes.addEventListener("pointercancel", stop);
    chart.axes.addEventListener("dblclick", everything);
    chart.axes.addEventListener("blur", () => { view.at = -1; point(); });
    chart.axes.addEventListener("keydown", (event) => {
      const step = (event.shiftKey ? 21 : 1) * ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
      const at = view.at < view.from || view.at > view.to ? view.to : view.at, width = view.to - view.from;
      if (step) view.at = Math.max(view.from, Math.min(view.to, view.at < 0 ? view.to : at + step));
      else if (event.key === "Home") view.at = view.from;
      else if (event.key === "End") view.at = view.to;
      else if (event.key === "+" || event.key === "=") return void (event.preventDefault(), show(at - Math.round(width / 4), at + Math.round(width / 4)));
      else if (event.key === "-") return void (event.preventDefault(), show(at - width, at + width));
      else if (event.key === "Escape") return void ((view.at = -1), everything());
      else return;
      event.preventDefault();
      point();
      chart.readout.setAttribute("aria-live", "polite");
    });
  }
})();
