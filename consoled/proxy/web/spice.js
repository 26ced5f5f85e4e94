// SPDX-License-Identifier: Apache-2.0
// The page of a SPICE console. spice-html5 draws the screen and sends keys; this script does the rest.

import './cssom.js';  // spice-html5 positions videos with a style attribute
import {
  connected, consoleUrl, ending, library, onButton, openSocket, run, screen, UNREADABLE,
} from './page.js';

const display = document.getElementById('spice-screen');  // spice-html5 sets its height
let client = null;
let onSocket = () => {};  // called with each new websocket

// spice-html5 opens one websocket per channel, without our token, and does not report how they are closed.
if (window.WebSocket) {
  window.WebSocket = new Proxy(window.WebSocket, {
    construct(Socket, [url]) {
      const socket = openSocket(url, [], Socket);
      onSocket(socket);
      return socket;
    },
  });
}

/** Scale the guest display to the available space. */
function fit() {
  const canvas = display.querySelector('canvas');
  if (canvas === null || !canvas.width || !canvas.height) {
    return;
  }
  const scale = Math.min(screen.clientWidth / canvas.width, screen.clientHeight / canvas.height);
  // a transform rather than a size keeps mouse positions within the canvas in guest pixels
  display.style.transform = `translate(-50%, -50%) scale(${scale})`;
}

let ticketFixed = false;

/**
 * Pad the encrypted password to the length of the key with leading zeros (RFC 8017, section 7.1.1).
 *
 * spice-html5 0.3.0 appends the zeros instead, so that one channel in 256 is refused, with or without a
 * password.
 */
function fixTicket({ SpiceLinkAuthTicket: Ticket }) {
  if (ticketFixed) {
    return;
  }
  ticketFixed = true;
  const write = Ticket.prototype.to_buffer;
  Ticket.prototype.to_buffer = function toBuffer(...parameters) {
    const number = this.encrypted_data ?? [];
    const missing = this.buffer_size() - 4 - number.length;  // 4: the kind of authentication before it
    this.encrypted_data = [...new Array(Math.max(0, missing)).fill(0), ...number];
    return write.apply(this, parameters);
  };
}

/** Call `failed` when spice-html5 throws an error at what it reads: it reads nothing more then. */
function watchReader(socket, failed) {
  const listen = socket.addEventListener.bind(socket);
  socket.addEventListener = (type, listener) => listen(type, type !== 'message' ? listener : (event) => {
    try {
      listener.call(socket, event);
    } catch (error) {
      console.error(error);
      failed();
    }
  });
}

async function open() {
  const { SpiceMainConn, messages } = await library(import('./spice-html5.js'));
  fixTicket(messages);
  const uri = consoleUrl();
  const how = await new Promise((resolve) => {
    let closing = false;
    onSocket = (socket) => {
      socket.addEventListener('close', () => { closing ||= essential(socket); });
      ending(socket).then((end) => essential(socket) && resolve(end));
      watchReader(socket, () => isRead(socket) && resolve(UNREADABLE));
    };
    client = new SpiceMainConn({
      uri,
      password: '',
      screen_id: display.id,
      onsuccess: connected,
      // also called when a websocket is closed: `ending` then knows the reason
      onerror: (error) => setTimeout(() => closing || resolve(failure(error)), 500),
    });
  });
  stop();
  return how;
}

/** Return whether the console ends with this websocket. It goes on without sound, for example. */
function essential(socket) {
  return [client?.ws, client?.display?.ws, client?.inputs?.ws].includes(socket);
}

/** Return whether the console works only while this websocket is read: the first one only has to find the others. */
function isRead(socket) {
  return essential(socket) && (socket !== client.ws || client.display === undefined);
}

function failure(error) {
  const why = error.message === 'Permission denied.' ? 'it requires a password' : 'the SPICE session failed';
  return { reason: 'console_failed', text: `The guest display cannot be shown: ${why}.`, retryable: true };
}

function stop() {
  onSocket = () => {};
  try {
    client.stop();
  } catch (error) {
    console.warn('spice-html5 did not stop cleanly', error);
  }
  client = null;
  display.replaceChildren();
}

async function sendCtrlAltDel() {
  const library = await import('./spice-html5.js');
  const canvas = display.querySelector('canvas');
  library.sendCtrlAltDel(client);
  // spice-html5 0.3.0 never releases this key, and a guest repeats a key that is held
  canvas?.dispatchEvent(new KeyboardEvent('keyup', { code: 'NumpadDecimal', keyCode: 110 }));
  canvas?.focus();
}

new ResizeObserver(fit).observe(screen);
new MutationObserver(fit).observe(display, {
  attributeFilter: ['width', 'height'],
  childList: true,
  subtree: true,
});
onButton('ctrl-alt-del', sendCtrlAltDel);
run(open);
