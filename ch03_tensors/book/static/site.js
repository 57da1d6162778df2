// Theme and search of the lessons' pages. Opened from a folder (file://) nothing can be fetched, so the index is a script too.
(() => {
  const root = document.documentElement;
  const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                   set: value => { try { localStorage.setItem("theme", value); } catch { /* private mode */ } } };
  if (stored.get()) root.dataset.theme = stored.get();

  function score(row, words) {
    let sum = 0;
    for (const word of words) {
      const at = row.keys.indexOf(word);
      if (at < 0) return -1;
      const name = row.en.toLowerCase();
      const last = name.split(" · ")[0].split(".").pop();
      sum += (last === word || row.at === word ? 8 : 0) + (last.startsWith(word) ? 3 : 0) + (at === 0 ? 2 : 0);
      if (row.keys.split(" ").includes(word)) sum += 4;  // a lesson's number as a whole
      if (name.includes(word) || row.zh.includes(word)) sum += row.kind === "lesson" ? 4 : 1;
    }
    return sum + { lesson: 2, page: 1.5, function: 1, API: 0 }[row.kind];
  }

  function search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    const rows = (window.INDEX || []).map(row => [score(row, words), row]).filter(([value]) => value >= 0);
    return rows.sort((a, b) => b[0] - a[0]).slice(0, 20).map(([, row]) => row);
  }

  function addressOf(row) {
    const suffix = row.both === false ? "" : root.dataset.suffix;
    return root.dataset.root + row.page + suffix + ".html" + (row.at ? "#" + row.at : "");
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").onclick = () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      stored.set(root.dataset.theme);
    };
    const box = document.getElementById("search"), list = document.getElementById("found");
    const language = root.lang === "zh-CN" ? "zh" : "en";
    let chosen = 0;

    function mark() {
      [...list.children].forEach((item, k) => item.setAttribute("aria-selected", k === chosen));
      list.children[chosen]?.scrollIntoView({ block: "nearest" });
    }

    function show() {
      const rows = search(box.value);
      chosen = 0;
      list.hidden = !box.value.trim();
      list.replaceChildren(...rows.map(row => {
        const item = document.createElement("li"), link = document.createElement("a"), kind = document.createElement("small");
        link.href = addressOf(row);
        link.textContent = row[language];
        kind.textContent = row.kind === "lesson" ? row.page.split("/").pop() : "";
        link.append(kind);
        item.append(link);
        return item;
      }));
      if (!rows.length) {
        const item = document.createElement("li");
        item.className = "none";
        item.textContent = box.dataset.none;
        list.append(item);
      }
      mark();
    }

    box.oninput = show;
    box.onkeydown = event => {
      const last = list.children.length - 1;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        chosen = Math.min(last, Math.max(0, chosen + (event.key === "ArrowDown" ? 1 : -1)));
        mark();
        event.preventDefault();
      } else if (event.key === "Escape") {
        list.hidden = true;
      }
    };
    box.form.onsubmit = event => {
      event.preventDefault();
      list.children[chosen]?.querySelector("a")?.click();
    };
    list.onclick = () => { list.hidden = true; };
    document.addEventListener("click", event => { if (!box.form.contains(event.target)) list.hidden = true; });
  });
})();
