"use strict";
// Headings of tables sort their rows: numbers by value, text by alphabet, empty cells last.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      const numeric = head.classList.contains("number");
      const key = (row) => row.cells[column].dataset.value ?? "";
      const rows = [...body.rows].sort((a, b) => {
        const [first, second] = [key(a), key(b)];
        if (first === "" || second === "") return (first === "") - (second === "");
        return way * (numeric ? first - second : first.localeCompare(second));
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
