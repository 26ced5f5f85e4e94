// SPDX-License-Identifier: Apache-2.0
// The page of a serial console: a terminal on a stream of bytes.

import './cssom.js';  // before xterm.js makes its styles
import '../terminal/xterm.js';
import { askText, connected, consoleUrl, ending, onButton, openSocket, run, screen } from './page.js';

const SCROLLBAR = 14;  // pixels that xterm.js lays over the right edge

const terminal = new globalThis.Terminal({
  cursorBlink: true,
  fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
  fontSize: 15,
  // the guest writes what it likes: a link that it names must not open on a click
  linkHandler: { activate() {} },
  scrollback: 5000,
  theme: { background: '#0b0e14', foreground: '#d7dce5', cursor: '#7aa2f7', selectionBackground: '#33467c' },
});
let socket = null;

/** Give the terminal the columns and rows that there is room for. A serial line does not tell the guest. */
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
  const mine = socket;
  mine.addEventListener('open', () => {
    connected();
    terminal.focus();
  });
  mine.addEventListener('message', (event) => {
    // a character may come in two messages: xterm.js puts UTF-8 together again
    terminal.write(typeof event.data === 'string' ? event.data : new Uint8Array(event.data));
  });
  const how = await ending(mine);
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
  copyButton.hidden = navigator.clipboard === undefined;  // only pages over HTTPS may
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
