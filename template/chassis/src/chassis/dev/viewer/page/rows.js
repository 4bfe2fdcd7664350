// A list of rows of one height, of which only the visible ones are in the document.
export class Rows {
  constructor(box, draw, open) {
    Object.assign(this, { box, draw, items: [], chosen: -1, shown: new Map(), waiting: false });
    box.addEventListener("scroll", () => this.soon());
    box.addEventListener("click", (event) => {
      // By the position, because a row that is drawn again between press and release gets no click.
      const index = Math.floor((event.clientY - box.getBoundingClientRect().top + box.scrollTop) / this.height);
      if (index < this.items.length) open(this.select(index));
    });
    new ResizeObserver(() => (this.height === this.rowHeight() ? this.render() : this.set(this.items))).observe(box);
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row"));
  }

  set(items, chosen = this.chosen) {
    this.items = items;
    this.chosen = Math.min(chosen, items.length - 1);
    this.height = this.rowHeight();
    this.box.firstElementChild.style.height = `${items.length * this.height}px`;
    for (const row of this.shown.values()) row.remove();
    this.shown.clear();
    this.render();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    this.waiting = false;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 8);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 8);
    for (const [index, row] of this.shown) {
      if (index >= first && index < last) continue;
      row.remove();
      this.shown.delete(index);
    }
    const added = document.createDocumentFragment();
    for (let index = first; index < last; index++) {
      if (this.shown.has(index)) continue;
      const row = this.draw(this.items[index], index);
      row.classList.add("row");
      row.id = `${this.box.id}-${index}`;
      row.setAttribute("role", this.box.getAttribute("role") === "tree" ? "treeitem" : "option");
      row.setAttribute("aria-setsize", this.items.length);
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-selected", index === this.chosen);
      row.style.transform = `translateY(${index * this.height}px)`;
      this.shown.set(index, row);
      added.append(row);
    }
    this.box.firstElementChild.append(added);
  }

  select(index) {
    if (!this.items.length) return null;
    this.shown.get(this.chosen)?.setAttribute("aria-selected", false);
    this.chosen = Math.max(0, Math.min(index, this.items.length - 1));
    const top = this.chosen * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const bottom = top + this.height - this.box.clientHeight;
    if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.render();
    this.shown.get(this.chosen)?.setAttribute("aria-selected", true);
    this.box.setAttribute("aria-activedescendant", `${this.box.id}-${this.chosen}`);
    return this.items[this.chosen];
  }
}
