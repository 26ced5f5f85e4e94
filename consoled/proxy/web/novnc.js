// SPDX-License-Identifier: Apache-2.0
// The page of a noVNC console. noVNC draws the screen and sends keys; this script does the rest.

import { askText, connected, consoleUrl, ending, library, onButton, openSocket, run, screen } from './page.js';

const KEY_INTERVAL = 15;  // ms; emulated keyboards have a short buffer and drop keys that arrive faster
const SHIFT = 0xffe1;
const NEEDS_SHIFT = /[A-Z~!@#$%^&*()_+{}|:"<>?]/;  // on the US layout, by which hypervisors map keysyms

let rfb = null;
let guestClipboard = '';

/** Return the X11 keysym of a character. */
function keysymFor(character) {
  const code = character.codePointAt(0);
  if (character === '\n') {
    return 0xff0d;
  }
  if (character === '\t') {
    return 0xff09;
  }
  // Latin-1 characters are their own keysyms, other Unicode characters have an offset
  return (code >= 0x20 && code <= 0x7e) || (code >= 0xa0 && code <= 0xff) ? code : 0x01000000 + code;
}

/** Type a text key by key, for guests without a clipboard, such as a login prompt. */
async function type(text) {
  const connection = rfb;
  for (const character of text.replace(/\r\n?/g, '\n')) {
    if (rfb !== connection) {
      return;
    }
    const shift = NEEDS_SHIFT.test(character);
    if (shift) {
      connection.sendKey(SHIFT, null, true);
    }
    connection.sendKey(keysymFor(character), null);
    if (shift) {
      connection.sendKey(SHIFT, null, false);
    }
    await new Promise((resolve) => setTimeout(resolve, KEY_INTERVAL));
  }
}

async function paste() {
  const answer = await askText(guestClipboard);
  rfb?.focus();
  if (answer?.action === 'type') {
    await type(answer.text);
  } else if (answer) {
    rfb?.clipboardPasteFrom(answer.text);
  }
}

/**
 * Call `failed` when noVNC throws an error at what it reads from a websocket.
 *
 * It ends by itself at most errors. After the others it would go on with a screen that does not change any more.
 */
function watchReader(socket, failed) {
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
  const socket = openSocket(consoleUrl());
  const end = ending(socket);
  let unreadable = false;
  watchReader(socket, () => {
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
  const text = 'The guest display sent data that this page does not understand.';
  return { reason: 'display_error', text, retryable: true };
}

onButton('ctrl-alt-del', () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
onButton('paste', paste);
run(open);
