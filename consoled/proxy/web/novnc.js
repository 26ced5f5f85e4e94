// SPDX-License-Identifier: Apache-2.0
// The page of a noVNC console. noVNC draws the screen and sends keys; this script does the rest.

import {
  askText, connected, consoleUrl, ending, library, onButton, openSocket, run, screen, status, UNREADABLE,
} from './page.js';
import { typeText } from './typist.js';

// Characters. To type them takes an hour; as a clipboard, QEMU would take up to 1 MiB, and disconnect for more.
const MAX_TEXT = 100000;

const pasteButton = document.getElementById('paste');
let rfb = null;
let socket = null;
let stopTyping = null;  // while a text is being typed
let guestClipboard = '';

/** Type a text into the guest. The user's own keys are dropped meanwhile, and no other text can be given. */
async function type(text) {
  const connection = rfb;
  pasteButton.disabled = true;
  const stop = new AbortController();
  stopTyping = stop;
  status('Typing… Press Escape to stop.');
  connection.addEventListener('disconnect', () => stop.abort());
  await typeText(text, (keysym, down) => connection.sendKey(keysym, null, down), socket, stop.signal);
  stopTyping = null;
  if (rfb === connection) {
    status('Connected');
    pasteButton.disabled = false;
  }
}

/** Drop keys while a text is being typed: they would get between its characters, and Shift would change them. */
function dropKeys(event) {
  if (stopTyping !== null) {
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.key === 'Escape') {
      stopTyping.abort();
    }
  }
}

async function paste() {
  const answer = await askText(guestClipboard, MAX_TEXT);
  rfb?.focus();
  if (answer?.action === 'type') {
    await type(answer.text);
  } else if (answer) {
    rfb?.clipboardPasteFrom(answer.text);
  }
}

/**
 * Call `failed` when noVNC throws an error at what it reads from the websocket.
 *
 * It ends by itself at most errors. After the others it would go on with a screen that does not change any more.
 */
function watchReader(failed) {
  let read = () => {};
  Object.defineProperty(socket, 'onmessage', { get: () => read, set: (handler) => { read = handler; } });
  socket.addEventListener('message', (event) => {
    try {
      read(event);
    } catch (error) {
      console.error(error);
      failed();
    }
  });
}

/** Run noVNC on a websocket of our own, because noVNC does not report how its websocket was closed. */
async function open() {
  const { default: RFB } = await library(import('../novnc/core/rfb.js'));
  socket = openSocket(consoleUrl());
  const end = ending(socket);
  let unreadable = false;
  watchReader(() => {
    unreadable = true;
    current.disconnect();
  });
  const current = new RFB(screen, socket, { shared: true });
  rfb = current;
  current.scaleViewport = true;
  current.background = 'transparent';
  let failure = null;
  current.addEventListener('connect', () => {
    connected();
    current.focus();
  });
  current.addEventListener('clipboard', (event) => { guestClipboard = event.detail.text; });
  current.addEventListener('securityfailure', (event) => {
    failure = event.detail.reason || 'the server refused the connection';
  });
  current.addEventListener('credentialsrequired', () => {
    failure = 'it requires a password';
    current.disconnect();
  });
  await new Promise((resolve) => { current.addEventListener('disconnect', resolve); });
  rfb = null;
  guestClipboard = '';
  if (failure !== null) {
    const text = `The guest display cannot be shown: ${failure}.`;
    return { reason: 'console_failed', text, retryable: true };
  }
  if (socket.readyState === WebSocket.CLOSED && !unreadable) {
    return end;
  }
  socket.close();  // noVNC has given up, which it says before the websocket is closed
  return UNREADABLE;
}

onButton('ctrl-alt-del', () => {
  stopTyping?.abort();
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
onButton('paste', paste);
for (const type of ['keydown', 'keyup']) {
  screen.addEventListener(type, dropKeys, { capture: true });
}
run(open);
