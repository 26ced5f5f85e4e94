// SPDX-License-Identifier: Apache-2.0
// Lets libraries that write styles as text work under a policy that forbids inline styles.
//
// The policy stops style elements and style attributes, which are also what injected HTML would bring, but
// not scripts that use the CSS object model. For this page's scripts, the first are turned into the second.

const createElement = document.createElement.bind(document);
const setAttribute = Element.prototype.setAttribute;

/** Something to hold in the tree in place of a style element; its text goes into a sheet of its own. */
function styleElement() {
  const holder = createElement('template');
  const sheet = new CSSStyleSheet();
  let text = '';
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(holder, 'textContent', {
    get: () => text,
    set: (value) => {
      text = String(value);
      sheet.replaceSync(text);
    },
  });
  holder.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
    Element.prototype.remove.call(holder);
  };
  return holder;
}

document.createElement = (name, options) => (
  String(name).toLowerCase() === 'style' ? styleElement() : createElement(name, options)
);

Element.prototype.setAttribute = function (name, value) {
  if (name === 'style' && this.style) {
    this.style.cssText = value;
  } else {
    setAttribute.call(this, name, value);
  }
};
