(function () {
  "use strict";

  var collator = new Intl.Collator("en", { numeric: true });

  function has(text, part) {
    return text.toLowerCase().includes(part.trim().toLowerCase());
  }

  // Tables: a button in every head of the last head row sorts by its column; empty values stay last.
  document.querySelectorAll("table[data-sortable]").forEach(function (table) {
    var rows = table.tHead.rows;
    var heads = Array.from(rows[rows.length - 1].cells);
    heads.forEach(function (head, column) {
      if (head.hasAttribute("data-fixed")) return;
      var button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      var numeric = head.classList.contains("num");

      function value(row) {
        var cell = row.cells[column];
        return cell.hasAttribute("data-v") ? cell.dataset.v : cell.textContent.trim();
      }

      button.addEventListener("click", function () {
        var sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        var body = table.tBodies[0];
        body.append(...Array.from(body.rows).sort(function (a, b) {
          var first = value(a), second = value(b);
          if ((first === "") !== (second === "")) return first === "" ? 1 : -1;
          return sign * (numeric ? first - second : collator.compare(first, second));
        }));
      });
    });
  });

  // Tables that can be searched: rows whose words, not numbers, hold the text stay.
  document.querySelectorAll("[data-find]").forEach(function (controls) {
    var rows = Array.from(document.getElementById(controls.dataset.find).tBodies[0].rows);
    var input = controls.querySelector("input");

    function words(row) {
      return Array.from(row.querySelectorAll("th, td:not(.num, .taken)"), function (cell) { return cell.textContent; });
    }

    function update() {
      rows.forEach(function (row) { row.hidden = !has(words(row).join("\n"), input.value); });
      var left = rows.filter(function (row) { return !row.hidden; });
      controls.querySelector(".shown").textContent = left.length + " of " + rows.length + " rows shown";
    }

    controls.hidden = false;
    input.addEventListener("input", update);
    update();
  });

  // Galleries: filter, sort, a page at a time.
  document.querySelectorAll("[data-gallery]").forEach(function (gallery) {
    var step = Number(gallery.dataset.step), limit = step;
    var list = gallery.querySelector(".cards");
    var cards = Array.from(list.children);
    var controls = gallery.querySelector(".controls");
    var inputs = Array.from(controls.querySelectorAll("[data-by]"));
    var clear = controls.querySelector(".clear");
    var more = gallery.querySelector(".more");

    function wishes() {
      var wish = {};
      inputs.forEach(function (input) {
        if (input.type !== "radio" || input.checked) wish[input.dataset.by] = input.value;
      });
      return wish;
    }

    function fits(data, wish) {
      return (!wish.group || data.group === wish.group) &&
        (!wish.given || data.given === wish.given) &&
        (!wish.proposed || data.proposed === wish.proposed) &&
        has([data.key, data.given, data.proposed].join("\n"), wish.text) &&
        (!wish.score || 100 * data.score >= wish.score - 1e-9);
    }

    function update(event) {
      if (event) limit = step;
      var wish = wishes();
      var order = cards.slice();
      if (wish.order) {
        order.sort(function (a, b) { return collator.compare(a.dataset[wish.order], b.dataset[wish.order]); });
      }
      var matching = order.filter(function (card) { return fits(card.dataset, wish); });
      cards.forEach(function (card) { card.hidden = true; });
      matching.slice(0, limit).forEach(function (card) { card.hidden = false; });
      list.append(...order);
      more.hidden = matching.length <= limit;
      clear.hidden = matching.length === cards.length;
      controls.querySelector("[role=status]").textContent =
        Math.min(limit, matching.length) + " of " + matching.length + " pictures shown" +
        (clear.hidden ? "" : ", " + cards.length + " in all");
      return matching;
    }

    controls.hidden = false;
    controls.addEventListener("input", update);
    clear.addEventListener("click", function () {
      inputs.forEach(function (input) {
        if (input.type === "radio") input.checked = input.value === "";
        else if (input.dataset.by !== "order") input.value = "";
      });
      inputs[0].focus();
      update(true);
    });
    more.querySelector("button").addEventListener("click", function () {
      var first = limit;
      limit += step;
      var card = update()[first];
      card.tabIndex = -1;
      card.focus();
    });
    update();
    // Paper has no buttons: what matches is printed whole.
    var before;
    window.addEventListener("beforeprint", function () { before = limit; limit = cards.length; update(); });
    window.addEventListener("afterprint", function () { limit = before; update(); });
  });
})();
