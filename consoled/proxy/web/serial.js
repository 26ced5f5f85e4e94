// SPDX-License-Identifier: Apache-2.0
// The page of a serial console: a terminal for a stream of bytes.

import './cssom.js';  // before xterm.js creates its styles
import '../terminal/xterm.js';
import {
  askText, connected, consoleUrl, ending, nameConsole, onButton, openSocket, run, screen, status,
} from './page.js';

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
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// Bytes of the longest message. The proxy's max_message_size is never less.
const MESSAGE = 1024;
// Bytes that may wait in the browser. More would wait in front of acknowledgements.
const MAX_BUFFERED = 64 * 1024;
const BUFFER_CHECK = 20;  // ms

// With this subprotocol, the proxy holds the guest back until the page has acknowledged what it has shown.
// The browser alone would take in what a guest prints without end, until its memory is full.
const FLOW = 'consoled.flow';
// The same, and the proxy begins with a text message if it has opened another serial port than the token's.
const SERIAL = 'consoled.serial';
const ACKNOWLEDGED = 16 * 1024;  // bytes that one acknowledgement covers, at least

// Control sequences (the last letter of CSI Ps …) that xterm.js carries out as often as they say, up to 2^31 times:
// tabs, lines inserted and deleted, the screen scrolled, the last character repeated.
const REPEATED = ['I', 'L', 'M', 'S', 'T', 'Z', 'b'];
const MAX_REPEATED = 2000;  // more than a screen has rows or columns

const MOST_OFFERED = 16;  // serial ports, each by a button
const UNCHOOSABLE = ['console_gone', 'invalid_argument'];  // why a port that was offered cannot be opened any more

// What a screen begins with (RFC 6143, section 7.1.1): somebody has opened the URL of a websocket in a browser.
const SCREEN = 'RFB 003.';
const NO_SERIAL = {
  reason: 'wrong_page',
  text: 'This is the screen of a guest, and no serial console. Open it again from your dashboard.',
  retryable: false,
};

const SILENCE = 1000;  // ms after which the page says that the guest is silent

const silent = document.getElementById('silent');
let socket = null;
let unsent = [];  // what the user has typed or pasted, as Uint8Arrays
let chosen = null;  // the number of the serial port that the user has chosen; null: the token's own
let pumping = null;  // the timer that sends more of it

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
    unsent.push(bytes);
    pump();
  }
}

/** Send what the user has typed or pasted: in short messages, and no faster than the network takes them. */
function pump() {
  clearTimeout(pumping);
  while (unsent.length && socket?.readyState === WebSocket.OPEN) {
    if (socket.bufferedAmount > MAX_BUFFERED) {
      pumping = setTimeout(pump, BUFFER_CHECK);
      return;
    }
    socket.send(unsent[0].subarray(0, MESSAGE));
    unsent[0] = unsent[0].subarray(MESSAGE);
    if (!unsent[0].length) {
      unsent.shift();
    }
  }
}

/** Show what a websocket receives, and acknowledge it once it is shown. */
function show(current) {
  let shown = 0;
  let acknowledged = 0;
  current.addEventListener('message', (event) => {
    if (current.protocol === SERIAL && typeof event.data === 'string') {
      nameConsole(`Serial port ${JSON.parse(event.data).serial_port}`);
      return;
    }
    // a character may be split over two messages: given bytes, xterm.js joins UTF-8 again
    const bytes = typeof event.data === 'string' ? encoder.encode(event.data) : new Uint8Array(event.data);
    terminal.write(bytes, () => {
      shown += bytes.length;
      if (shown - acknowledged >= ACKNOWLEDGED && [SERIAL, FLOW].includes(current.protocol)) {
        acknowledged = shown;
        current.send(String(shown));
      }
    });
  });
}

/** Ignore sequences that would stop the page for minutes, or xterm.js for ever. Line noise contains them, too. */
function ignoreEndless() {
  for (const final of REPEATED) {
    terminal.parser.registerCsiHandler({ final }, ([times]) => times > MAX_REPEATED);
  }
}

/** Say that the guest is silent, if it is: nobody can tell that from a console that does not work. */
function watchSilence(current) {
  const timer = setTimeout(() => { silent.hidden = false; }, SILENCE);
  const stop = () => {
    clearTimeout(timer);
    silent.hidden = true;
  };
  current.addEventListener('message', function heard(event) {
    if (typeof event.data !== 'string') {
      stop();
      current.removeEventListener('message', heard);
    }
  });
  current.addEventListener('close', stop);
}

/** Return the URL of the websocket, with the serial port that the user has chosen. */
function portUrl() {
  const url = new URL(consoleUrl());
  if (chosen !== null) {
    url.searchParams.set('serial_port', chosen);
  }
  return url.href;
}

/** Offer the free serial ports of a guest whose port is taken. Nothing is opened until the user chooses. */
function offer(ports, again) {
  const buttons = document.getElementById('ports');
  const free = document.getElementById('free');
  const numbers = ports === null ? [] : ports.free.slice(0, MOST_OFFERED);
  buttons.hidden = free.hidden = !numbers.length;
  free.textContent = numbers.length === 1
    ? `Serial port ${numbers[0]} of ${ports.count} is free.`
    : `Other serial ports of this guest are free: ${numbers.join(', ')}.`;
  buttons.replaceChildren(...numbers.map((number) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = `Open serial port ${number}`;
    button.addEventListener('click', () => {
      chosen = number;
      again();
    });
    return button;
  }));
}

async function open() {
  socket = openSocket(portUrl(), [SERIAL, FLOW]);
  unsent = [];
  const current = socket;
  let isScreen = false;
  current.addEventListener('message', ({ data }) => {
    isScreen = typeof data !== 'string' && decoder.decode(data).startsWith(SCREEN);
    if (isScreen) {
      current.close();
    }
  }, { once: true });
  current.addEventListener('open', () => {
    connected();
    watchSilence(current);
    terminal.focus();
  });
  show(current);
  const how = await ending(current);
  socket = null;
  if (isScreen) {
    return NO_SERIAL;
  }
  if (chosen !== null && !how.retryable && UNCHOOSABLE.includes(how.reason)) {
    chosen = null;  // the guest has changed since the port was offered, so try that of the token again
    how.retryable = true;
  }
  return how;
}

/** Give the focus to the terminal, unless the console has ended: then it is on the notice. */
function focusTerminal() {
  if (socket !== null) {
    terminal.focus();
  }
}

async function paste() {
  const answer = await askText();
  if (answer) {
    terminal.paste(answer.text);
  }
  focusTerminal();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(terminal.getSelection());
  } catch {  // as in a frame without allow="clipboard-write"
    status('This browser does not allow copying here. Use its menu: right-click the selection.');
  }
  focusTerminal();
}

function prepare() {
  terminal.open(screen);
  ignoreEndless();
  terminal.attachCustomKeyEventHandler(() => socket !== null);  // Tab leads from an ended console to the notice
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
    focusTerminal();
  });
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(screen);
}

prepare();
run(open, offer);
