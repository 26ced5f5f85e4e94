// SPDX-License-Identifier: Apache-2.0
// Types a text into a guest key by key, for guests without a clipboard, such as a login prompt.

// QEMU hands on one key event each 10 ms. It keeps about 340 more, and loses what comes then, releases too: Shift
// seems to be held from there on. A keyboard keeps 16 bytes, which are 5 characters, until the guest reads them.
const EVENT_INTERVAL = 12;  // ms
const ECHO_TIMEOUT = 500;  // ms
const ECHOLESS = 3;  // characters without an echo after which none is waited for, as at a password prompt

const SHIFT = 0xffe1;
const NEEDS_SHIFT = /[A-Z~!@#$%^&*()_+{}|:"<>?]/;  // on the US layout, by which hypervisors map keysyms

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

function pause(milliseconds) {
  return new Promise((resolve) => { setTimeout(resolve, milliseconds); });
}

/**
 * Type a text, no faster than the guest takes it: after each character, wait until the screen changes.
 *
 * `sendKey(keysym, down)` sends a key, `socket` receives what changes on the screen, `signal` stops.
 */
export async function typeText(text, sendKey, socket, signal) {
  let shifted = false;
  let changes = 0;
  let missed = 0;
  const count = () => { changes += 1; };
  socket.addEventListener('message', count);
  try {
    for (const character of text.replace(/\r\n?/g, '\n')) {
      if (signal.aborted) {
        return;
      }
      const keysym = keysymFor(character);
      const keys = [[keysym, true], [keysym, false]];
      if (NEEDS_SHIFT.test(character) !== shifted) {
        shifted = !shifted;
        keys.unshift([SHIFT, shifted]);
      }
      const before = changes;
      // at once: a browser may stop a hidden page for a second, and a guest repeats a key that is held
      keys.forEach(([each, down]) => sendKey(each, down));
      await pause(EVENT_INTERVAL * keys.length);
      const deadline = performance.now() + (missed < ECHOLESS ? ECHO_TIMEOUT : 0);
      while (changes === before && performance.now() < deadline && !signal.aborted) {
        await pause(5);
      }
      missed = changes === before ? missed + 1 : 0;
    }
  } finally {
    socket.removeEventListener('message', count);
    if (shifted) {
      sendKey(SHIFT, false);
    }
  }
}
