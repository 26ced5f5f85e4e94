// SPDX-License-Identifier: Apache-2.0
// The page of a noVNC console: noVNC draws and sends keys, everything around it is here.

import { askText, connected, consoleUrl, ending, onButton, openSocket, run, screen } from './page.js';

const KEY_INTERVAL = 15;  // ms; an emulated keyboard has a short buffer and drops what comes faster
const SHIFT = 0xffe1;
const NEEDS_SHIFT = /[A-Z~!@#$%^&*()_+{}|:"<>?]/;  // the US layout, which hypervisors map keysyms by

let rfb = null;
let guestClipboard = '';

function keysymOf(character) {
  const code = character.codePointAt(0);
  if (character === '\n') {
    return 0xff0d;
  }
  if (character === '\t') {
    return 0xff09;
  }
  // X11: Latin-1 characters are their own keysyms, those of Unicode have an offset
  return (code >= 0x20 && code <= 0x7e) || (code >= 0xa0 && code <= 0xff) ? code : 0x01000000 + code;
}

/** Type for guests that know nothing of a clipboard, such as a login prompt. */
async function type(text) {
  const typist = rfb;
  for (const character of text.replace(/\r\n?/g, '\n')) {
    if (rfb !== typist) {
      return;
    }
    const shift = NEEDS_SHIFT.test(character);
    if (shift) {
      typist.sendKey(SHIFT, null, true);
    }
    typist.sendKey(keysymOf(character), null);
    if (shift) {
      typist.sendKey(SHIFT, null, false);
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

async function open() {
  const url = consoleUrl();
  const { default: RFB } = await import('../novnc/core/rfb.js');
  // ours, not noVNC's: it keeps the close code to itself
  const socket = openSocket(url);
  const end = ending(socket);
  rfb = new RFB(screen, socket, { shared: true });
  rfb.scaleViewport = true;
  rfb.background = 'transparent';
  const mine = rfb;
  let failure = null;
  rfb.addEventListener('connect', () => {
    connected();
    mine.focus();
  });
  rfb.addEventListener('clipboard', (event) => { guestClipboard = event.detail.text; });
  rfb.addEventListener('securityfailure', (event) => { failure = event.detail.reason || 'its security handshake failed'; });
  rfb.addEventListener('credentialsrequired', () => {
    failure = 'it asks for a password';
    mine.disconnect();
  });
  const gone = new Promise((resolve) => {
    rfb.addEventListener('disconnect', (event) => resolve(event.detail.clean));
  });
  const clean = await gone;
  rfb = null;
  guestClipboard = '';
  if (failure !== null) {
    return { reason: 'console_failed', text: 'The guest\u2019s display can not be shown: ' + failure + '.', retryable: true };
  }
  // 1005 is what closing from this side looks like: noVNC does that when it can not go on
  if (!clean && socket.readyState === WebSocket.CLOSING) {
    return { reason: 'connection_lost', text: 'The connection was lost.', retryable: true };
  }
  const how = await end;
  if (!clean && how.reason === 'closed') {
    return { reason: 'display_error', text: 'The guest\u2019s display sent something that this page does not understand.', retryable: true };
  }
  return how;
}

onButton('ctrl-alt-del', () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
onButton('paste', paste);
run(open);
