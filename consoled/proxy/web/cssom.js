// SPDX-License-Identifier: Apache-2.0
// Lets libraries that write styles as text work under a Content-Security-Policy without inline styles.
//
// The policy blocks style elements and style attributes, as injected HTML could contain, but not scripts that
// use the CSS object model. For the scripts of this page, this module turns the former into the latter.

const createElement = document.createElement.bind(document);
const setAttribute = Element.prototype.setAttribute;

/** Return a stand-in for a style element; its text becomes an adopted style sheet. */
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
