// SPDX-License-Identifier: Apache-2.0
// The page of a serial console: a terminal for a stream of bytes.

import './cssom.js';  // before xterm.js creates its styles
import '../terminal/xterm.js';
import { askText, connected, consoleUrl, ending, onButton, openSocket, run, screen } from './page.js';

const SCROLLBAR = 14;  // pixels that xterm.js lays over the right edge

const terminal = new globalThis.Terminal({
  cursorBlink: true,
  fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
  fontSize: 15,
  // the guest controls the text: a click must not open a link in it
  linkHandler: { activate() {} },
  scrollback: 5000,
  theme: { background: '#0b0e14', foreground: '#d7dce5', cursor: '#7aa2f7', selectionBackground: '#33467c' },
});
let socket = null;

/** Resize the terminal to the available space. The guest does not learn of it over a serial line. */
function fit() {
  const cells = screen.querySelector('.xterm-screen').getBoundingClientRect();
  if (!cells.width || !cells.height) {
    return;
  }
  const columns = Math.floor((screen.clientWidth - SCROLLBAR) / (cells.width / terminal.cols));
  const rows = Math.floor(screen.clientHeight / (cells.height / terminal.rows));
  terminal.resize(Math.max(20, columns), Math.max(5, rows));
}

function send(bytes) {
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(bytes);
  }
}

async function open() {
  socket = openSocket(consoleUrl());
  const current = socket;
  current.addEventListener('open', () => {
    connected();
    terminal.focus();
  });
  current.addEventListener('message', (event) => {
    // a character may be split over two messages: given bytes, xterm.js joins UTF-8 again
    terminal.write(typeof event.data === 'string' ? event.data : new Uint8Array(event.data));
  });
  const how = await ending(current);
  socket = null;
  return how;
}

async function paste() {
  const answer = await askText();
  if (answer) {
    terminal.paste(answer.text);
  }
  terminal.focus();
}

async function copy() {
  await navigator.clipboard.writeText(terminal.getSelection());
  terminal.focus();
}

function prepare() {
  terminal.open(screen);
  const encoder = new TextEncoder();
  terminal.onData((text) => send(encoder.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (character) => character.charCodeAt(0))));

  const copyButton = document.getElementById('copy');
  copyButton.hidden = navigator.clipboard === undefined;  // only available to pages served over HTTPS
  terminal.onSelectionChange(() => { copyButton.disabled = !terminal.hasSelection(); });
  onButton('copy', copy);
  onButton('paste', paste);

  const reader = document.getElementById('reader');
  onButton('reader', () => {
    terminal.options.screenReaderMode = !terminal.options.screenReaderMode;
    reader.setAttribute('aria-pressed', String(terminal.options.screenReaderMode));
    terminal.focus();
  });
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(screen);
}

prepare();
run(open);
