// SPDX-License-Identifier: Apache-2.0
// The page of a SPICE console: spice-html5 draws and sends keys, everything around it is here.

import './cssom.js';  // spice-html5 places videos by a style attribute
import { connected, consoleUrl, ending, onButton, run, screen } from './page.js';

const display = document.getElementById('spice-screen');  // spice-html5 sets its height
let client = null;
let watch = () => {};

// One client opens a websocket for each channel, and says nothing of how they end.
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...parameters) {
    super(...parameters);
    watch(this);
  }
};

/** Scale the guest's display into the room that it has. */
function fit() {
  const canvas = display.querySelector('canvas');
  if (canvas === null || !canvas.width || !canvas.height) {
    return;
  }
  const scale = Math.min(screen.clientWidth / canvas.width, screen.clientHeight / canvas.height);
  // a transform, not a size: the mouse's position within the canvas stays in the guest's pixels
  display.style.transform = `translate(-50%, -50%) scale(${scale})`;
}

let mended = false;

/**
 * Have passwords encrypted to a number that is as long as the key, zeros in front (RFC 8017, section 7.1.1).
 * spice-html5 (0.3.0) puts them behind, and so one channel in 256 is refused, with or without a password.
 */
function mend({ SpiceLinkAuthTicket: Ticket }) {
  if (mended) {
    return;
  }
  mended = true;
  const write = Ticket.prototype.to_buffer;
  Ticket.prototype.to_buffer = function toBuffer(...parameters) {
    const number = this.encrypted_data ?? [];
    const missing = this.buffer_size() - 4 - number.length;  // before it: which kind of authentication
    this.encrypted_data = [...new Array(Math.max(0, missing)).fill(0), ...number];
    return write.apply(this, parameters);
  };
}

async function open() {
  const { SpiceMainConn, messages } = await import('./spice-html5.js');
  mend(messages);
  const uri = consoleUrl();
  const how = await new Promise((resolve) => {
    let closing = false;
    watch = (socket) => {
      socket.addEventListener('close', () => { closing ||= essential(socket); });
      ending(socket).then((end) => essential(socket) && resolve(end));
    };
    client = new SpiceMainConn({
      uri,
      password: '',
      screen_id: display.id,
      onsuccess: connected,
      // also called when a websocket closes, of which `ending` knows more
      onerror: (error) => setTimeout(() => closing || resolve(failure(error)), 500),
    });
  });
  stop();
  return how;
}

/** A console without sound is still one. */
function essential(socket) {
  return [client?.ws, client?.display?.ws, client?.inputs?.ws].includes(socket);
}

function failure(error) {
  const why = error.message === 'Permission denied.' ? 'it asks for a password' : 'the SPICE session failed';
  return { reason: 'console_failed', text: `The guest\u2019s display can not be shown: ${why}.`, retryable: true };
}

function stop() {
  watch = () => {};
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
  // it leaves this key held (0.3.0), and a guest repeats a held key
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
