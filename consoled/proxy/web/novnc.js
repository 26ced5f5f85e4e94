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

/** noVNC on a websocket of ours, which tells how it was closed; noVNC would keep that to itself. */
async function open() {
  const url = consoleUrl();
  const { default: RFB } = await import('../novnc/core/rfb.js');
  const socket = openSocket(url);
  const end = ending(socket);
  const mine = new RFB(screen, socket, { shared: true });
  rfb = mine;
  mine.scaleViewport = true;
  mine.background = 'transparent';
  let failure = null;
  mine.addEventListener('connect', () => {
    connected();
    mine.focus();
  });
  mine.addEventListener('clipboard', (event) => { guestClipboard = event.detail.text; });
  mine.addEventListener('securityfailure', (event) => { failure = event.detail.reason || 'it refused'; });
  mine.addEventListener('credentialsrequired', () => {
    failure = 'it asks for a password';
    mine.disconnect();
  });
  const clean = await new Promise((resolve) => {
    mine.addEventListener('disconnect', (event) => resolve(event.detail.clean));
  });
  rfb = null;
  guestClipboard = '';
  if (failure !== null) {
    const text = `The guest\u2019s display can not be shown: ${failure}.`;
    return { reason: 'console_failed', text, retryable: true };
  }
  if (socket.readyState !== WebSocket.CLOSED) {  // noVNC waits 3 s for an answer to its close
    return { reason: 'connection_lost', text: 'The connection was lost.', retryable: true };
  }
  const how = await end;
  if (!clean && how.reason === 'closed') {  // by this side: noVNC could not go on
    const text = 'The guest\u2019s display sent something that this page does not understand.';
    return { reason: 'display_error', text, retryable: true };
  }
  return how;
}

onButton('ctrl-alt-del', () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
onButton('paste', paste);
run(open);
