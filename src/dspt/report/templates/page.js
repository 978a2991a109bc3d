(function () {
  "use strict";

  // Tables: a button in every head sorts by its column. Empty values stay last.
  document.querySelectorAll("table[data-sortable]").forEach(function (table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      if (head.hasAttribute("data-fixed")) return;
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) button.appendChild(head.firstChild);
      head.appendChild(button);
      button.addEventListener("click", function () {
        var numeric = head.classList.contains("num");
        var descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        var body = table.tBodies[0];
        Array.from(body.rows)
          .map(function (row) {
            var cell = row.cells[column];
            var value = cell.hasAttribute("data-v") ? cell.getAttribute("data-v") : cell.textContent.trim();
            return { row: row, value: value };
          })
          .sort(function (a, b) {
            if ((a.value === "") !== (b.value === "")) return a.value === "" ? 1 : -1;
            var order = numeric ? a.value - b.value : a.value.localeCompare(b.value);
            return descending ? -order : order;
          })
          .forEach(function (entry) { body.appendChild(entry.row); });
      });
    });
  });

  // Galleries: filter by group and class, a page at a time.
  document.querySelectorAll("[data-gallery]").forEach(function (gallery) {
    var step = Number(gallery.dataset.step);
    var limit = step;
    var cards = Array.from(gallery.querySelectorAll(".sample"));
    var controls = gallery.querySelector(".controls");
    var select = gallery.querySelector("select");
    var more = gallery.querySelector(".more");
    var shown = gallery.querySelector(".shown");

    function update() {
      var checked = gallery.querySelector("input:checked");
      var group = checked ? checked.value : "";
      var wanted = select ? select.value : "";
      var matching = cards.filter(function (card) {
        return (group === "" || card.dataset.group === group) &&
          (wanted === "" || card.dataset.classes.split(" ").indexOf(wanted) >= 0);
      });
      cards.forEach(function (card) { card.hidden = true; });
      matching.slice(0, limit).forEach(function (card) { card.hidden = false; });
      more.hidden = matching.length <= limit;
      shown.textContent = Math.min(limit, matching.length) + " of " + matching.length +
        (matching.length === 1 ? " picture" : " pictures");
    }

    controls.hidden = false;
    controls.addEventListener("change", function () { limit = step; update(); });
    more.querySelector("button").addEventListener("click", function () {
      var first = limit;
      limit += step;
      update();
      var visible = cards.filter(function (card) { return !card.hidden; });
      if (visible[first]) { visible[first].tabIndex = -1; visible[first].focus(); }
    });
    update();
    window.addEventListener("beforeprint", function () {
      cards.forEach(function (card) { card.hidden = false; });
    });
    window.addEventListener("afterprint", update);
  });
})();
