/** Elements without markup: strings become text nodes, never HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an element. Properties: `on…` functions are listeners, `class` and everything else are attributes; null,
 * undefined and false are left out. Children: nodes, strings, numbers, arrays of them; null and false are left out.
 */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Set the text if it differs, to avoid a needless layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set an attribute if it differs; null removes it. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Set the custom property that meters are drawn from, 0 to 100. */
export function setShare(node, percent) {
  node.style.setProperty("--share", String(Math.max(0, Math.min(100, percent))));
}

/**
 * A parent whose children are views of items, by key: views of known items are updated in place, others are created or
 * removed. A view is `{node, update?(item), end?()}`.
 */
export class Keyed {
  constructor(parent, keyOf, create) {
    this._parent = parent;
    this._keyOf = keyOf;
    this._create = create;
    this._views = new Map();
  }

  /** Show exactly these items. `changed(item)`: whether the view of a known item must be updated. */
  show(items, changed = () => true) {
    const gone = new Map(this._views);
    let place = this._parent.firstChild;
    for (const item of items) {
      const key = this._keyOf(item);
      gone.delete(key);
      const view = this._view(key, item, changed);
      if (view.node === place) place = place.nextSibling;
      else this._parent.insertBefore(view.node, place);
    }
    for (const [key, view] of gone) this._drop(key, view);
  }

  get(key) {
    return this._views.get(key);
  }

  /** The key of the view that has this node. */
  keyOf(node) {
    for (const [key, view] of this._views) if (view.node === node) return key;
    return undefined;
  }

  /** Make the view of an item that is to be shown next. */
  make(item) {
    this._view(this._keyOf(item), item, () => false);
  }

  views() {
    return this._views.values();
  }

  clear() {
    for (const [key, view] of this._views) this._drop(key, view);
  }

  _view(key, item, changed) {
    const known = this._views.get(key);
    if (known) {
      if (changed(item)) known.update?.(item);
      return known;
    }
    const view = this._create(item);
    this._views.set(key, view);
    return view;
  }

  _drop(key, view) {
    view.node.remove();
    view.end?.();
    this._views.delete(key);
  }
}
